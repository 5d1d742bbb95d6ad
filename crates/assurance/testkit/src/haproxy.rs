//! Real HAProxy on a loopback port, in front of servers whose agents it asks.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Account, Running, wait_until};
use crate::scratch::Scratch;

/// The proxy that does not answer by then never will.
const START: Duration = Duration::from_secs(30);

/// One server of the backend.
#[derive(Debug, Clone)]
pub struct Member {
    /// What HAProxy calls it.
    pub name: String,
    /// Where clients are sent.
    pub serves: SocketAddr,
    /// Where its agent answers `GET /primary`.
    pub agent: SocketAddr,
}

/// A running `haproxy` with one backend. Dropping it kills it.
#[derive(Debug)]
pub struct Proxy {
    process: Option<Running>,
    frontend: SocketAddr,
    admin: SocketAddr,
    scratch: Scratch,
}

impl Proxy {
    /// Starts one in front of these members. It has asked none of them yet: HAProxy holds a server
    /// for good until a check says otherwise.
    pub fn start(backend: &str, members: &[Member]) -> Result<Self> {
        Self::start_as(backend, members, |text| text)
    }

    /// The same with other settings.
    pub fn start_as(
        backend: &str,
        members: &[Member],
        change: impl Fn(String) -> String,
    ) -> Result<Self> {
        let free = || -> Result<_> { Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?) };
        let (frontend, admin, scratch) = (free()?, free()?, Scratch::new()?);
        let socket = scratch.join("admin.sock");
        let mut configuration = format!(
            "global\n    stats socket {} mode 600 level admin\n    stats socket ipv4@{admin} level admin\n",
            socket.display()
        );
        configuration.push_str(&change(proxies(backend, frontend, members)));
        scratch.file("haproxy.cfg", configuration)?;
        let mut proxy = Self { process: None, frontend, admin, scratch };
        proxy.revive()?;
        Ok(proxy)
    }

    /// Starts it again where it was; what was said on the admin socket is forgotten, as after any
    /// reload.
    pub fn revive(&mut self) -> Result<()> {
        let mut command = Command::new("/usr/sbin/haproxy");
        command.arg("-db").arg("-f").arg(self.scratch.join("haproxy.cfg"));
        Account::of_server()?.apply(&mut command);
        self.process = Some(Running::spawn(&mut command, None)?);
        let answers = wait_until(START, || {
            if !self.process.as_mut().is_some_and(|process| process.is_running().unwrap_or(false)) {
                let process = self.process.take().context("haproxy was never started")?;
                bail!("{}", process.wait(START)?);
            }
            Ok(self.say("show info").is_ok())
        });
        match answers.context("cannot start haproxy; run `cargo xtask install`")? {
            true => Ok(()),
            false => bail!("haproxy did not answer within {} s", START.as_secs()),
        }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.frontend
    }

    /// The admin socket as a path.
    pub fn socket(&self) -> PathBuf {
        self.scratch.join("admin.sock")
    }

    /// The admin socket as HOST:PORT.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Says something on the admin socket, as an administrator does.
    pub fn say(&self, line: &str) -> Result<String> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(START))?;
        writeln!(stream, "{line}")?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Connects as a client does.
    pub fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.frontend)?;
        stream.set_read_timeout(Some(START))?;
        stream.set_nodelay(true)?;
        Ok(stream)
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

/// All but `global`. docs/operations/traffic.md shows the very same, and a test sees to that.
pub fn proxies(backend: &str, frontend: SocketAddr, members: &[Member]) -> String {
    let mut text = format!(
        "
defaults
    mode tcp
    timeout connect 1s
    timeout client 1h
    timeout server 1h
    timeout check 500ms

frontend {backend}-clients
    bind {frontend}
    default_backend {backend}

backend {backend}
    option httpchk GET /primary
    http-check expect status 200
    default-server check inter 500ms fall 1 rise 1 on-marked-down shutdown-sessions
"
    );
    for Member { name, serves, agent } in members {
        let (host, port) = (agent.ip(), agent.port());
        let _ = writeln!(text, "    server {name} {serves} addr {host} port {port}");
    }
    text
}
