//! The lower process: PostgreSQL's parent, and in a namespace its first process.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use lifeboat_drivers::guard::processes::living_below;
use lifeboat_drivers::guard::{End, EndReason, Stop};
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::alarm::Alarm;
use super::deadline::Deadline;
use super::lines::Lines;
use super::link::{Become, Begin, Down, FromStep, Up};
use super::log::log;
use super::{protect, reap, step};

/// How long the next process may take to say hello. Nothing of the instance lives then.
const HELLO: Duration = Duration::from_secs(10);
/// How often PostgreSQL's first process is made anew so that its number is the host's number too.
const NUMBERING: u32 = 30;
/// What a clean shutdown leaves, the logging collector above all, may finish for this long.
const SETTLE: Duration = Duration::from_millis(300);

struct Init<'a> {
    environment: &'a Environment,
    begin: Begin,
    link: Lines,
    /// Until PostgreSQL has taken the place of the process at its other end.
    step: Option<Lines>,
    /// Until its exit code was asked for: then the number may be another's.
    postmaster: Option<Pid>,
    outer: i32,
    numbers_agree: bool,
    memory_locked: bool,
    deadline: Deadline,
    /// Since when, and until when at most, it was told to shut down.
    stopping: Option<Duration>,
}

/// Runs until nothing of the instance is left. Its standard input is the keeper's socket.
pub fn init(environment: &Environment) -> Outcome<()> {
    let odd = |error: io::Error| {
        Failure::new(Code::Internal, "the lower process of a guard could not begin").because(error)
    };
    protect::detach(c"lifeboat-init");
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(odd)?;
    let mut socket = UnixStream::from(socket);
    let begin = first(&mut socket).map_err(odd)?;
    let in_place = match begin.namespace {
        // Only the first process of a namespace may do what this one does.
        true => Pid::this().as_raw() == 1,
        false => nix::sys::prctl::set_child_subreaper(true).is_ok(),
    };
    if !in_place {
        return Err(odd(io::Error::other("it is not where it has to be")));
    }
    let memory_locked = protect::stay();
    let mut alarm = Alarm::new().map_err(odd)?;
    let mut link = Lines::new(socket).map_err(odd)?;
    let mut deadline = Deadline::new(begin.longest);
    let now = environment.clock().elapsed();
    let armed = begin.deadline.map_or(Ok(now), |until| deadline.extend(now, until));
    let stepped = match armed {
        Ok(_) => start(&begin).map_err(|error| error.to_string()),
        Err(declined) => Err(declined.to_string()),
    };
    let (child, outer, step) = match stepped {
        Ok(stepped) => stepped,
        Err(why) => {
            link.send(&Up::NotStarted(why));
            return Ok(());
        }
    };
    let mut init = Init {
        environment,
        begin,
        link,
        step: Some(step),
        postmaster: Some(child),
        outer,
        numbers_agree: outer == child.as_raw(),
        memory_locked,
        deadline,
        stopping: None,
    };
    init.run(&mut alarm)
}

impl Init<'_> {
    fn run(&mut self, alarm: &mut Alarm) -> Outcome<()> {
        loop {
            let now = self.environment.clock().elapsed();
            if self.deadline.passed(now) {
                return self.end(EndReason::Deadline);
            }
            if self.stopping.is_some_and(|until| now >= until) {
                return self.end(EndReason::StopTimedOut);
            }
            if let Some(reason) = self.hear().or_else(|| self.postmaster_ended()) {
                return self.end(reason);
            }
            self.stepped();
            let moments = [self.deadline.until(), self.stopping];
            let moment = moments.into_iter().flatten().min();
            let step = self.step.iter().map(AsFd::as_fd);
            let others: Vec<_> = step.chain([self.link.as_fd()]).collect();
            if alarm.wait(moment, &others).is_err() {
                // Who cannot wait cannot guard.
                return self.end(EndReason::GuardDied);
            }
        }
    }

    /// What the keeper says. Whoever ends it ends the instance.
    fn hear(&mut self) -> Option<EndReason> {
        for line in self.link.receive() {
            match line {
                Ok(Down::Extend(to)) => {
                    let now = self.environment.clock().elapsed();
                    if let Ok(until) = self.deadline.extend(now, to) {
                        self.link.send(&Up::Extended(until));
                    }
                }
                Ok(Down::Fence) => return Some(EndReason::Fenced),
                Ok(Down::Stop(how, limit)) => self.stop(how, limit),
                Ok(Down::Begin(_)) | Err(_) => return Some(EndReason::GuardDied),
            }
        }
        self.link.closed().then_some(EndReason::GuardDied)
    }

    fn stop(&mut self, how: Stop, limit: Duration) {
        let signal = match how {
            Stop::Fast => Signal::SIGINT,
            Stop::Immediate => Signal::SIGQUIT,
        };
        let until = self.environment.clock().elapsed().saturating_add(limit);
        self.stopping = Some(self.stopping.map_or(until, |before| before.min(until)));
        // A stopped postmaster would hear it only when it goes on; the limit holds all the same.
        let _ = self.postmaster.map(|postmaster| kill(postmaster, signal));
    }

    /// Whether PostgreSQL has taken the place of the step, whose socket ends with it.
    fn stepped(&mut self) {
        let Some(step) = &mut self.step else { return };
        let said = step.receive::<FromStep>();
        for line in said {
            if let Ok(FromStep::Failed(why)) = line {
                self.link.send(&Up::NotStarted(why));
                self.step = None;
                return;
            }
        }
        if step.closed() {
            self.step = None;
            self.link.send(&Up::Started {
                postmaster: self.outer,
                numbers_agree: self.numbers_agree,
                memory_locked: self.memory_locked,
            });
        }
    }

    fn postmaster_ended(&mut self) -> Option<EndReason> {
        let ended = reap::children().ended;
        let postmaster = ended.iter().find(|ended| Some(ended.pid) == self.postmaster)?;
        self.postmaster = None;
        // It may have said why it could not begin.
        self.stepped();
        Some(match self.stopping {
            Some(_) => EndReason::Stopped { code: postmaster.code },
            None => EndReason::PostmasterEnded { code: postmaster.code },
        })
    }

    /// Kills what is left, waits until nothing is, tells the keeper and ends.
    fn end(&mut self, reason: EndReason) -> Outcome<()> {
        let clean = EndReason::Stopped { code: Some(0) };
        let unasked = EndReason::PostmasterEnded { code: Some(0) };
        if reason == clean || reason == unasked {
            self.settle();
        }
        let end = self.kill(reason);
        self.link.send(&Up::Ended(end.clone()));
        let End { reason, killed, took, .. } = end;
        let what = format!("nothing is left: {reason:?}, {killed} killed in {took:.3?}");
        log(self.environment, "init", &what);
        Ok(())
    }

    /// After a clean shutdown no process can write a commit any more.
    fn settle(&self) {
        let clock = self.environment.clock();
        let until = clock.elapsed().saturating_add(SETTLE);
        while clock.elapsed() < until && !reap::children().none_left {
            clock.sleep(Duration::from_millis(2));
        }
    }

    fn kill(&mut self, reason: EndReason) -> End {
        let clock = self.environment.clock();
        let start = clock.elapsed();
        let mut killed = 0_u32;
        let mut told = false;
        loop {
            self.send_kills();
            if !std::mem::replace(&mut told, true) {
                self.link.send(&Up::Killing);
            }
            let children = reap::children();
            killed = killed.saturating_add(u32::try_from(children.ended.len()).unwrap_or(u32::MAX));
            if children.none_left {
                let at = clock.elapsed();
                return End { reason, killed, took: at.saturating_sub(start), at };
            }
            clock.sleep(Duration::from_millis(1));
        }
    }

    fn send_kills(&self) {
        if self.begin.namespace {
            // Everybody in the namespace but this process, which is its first: `init` saw to it.
            let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        } else {
            for pid in living_below(Pid::this()).unwrap_or_default() {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
    }
}

/// Makes the process that becomes PostgreSQL and tells it to. In a namespace its number is made the
/// same inside and outside, for `postmaster.pid` holds the inner one and `pg_ctl` is run outside.
fn start(begin: &Begin) -> io::Result<(Pid, i32, Lines)> {
    let mut left = NUMBERING;
    loop {
        let (socket, child, outer) = hello(begin)?;
        left -= 1;
        let agree = outer == child.as_raw();
        let again = !agree && left > 0 && number_next(outer);
        if again {
            kill(child, Signal::SIGKILL)?;
            nix::sys::wait::waitpid(child, None)?;
            continue;
        }
        if begin.namespace {
            // Sessions get small numbers, which nobody takes for numbers of this host.
            number_next(1);
        }
        return order(begin, socket).map(|step| (child, outer, step));
    }
}

/// The next process of this namespace gets the number after `last`, if it is free.
fn number_next(last: i32) -> bool {
    std::fs::write("/proc/sys/kernel/ns_last_pid", last.to_string()).is_ok()
}

fn hello(begin: &Begin) -> io::Result<(UnixStream, Pid, i32)> {
    let (near, far) = UnixStream::pair()?;
    let output = server_log(begin)?;
    let child = Command::new("/proc/self/exe")
        .arg0("lifeboat")
        .args(["guard", "step"])
        .stdin(OwnedFd::from(far))
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()?;
    near.set_read_timeout(Some(HELLO))?;
    let mut line = String::new();
    BufReader::new(&near).read_line(&mut line)?;
    near.set_read_timeout(None)?;
    match serde_json::from_str(&line)? {
        FromStep::Hello { outer, .. } => Ok((near, Pid::from_raw(child.id().cast_signed()), outer)),
        FromStep::Failed(why) => Err(io::Error::other(why)),
    }
}

fn order(begin: &Begin, mut socket: UnixStream) -> io::Result<Lines> {
    let settings = begin.options.settings.clone();
    let order = Become {
        program: begin.program.clone(),
        arguments: step::arguments(&begin.data_directory, begin.config_file.as_ref(), settings),
        variables: begin.options.variables.clone().into_iter().collect(),
        data_directory: begin.data_directory.clone(),
    };
    let mut line = serde_json::to_vec(&order)?;
    line.push(b'\n');
    socket.write_all(&line)?;
    Lines::new(socket)
}

/// PostgreSQL writes it, so it belongs to the owner of the data.
fn server_log(begin: &Begin) -> io::Result<std::fs::File> {
    let path = &begin.server_log;
    let options = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    let file = options
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let owner = std::fs::metadata(&begin.data_directory)?;
    if file.metadata()?.uid() != owner.uid() {
        fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(file)
}

fn first(socket: &mut UnixStream) -> io::Result<Begin> {
    let mut line = String::new();
    // Byte by byte costs nothing here, and leaves what follows in the socket.
    let mut reader = BufReader::with_capacity(1, &*socket);
    reader.read_line(&mut line)?;
    match serde_json::from_str(&line)? {
        Down::Begin(begin) => Ok(begin),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
