//! Real BIND 9 on a loopback port: servers that are authoritative for a zone, and caching resolvers
//! as clients have them. Each lives in a directory of its own, without privileges.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lifeboat_environment::{Random as _, SystemRandom};

use crate::process::{Account, Finished, PATIENCE, Running, run, wait_until};
use crate::scratch::Scratch;

/// The server that does not answer by then never will.
const START: Duration = Duration::from_secs(30);
/// The key that stands for an administrator: it may change everything in the zone.
const ADMINISTRATOR: &str = "administrator";

/// A TSIG key for hmac-sha256.
#[derive(Clone)]
pub struct Key {
    /// Its name, without the last dot.
    pub name: String,
    /// The secret in base64, as BIND and the spec have it.
    pub secret: String,
}

impl Key {
    /// A fresh key.
    pub fn new(name: &str) -> Self {
        let mut secret = [0; 32];
        SystemRandom.fill(&mut secret);
        Self { name: name.to_owned(), secret: STANDARD.encode(secret) }
    }

    /// The statement for named.conf and for `nsupdate -k`.
    pub fn statement(&self) -> String {
        let Self { name, secret } = self;
        format!("key \"{name}.\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n")
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A zone with records that Lifeboat may change, and only those.
#[derive(Debug, Clone)]
pub struct Zone {
    /// Its name, with the last dot.
    pub name: String,
    /// The names that `key` may change, with their last dots.
    pub records: Vec<String>,
    /// The key that may.
    pub key: Key,
}

impl Zone {
    /// The zone `lifeboat.test.`, in which a fresh key may change these names.
    pub fn with(records: &[&str]) -> Self {
        Self {
            name: "lifeboat.test.".to_owned(),
            records: records.iter().map(|&record| record.to_owned()).collect(),
            key: Key::new("lifeboat"),
        }
    }

    /// The key, and the zone with least privilege for it, name by name and type by type. `more` is
    /// granted besides. docs/operations/traffic.md shows the very same, and a test sees to that.
    pub fn statements(&self, more: &str) -> String {
        let (name, key) = (&self.name, &self.key.name);
        let mut text = self.key.statement();
        let _ = write!(text, "zone \"{name}\" {{\n    type primary;\n    file \"zone.db\";\n");
        text.push_str("    update-policy {\n");
        for record in &self.records {
            let _ = writeln!(text, "        grant {key}. name {record} A AAAA;");
            let _ = writeln!(text, "        grant {key}. name _lifeboat.{record} TXT;");
        }
        let _ = write!(text, "{more}    }};\n}};\n");
        text
    }
}

/// A running `named`. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    process: Option<Running>,
    address: SocketAddr,
    zone: String,
    scratch: Scratch,
}

impl Server {
    /// A server that is authoritative for the zone, on its own: several of them know nothing of
    /// each other.
    pub fn authoritative(zone: &Zone) -> Result<Self> {
        Self::authoritative_at(IpAddr::V4(Ipv4Addr::LOCALHOST), zone)
    }

    /// The same on another address of this machine.
    pub fn authoritative_at(address: IpAddr, zone: &Zone) -> Result<Self> {
        let administrator = Key::new(ADMINISTRATOR);
        let name = &zone.name;
        let all = format!("        grant {ADMINISTRATOR}. zonesub ANY;\n");
        // BIND asks the root servers of the world when it starts, unless it is one itself.
        let root = "zone \".\" {\n    type primary;\n    file \"root.db\";\n};\n";
        let configuration = administrator.statement() + root + &zone.statements(&all);
        let records = format!(
            "$TTL 60\n@ SOA ns.{name} hostmaster.{name} 1 60 60 600 1\n@ NS ns.{name}\n\
             ns A 127.0.0.1\n"
        );
        let scratch = Scratch::new()?;
        scratch.file("zone.db", records)?;
        scratch.file(
            "root.db",
            "$TTL 60\n@ SOA ns. hostmaster. 1 60 60 600 1\n@ NS ns.\nns. A 127.0.0.1\n",
        )?;
        scratch.file("administrator.key", administrator.statement())?;
        Self::start(scratch, address, name, "recursion no; dnssec-validation no;", &configuration)
    }

    /// A caching resolver as clients use one: it asks these servers, and remembers for as long as
    /// the record's TTL says.
    pub fn caching(servers: &[&Self]) -> Result<Self> {
        let forwarders = servers.iter().fold(String::new(), |mut list, server| {
            let _ = write!(list, "{} port {}; ", server.address.ip(), server.address.port());
            list
        });
        let options = format!(
            "recursion yes; dnssec-validation no; prefetch 0; forward only; \
             forwarders {{ {forwarders}}};"
        );
        let zone = servers.first().context("a resolver needs a server to ask")?.zone.clone();
        Self::start(Scratch::new()?, IpAddr::V4(Ipv4Addr::LOCALHOST), &zone, &options, "")
    }

    fn start(
        scratch: Scratch,
        address: IpAddr,
        zone: &str,
        options: &str,
        rest: &str,
    ) -> Result<Self> {
        let address = free_address(address)?;
        let (directory, ip, port) = (scratch.path().display(), address.ip(), address.port());
        let family = if ip.is_ipv4() { "listen-on" } else { "listen-on-v6" };
        let other = if ip.is_ipv4() { "listen-on-v6" } else { "listen-on" };
        let configuration = format!(
            "options {{\n    directory \"{directory}\";\n    pid-file \"{directory}/named.pid\";\n    \
             session-keyfile \"{directory}/session.key\";\n    \
             {family} port {port} {{ {ip}; }};\n    {other} {{ none; }};\n    \
             allow-transfer {{ none; }};\n    notify no;\n    {options}\n}};\ncontrols {{ }};\n{rest}"
        );
        scratch.file("named.conf", configuration)?;
        let zone = zone.to_owned();
        let mut server = Self { process: None, address, zone, scratch };
        server.revive()?;
        Ok(server)
    }

    /// Starts it again where it was, with the zone that it wrote down.
    pub fn revive(&mut self) -> Result<()> {
        let mut command = Command::new("/usr/sbin/named");
        // One thread for queries: many of them share two cores.
        command.args(["-g", "-n", "1", "-c"]).arg(self.scratch.join("named.conf"));
        command.current_dir(self.scratch.path());
        Account::of_server()?.apply(&mut command);
        self.process = Some(Running::spawn(&mut command, None)?);
        let zone = self.zone.clone();
        let answers = wait_until(START, || {
            if !self.process.as_mut().is_some_and(|process| process.is_running().unwrap_or(false)) {
                let process = self.process.take().context("named was never started")?;
                bail!("{}", process.wait(START)?);
            }
            Ok(self.ask(&zone, "SOA").is_ok_and(|records| !records.is_empty()))
        });
        match answers.context("cannot start named; run `cargo xtask install`")? {
            true => Ok(()),
            false => bail!("named did not answer within {} s", START.as_secs()),
        }
    }

    /// HOST:PORT.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The records of a name and type as `dig` prints them: `NAME TTL CLASS TYPE DATA`.
    pub fn ask(&self, name: &str, kind: &str) -> Result<Vec<String>> {
        let mut command = Command::new("dig");
        command
            .arg(format!("@{}", self.address.ip()))
            .arg("-p")
            .arg(self.address.port().to_string());
        command.args(["+time=1", "+tries=1", "+noall", "+answer", "-r", name, kind]);
        let lines = run(&mut command)?.success()?.stdout;
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(lines.lines().filter(|line| !line.starts_with(';')).map(words).collect())
    }

    /// The data of a name and type, sorted.
    pub fn data(&self, name: &str, kind: &str) -> Result<Vec<String>> {
        let data = |line: String| line.splitn(5, ' ').nth(4).map(str::to_owned);
        let mut data: Vec<_> = self.ask(name, kind)?.into_iter().filter_map(data).collect();
        data.sort();
        Ok(data)
    }

    /// Changes the zone as an administrator does: lines of nsupdate such as
    /// `update delete db.lifeboat.test. A`.
    pub fn edit(&self, lines: &[&str]) -> Result<Finished> {
        let (ip, port, zone) = (self.address.ip(), self.address.port(), &self.zone);
        let input = format!("server {ip} {port}\nzone {zone}\n{}\nsend\n", lines.join("\n"));
        let mut command = Command::new("nsupdate");
        command.arg("-k").arg(self.scratch.join("administrator.key"));
        Running::spawn(&mut command, Some(&input))?.wait(PATIENCE)?.success()
    }

    /// Freezes it: connections are taken, and nothing is answered.
    pub fn freeze(&self) -> Result<()> {
        self.process.as_ref().context("it is not running")?.freeze()
    }

    /// Ends the frost.
    pub fn thaw(&self) -> Result<()> {
        self.process.as_ref().context("it is not running")?.thaw()
    }

    /// Kills it as a power cut does.
    pub fn kill(&mut self) {
        self.process = None;
    }
}

/// An address whose port is free for UDP and TCP alike.
fn free_address(ip: IpAddr) -> Result<SocketAddr> {
    for _ in 0..100 {
        let address = TcpListener::bind((ip, 0))?.local_addr()?;
        if UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port of {ip} is free for UDP and TCP")
}

#[cfg(test)]
mod tests;
