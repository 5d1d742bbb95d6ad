//! A real etcd of three members, each of which can be killed, frozen and started again.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lifeboat_environment::Environment;
use lifeboat_quorum::{Authority, EtcdAccess};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::process::{Account, PATIENCE, kill_tree, wait_until};
use crate::scratch::{Scratch, write};

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// A frozen member answers nothing, and must not hold up the question who leads.
const ASK: Duration = Duration::from_millis(500);

/// A cluster on loopback addresses of its own. Dropping it kills and removes it.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    arguments: Vec<String>,
    authority: Option<Authority>,
    scratch: Scratch,
}

#[derive(Debug)]
struct Member {
    address: String,
    child: Option<Child>,
    frozen: bool,
    /// The authority's certificate, where it speaks TLS.
    ca: Option<String>,
}

impl Cluster {
    /// Three members that elect a new leader within about a second.
    pub fn start() -> Result<Self> {
        Self::with(Duration::from_millis(50), Duration::from_millis(500))
    }

    /// Three members that speak TLS alone, to clients and among each other.
    pub fn secure() -> Result<Self> {
        let authority = Authority::create(&Environment::system())?;
        Self::make(Duration::from_millis(50), Duration::from_millis(500), Some(authority))
    }

    /// Three members with these times; returns once they have a leader.
    pub fn with(heartbeat: Duration, election: Duration) -> Result<Self> {
        Self::make(heartbeat, election, None)
    }

    fn make(heartbeat: Duration, election: Duration, authority: Option<Authority>) -> Result<Self> {
        let network = free_network()?;
        let addresses: Vec<String> = (1..=3).map(|host| format!("{network}.{host}")).collect();
        let all = addresses.iter().enumerate();
        let scheme = if authority.is_some() { "https" } else { "http" };
        let all: Vec<String> =
            all.map(|(index, at)| format!("m{index}={scheme}://{at}:{PEER_PORT}")).collect();
        let arguments = vec![
            format!("--initial-cluster={}", all.join(",")),
            format!("--initial-cluster-token={network}"),
            "--initial-cluster-state=new".to_owned(),
            format!("--heartbeat-interval={}", heartbeat.as_millis()),
            format!("--election-timeout={}", election.as_millis()),
            // A member that comes back must not depose the leader.
            "--pre-vote=true".to_owned(),
            // Passwords here protect nothing, and are checked by two processors.
            "--bcrypt-cost=4".to_owned(),
            "--logger=zap".to_owned(),
        ];
        let ca = authority.as_ref().map(|authority| authority.tls_certificate.clone());
        let member = |address| Member { address, child: None, frozen: false, ca: ca.clone() };
        let members = addresses.into_iter().map(member).collect();
        let mut cluster = Self { members, arguments, authority, scratch: Scratch::new()? };
        for index in 0..cluster.members.len() {
            cluster.scratch.folder(&format!("m{index}"))?;
            cluster.certify(index)?;
            cluster.launch(index)?;
        }
        cluster.wait_for_leader()?;
        Ok(cluster)
    }

    /// The URLs for clients, one a member.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::endpoint).collect()
    }

    /// The way in, as nobody.
    pub fn access(&self) -> EtcdAccess {
        let ca = self.authority.as_ref();
        let ca = ca.map(|authority| authority.tls_certificate.clone().into_bytes());
        EtcdAccess { endpoints: self.endpoints(), ca, ..EtcdAccess::default() }
    }

    /// Who certified the members of a cluster that speaks TLS.
    pub fn authority(&self) -> Result<&Authority> {
        self.authority.as_ref().context("this cluster speaks no TLS")
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none; there are always three.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The member that leads, as a majority of the others says. Waits until there is one.
    pub fn leader(&self) -> Result<usize> {
        let mut found = None;
        wait_until(PATIENCE, || {
            found = self.leader_now();
            Ok(found.is_some())
        })?;
        found.with_context(|| format!("no leader was elected\n{}", self.log()))
    }

    /// A member that does not lead.
    pub fn follower(&self) -> Result<usize> {
        let leader = self.leader()?;
        (0..self.members.len()).find(|index| *index != leader).context("no follower")
    }

    /// Kills a member as a power cut does.
    pub fn kill(&mut self, index: usize) -> Result<()> {
        let member = self.member(index)?;
        member.frozen = false;
        let Some(mut child) = member.child.take() else { bail!("member {index} is not running") };
        kill_tree(Pid::from_raw(child.id().cast_signed()));
        child.wait()?;
        Ok(())
    }

    /// Freezes a member: it keeps its connections and says nothing.
    pub fn stop(&mut self, index: usize) -> Result<()> {
        self.signal(index, Signal::SIGSTOP)?;
        self.member(index)?.frozen = true;
        Ok(())
    }

    /// Thaws a frozen member.
    pub fn cont(&mut self, index: usize) -> Result<()> {
        self.signal(index, Signal::SIGCONT)?;
        self.member(index)?.frozen = false;
        Ok(())
    }

    /// Starts a killed member again on its own data; does not wait for it.
    pub fn restart(&mut self, index: usize) -> Result<()> {
        if self.member(index)?.child.is_some() {
            bail!("member {index} is running");
        }
        self.launch(index)
    }

    /// Takes away all that the members have stored, as restoring an empty snapshot does: the same
    /// cluster by name, with another history. They must have been killed.
    pub fn wipe(&mut self) -> Result<()> {
        for index in 0..self.members.len() {
            if self.member(index)?.child.is_some() {
                bail!("member {index} is running");
            }
            fs::remove_dir_all(self.scratch.join(&format!("m{index}/data")))?;
        }
        Ok(())
    }

    /// Starts and thaws whatever does not run, and waits until all three follow one leader.
    pub fn heal(&mut self) -> Result<()> {
        for index in 0..self.members.len() {
            let member = self.member(index)?;
            match (member.child.is_some(), member.frozen) {
                (true, true) => self.cont(index)?,
                (true, false) => {}
                (false, _) => self.launch(index)?,
            }
        }
        self.wait_for_leader()
    }

    /// What the members logged, for messages.
    pub fn log(&self) -> String {
        let logs = (0..self.members.len()).map(|index| {
            let text = fs::read(self.log_path(index)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines.len().saturating_sub(15);
            format!("member {index}:\n{}\n", lines.get(tail..).unwrap_or_default().join("\n"))
        });
        logs.collect()
    }

    fn log_path(&self, index: usize) -> PathBuf {
        self.scratch.join(&format!("m{index}.log"))
    }

    fn member(&mut self, index: usize) -> Result<&mut Member> {
        self.members.get_mut(index).with_context(|| format!("no member {index}"))
    }

    fn signal(&mut self, index: usize, signal: Signal) -> Result<()> {
        let Some(child) = &self.member(index)?.child else {
            bail!("member {index} is not running");
        };
        kill(Pid::from_raw(child.id().cast_signed()), signal)?;
        Ok(())
    }

    /// Makes a member's certificate, for its address.
    fn certify(&self, index: usize) -> Result<()> {
        let (Some(authority), Some(member)) = (&self.authority, self.members.get(index)) else {
            return Ok(());
        };
        // Members compare the name with where a connection comes from, which loopback decides.
        let names = [member.address.clone(), "127.0.0.1".to_owned()];
        let made = authority.server(&Environment::system(), &format!("m{index}"), &names)?;
        let folder = self.scratch.join(&format!("m{index}"));
        write(&folder.join("ca.pem"), &authority.tls_certificate)?;
        write(&folder.join("cert.pem"), &made.certificate)?;
        write(&folder.join("key.pem"), made.key.as_bytes())
    }

    fn launch(&mut self, index: usize) -> Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.log_path(index))?;
        let data = self.scratch.join(&format!("m{index}"));
        let arguments = self.arguments.clone();
        let member = self.member(index)?;
        let client = member.endpoint();
        let peer = format!("{}://{}:{PEER_PORT}", member.scheme(), member.address);
        let mut command = Command::new("etcd");
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.arg(format!("--name=m{index}")).arg("--data-dir").arg(data.join("data"));
        command.arg(format!("--listen-client-urls={client}"));
        command.arg(format!("--advertise-client-urls={client}"));
        command.arg(format!("--listen-peer-urls={peer}"));
        command.arg(format!("--initial-advertise-peer-urls={peer}"));
        command.args(arguments).current_dir("/");
        if member.ca.is_some() {
            for prefix in ["--", "--peer-"] {
                command.arg(format!("{prefix}cert-file={}/cert.pem", data.display()));
                command.arg(format!("{prefix}key-file={}/key.pem", data.display()));
            }
            // For clients too it would mean that they must have a certificate.
            command.arg(format!("--peer-trusted-ca-file={}/ca.pem", data.display()));
            command.arg("--peer-client-cert-auth=true");
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Account::of_server()?.apply(&mut command);
        let child = command.spawn().context("cannot start etcd; run `cargo xtask install`")?;
        member.child = Some(child);
        Ok(())
    }

    /// Until every member that runs and is not frozen follows the same leader.
    fn wait_for_leader(&mut self) -> Result<()> {
        let agreed = wait_until(PATIENCE, || {
            for (index, member) in self.members.iter_mut().enumerate() {
                let Some(child) = &mut member.child else { continue };
                if let Some(status) = child.try_wait()? {
                    bail!("member {index} ended with {status}\n{}", self.scratch.path().display());
                }
            }
            let running = self.members.iter().filter(|member| member.answers());
            let statuses: Vec<_> = running.map(Member::status).collect();
            let leaders: Vec<_> = statuses.iter().map(|status| Some(status.as_ref()?.1)).collect();
            let first = leaders.first().copied().flatten();
            Ok(first.is_some() && leaders.iter().all(|leader| *leader == first))
        });
        match agreed {
            Ok(true) => Ok(()),
            Ok(false) => bail!("the members have no leader\n{}", self.log()),
            Err(error) => Err(error.context(self.log())),
        }
    }

    /// The leader that every answering member names, if it answers itself.
    fn leader_now(&self) -> Option<usize> {
        let mut statuses = self.members.iter().enumerate().filter(|(_, member)| member.answers());
        let mut ids = Vec::new();
        let mut named = None;
        for (index, member) in statuses.by_ref() {
            let (id, leader) = member.status()?;
            if *named.get_or_insert(leader) != leader {
                return None;
            }
            ids.push((index, id));
        }
        let leader = named?;
        ids.into_iter().find(|(_, id)| *id == leader).map(|(index, _)| index)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(mut child) = member.child.take() {
                kill_tree(Pid::from_raw(child.id().cast_signed()));
                let _ = child.wait();
            }
        }
    }
}

impl Member {
    fn endpoint(&self) -> String {
        format!("{}://{}:{CLIENT_PORT}", self.scheme(), self.address)
    }

    fn scheme(&self) -> &'static str {
        if self.ca.is_some() { "https" } else { "http" }
    }

    fn answers(&self) -> bool {
        self.child.is_some() && !self.frozen
    }

    /// Its own id and the leader's; nothing if it does not answer or knows none.
    fn status(&self) -> Option<(u64, u64)> {
        let url = format!("{}/v3/maintenance/status", self.endpoint());
        let answer = post(&url, "{}", self.ca.as_deref()).ok()?;
        let number = |value: Option<&Value>| value?.as_str()?.parse::<u64>().ok();
        let own = number(answer.get("header")?.get("member_id"))?;
        Some((own, number(answer.get("leader"))?))
    }
}

/// Three numbers of a loopback network whose first host has both ports free. Networks of their
/// own, for a member must find its port again after it was killed.
fn free_network() -> Result<String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mixed = std::process::id().wrapping_mul(2_654_435_761).wrapping_add(count * 7919);
        let network = format!("127.{}.{}", 64 + (mixed >> 8) % 60, (mixed >> 16) % 256);
        let free = (1..=3).all(|host| {
            [CLIENT_PORT, PEER_PORT]
                .iter()
                .all(|port| TcpListener::bind((format!("{network}.{host}"), *port)).is_ok())
        });
        if free {
            return Ok(network);
        }
    }
    bail!("no loopback network is free")
}

/// One request, for tests are not asynchronous where they break a cluster.
fn post(url: &str, body: &str, ca: Option<&str>) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut client = reqwest::Client::builder().no_proxy().timeout(ASK);
    if let Some(ca) = ca {
        client = client.tls_certs_only([reqwest::Certificate::from_pem(ca.as_bytes())?]);
    }
    let request = client.build()?.post(url).body(body.to_owned());
    // Inside a test's own runtime no other may block; a thread has none.
    let sent = std::thread::spawn(move || {
        runtime.block_on(async { request.send().await?.error_for_status()?.text().await })
    });
    match sent.join() {
        Ok(answer) => Ok(serde_json::from_str(&answer?)?),
        Err(_) => bail!("the request's thread panicked"),
    }
}
