//! The agent's side of the socket.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lifeboat_telemetry::{Code, Failure, Outcome};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Pid, Uid};

use super::protocol::{
    Answer, Ask, EndReason, GuardStatus, Options, Refusal, Reply, Request, Stop, Stopped, VERSION,
};
use super::{GuardPlan, force};
use crate::Killed;

/// How long a guard may take to answer what it can answer at once.
const PROMPT: Duration = Duration::from_millis(750);
/// How long PostgreSQL's first process may take to exist.
const STARTING: Duration = Duration::from_secs(15);
/// How long a kill may take until it is called failed. The processes die all the same.
const KILLING: Duration = Duration::from_secs(10);
/// How long a guard may take to kill before it is held for frozen.
const FENCE: Duration = Duration::from_millis(1500);
/// No answer is longer.
const LONGEST_LINE: u64 = 64 << 10;

/// A guard that answered once. Cheap to clone; every call is a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    sequence: Arc<AtomicU64>,
}

/// Starts a guard, detached from this process, and waits until it answers. If one answers
/// already, that one is returned. Blocks for 10 s at most.
pub fn launch(plan: &GuardPlan) -> Outcome<Client> {
    if let Some(client) = connect(&plan.socket())? {
        return Ok(client);
    }
    let own = || std::env::current_exe().unwrap_or_else(|_| PathBuf::from("lifeboat"));
    let mut command = Command::new(plan.program.clone().unwrap_or_else(own));
    command.args(["guard", "run", "--detach"]).args(arguments(plan));
    let output = command.stdin(Stdio::null()).output().map_err(|error| unavailable(plan, error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let failure = unavailable(plan, format!("it ended with {}", output.status));
        return Err(failure.details(said.lines().take(20).map(str::to_owned)));
    }
    connect(&plan.socket())?.ok_or_else(|| unavailable(plan, "it does not listen"))
}

/// The command line that makes a guard of a plan.
pub fn arguments(plan: &GuardPlan) -> Vec<std::ffi::OsString> {
    let mut arguments: Vec<std::ffi::OsString> = Vec::new();
    let mut add = |name: &str, value: std::ffi::OsString| {
        arguments.push(name.into());
        arguments.push(value);
    };
    let millis = |duration: Duration| format!("{}ms", duration.as_millis()).into();
    add("--state", plan.state.clone().into());
    add("--data", plan.data_directory.clone().into());
    add("--bin", plan.bin_directory.clone().into());
    if let Some(file) = &plan.config_file {
        add("--config-file", file.clone().into());
    }
    add("--longest", millis(plan.longest));
    add("--stop-limit", millis(plan.stop_limit));
    if let Some(file) = &plan.server_log {
        add("--server-log", file.clone().into());
    }
    if let Some(device) = &plan.watchdog {
        add("--watchdog", device.clone().into());
    }
    arguments
}

/// The guard that listens on `socket`; nothing if none does. Blocks for 1 s at most.
pub fn connect(socket: &Path) -> Outcome<Option<Client>> {
    let client = Client { socket: socket.to_owned(), sequence: Arc::new(AtomicU64::new(1)) };
    match UnixStream::connect(socket) {
        Ok(_) => client.status().map(|_| Some(client)),
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            Ok(None)
        }
        Err(error) => Err(silent(socket, error)),
    }
}

impl Client {
    /// How things are. Blocks for 1 s at most, as all calls here that name no other time.
    pub fn status(&self) -> Outcome<GuardStatus> {
        match self.ask(Ask::Status, PROMPT)? {
            Answer::Status(status) => Ok(*status),
            other => Err(self.odd(&other)),
        }
    }

    /// Starts PostgreSQL and returns its process once that exists, with both processes of the
    /// guard knowing the deadline; a start without one is a standby's. Blocks for 15 s at most.
    pub fn start(&self, options: Options, deadline: Option<Duration>) -> Outcome<i32> {
        match self.ask(Ask::Start { options, deadline }, STARTING)? {
            Answer::Started { postmaster } => Ok(postmaster),
            other => Err(self.odd(&other)),
        }
    }

    /// The instance may live until `deadline`, by CLOCK_BOOTTIME. Returns the one that holds once
    /// both processes of the guard know it: that one or a later one, for it never moves back.
    pub fn extend(&self, deadline: Duration) -> Outcome<Duration> {
        match self.ask(Ask::Extend { deadline }, PROMPT)? {
            Answer::Extended { deadline } => Ok(deadline),
            other => Err(self.odd(&other)),
        }
    }

    /// Kills every process of the instance and returns once none is left; nothing is killed where
    /// nothing lives. A guard that does not answer within 1.5 s is frozen: then this process does
    /// the guard's work and kills the guard after it. Blocks for 10 s at most.
    pub fn fence(&self) -> Outcome<Killed> {
        match self.ask(Ask::Fence, FENCE) {
            Ok(Answer::Gone(end)) => Ok(Killed { processes: end.killed, took: end.took }),
            Ok(other) => Err(self.odd(&other)),
            Err(failure) if failure.code() == Code::GuardSilent => self.kill_frozen(failure),
            Err(failure) => Err(failure),
        }
    }

    fn kill_frozen(&self, silence: Failure) -> Outcome<Killed> {
        // A frozen listener still lets others connect, and the kernel knows whose it is.
        let Ok((stream, _)) = self.dial() else { return Err(silence) };
        let keeper = getsockopt(&stream, PeerCredentials)
            .map_err(|error| silent(&self.socket, error))?
            .pid();
        // 0 is somebody in a namespace that this process does not see, and would mean all of us.
        if keeper <= 1 {
            return Err(silence);
        }
        force::kill_below(Pid::from_raw(keeper), KILLING).map_err(|error| {
            Failure::new(
                Code::GuardLeft,
                "the guard is frozen, and its instance could not be killed",
            )
            .because(error)
            .hint("Fence the host from outside: power, network or storage.")
        })
    }

    /// Shuts PostgreSQL down and returns once nothing of it is left; the deadline stays armed
    /// meanwhile and may be extended. What is left after `limit` is killed. Blocks for `limit` and
    /// 10 s at most.
    pub fn stop(&self, how: Stop, limit: Duration) -> Outcome<Stopped> {
        match self.ask(Ask::Stop { how, limit }, limit.saturating_add(KILLING))? {
            Answer::Gone(end) => {
                let clean = end.reason == EndReason::Stopped { code: Some(0) };
                Ok(Stopped { clean, end })
            }
            other => Err(self.odd(&other)),
        }
    }

    /// Ends the guard itself. Refused while an instance lives.
    pub fn end(&self) -> Outcome<()> {
        match self.ask(Ask::End, PROMPT)? {
            Answer::Ending => Ok(()),
            other => Err(self.odd(&other)),
        }
    }

    fn ask(&self, ask: Ask, limit: Duration) -> Outcome<Answer> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let request = Request { version: VERSION, sequence, ask };
        let reply = self.exchange(&request, limit).map_err(|error| silent(&self.socket, error))?;
        if reply.sequence != sequence || reply.version != VERSION {
            return Err(silent(&self.socket, "the reply belongs to another request"));
        }
        match reply.answer {
            Answer::Refused { refusal, why } => Err(refused(refusal, &why)),
            answer => Ok(answer),
        }
    }

    fn exchange(&self, request: &Request, limit: Duration) -> std::io::Result<Reply> {
        let (mut stream, peer) = self.dial()?;
        let own = Uid::effective();
        if !peer.is_root() && peer != own && !own.is_root() {
            return Err(std::io::Error::other(format!("it belongs to user {peer}")));
        }
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(PROMPT))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut line = Vec::new();
        BufReader::new(stream.take(LONGEST_LINE)).read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&line)?)
    }

    /// Whoever could put a socket here could also confirm what nobody did: this says whose it is.
    fn dial(&self) -> std::io::Result<(UnixStream, Uid)> {
        let stream = UnixStream::connect(&self.socket)?;
        let peer = Uid::from_raw(getsockopt(&stream, PeerCredentials)?.uid());
        Ok((stream, peer))
    }

    fn odd(&self, answer: &Answer) -> Failure {
        silent(&self.socket, format!("it answered another question: {answer:?}"))
    }
}

fn unavailable(
    plan: &GuardPlan,
    why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Failure {
    let data = plan.data_directory.display();
    Failure::new(Code::GuardSilent, format!("no guard could be started for {data}"))
        .because(why)
        .hint(format!("Read {}.", plan.log().display()))
}

fn silent(socket: &Path, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::new(Code::GuardSilent, format!("the guard at {} did not answer", socket.display()))
        .because(why)
        .hint("It kills its instance at the deadline, also if one of its processes is frozen.")
}

fn refused(refusal: Refusal, why: &str) -> Failure {
    match refusal {
        Refusal::Start => Failure::new(Code::GuardStart, why)
            .hint("Read PostgreSQL's log, and guard.log beside the guard's socket."),
        Refusal::Unmanaged => Failure::new(Code::GuardUnmanaged, why)
            .hint("Manage the directory first; without that anybody's start would be a primary."),
        Refusal::Held => Failure::new(Code::GuardRunning, why)
            .hint("Stop it, or kill what is left of it, and keep it from being started again."),
        Refusal::Left => Failure::new(Code::GuardLeft, why)
            .hint("They wait for a disk and run no more; their numbers are in guard.log."),
        Refusal::Deadline => {
            Failure::new(Code::GuardDeadline, why).hint("The guard keeps the deadline that it has.")
        }
        Refusal::State | Refusal::Request => {
            Failure::new(Code::GuardRefused, why).hint("Ask for the status; nothing was changed.")
        }
    }
}
