//! Init and the instance, as the keeper sees them: what it does itself where init does not.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat_drivers::guard::processes::living_below;
use lifeboat_drivers::guard::{End, EndReason, GuardPlan, Mode, Options, Phase, Stop};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::guard::lines::Lines;
use crate::guard::link::{Begin, Down, Up};
use crate::guard::reap::Children;
use crate::guard::start::enter_namespace;

/// How long init has to say that it kills. It is awake at the same moment.
const GRACE: Duration = Duration::from_millis(100);
/// How long it has to say that nothing is left; every process has its SIGKILL by then.
const FINISH: Duration = Duration::from_secs(1);
/// How often the keeper looks when it kills itself.
const PASS: Duration = Duration::from_millis(3);

/// One instance, from its start to its end.
pub(super) struct Below {
    init: Pid,
    link: Lines,
    phase: Phase,
    postmaster: Option<i32>,
    numbers_agree: bool,
    memory_locked: bool,
    not_started: Option<String>,
    /// What init said at its end.
    ended: Option<End>,
    /// Nothing is left below this process.
    none_left: bool,
    /// When the keeper kills, and for what reason, unless init has done it.
    takes_over: Option<(Duration, EndReason)>,
    kills: Option<Kills>,
}

/// The keeper's own kill.
struct Kills {
    reason: EndReason,
    start: Duration,
    seen: BTreeSet<Pid>,
    next: Duration,
}

impl Below {
    /// Makes init, in a namespace of its own or not, and tells it what to do.
    pub fn start(
        plan: &GuardPlan,
        mode: Mode,
        options: Options,
        deadline: Option<Duration>,
    ) -> io::Result<Self> {
        let namespace = mode == Mode::Namespace;
        if namespace {
            enter_namespace()?;
        }
        let (near, far) = UnixStream::pair()?;
        // Of this very binary, also if another one has taken its place on disk.
        let init = Command::new("/proc/self/exe")
            .arg0("lifeboat")
            .args(["guard", "init"])
            .stdin(OwnedFd::from(far))
            .stdout(Stdio::inherit())
            .spawn()?;
        let mut link = Lines::new(near)?;
        link.send(&Down::Begin(Begin {
            program: plan.bin_directory.join("postgres"),
            data_directory: plan.data_directory.clone(),
            config_file: plan.config_file.clone(),
            server_log: plan.server_log(),
            options,
            deadline,
            longest: plan.longest,
            namespace,
        }));
        Ok(Self {
            init: Pid::from_raw(init.id().cast_signed()),
            link,
            phase: Phase::Starting,
            postmaster: None,
            numbers_agree: false,
            memory_locked: true,
            not_started: None,
            ended: None,
            none_left: false,
            takes_over: None,
            kills: None,
        })
    }

    pub fn init(&self) -> i32 {
        self.init.as_raw()
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn postmaster(&self) -> Option<i32> {
        self.postmaster
    }

    pub fn numbers_agree(&self) -> bool {
        self.numbers_agree
    }

    pub fn memory_locked(&self) -> bool {
        self.memory_locked
    }

    /// Whether it is being killed.
    pub fn dying(&self) -> bool {
        self.phase == Phase::Killing
    }

    /// What to wait for, while init can say something.
    pub fn link(&self) -> Option<BorrowedFd<'_>> {
        (!self.link.closed()).then(|| self.link.as_fd())
    }

    pub fn tell(&mut self, what: &Down) {
        self.link.send(what);
    }

    /// Init kills now, for its own clock or because it was told to.
    pub fn is_dying(&mut self, now: Duration, reason: EndReason) {
        if !self.dying() {
            self.phase = Phase::Killing;
            self.takes_over = Some((now.saturating_add(GRACE), reason));
        }
    }

    /// Init shuts down, and kills what is left after `limit`.
    pub fn stop(&mut self, now: Duration, how: Stop, limit: Duration) {
        self.tell(&Down::Stop(how, limit));
        if !self.dying() {
            self.phase = Phase::Stopping;
            let over = now.saturating_add(limit).saturating_add(GRACE);
            let before = self.takes_over.as_ref().map_or(over, |(before, _)| *before);
            self.takes_over = Some((over.min(before), EndReason::StopTimedOut));
        }
    }

    /// What init says.
    pub fn receive(&mut self, now: Duration, children: &Children) -> Vec<Up> {
        self.none_left = children.none_left;
        let words: Vec<Up> = self.link.receive().into_iter().filter_map(Result::ok).collect();
        for word in &words {
            match word {
                Up::Started { postmaster, numbers_agree, memory_locked } => {
                    self.postmaster = Some(*postmaster);
                    self.numbers_agree = *numbers_agree;
                    self.memory_locked = *memory_locked;
                    if self.phase == Phase::Starting {
                        self.phase = Phase::Up;
                    }
                }
                Up::NotStarted(why) => self.not_started = Some(why.clone()),
                Up::Killing => {
                    self.phase = Phase::Killing;
                    let reason = self.takes_over.take().map(|(_, reason)| reason);
                    let reason = reason.unwrap_or(EndReason::GuardDied);
                    self.takes_over = Some((now.saturating_add(FINISH), reason));
                }
                Up::Ended(end) => self.ended = Some(end.clone()),
                Up::Extended(_) => {}
            }
        }
        let init_ended = children.ended.iter().any(|ended| ended.pid == self.init);
        if (init_ended || self.link.closed()) && !self.none_left {
            self.phase = Phase::Killing;
            // Only a word of its end can still excuse it.
            if self.kills.is_none() && self.ended.is_none() {
                self.take_over(now, EndReason::GuardDied);
            }
        }
        words
    }

    /// When something is to be done next.
    pub fn next_moment(&self) -> Option<Duration> {
        let kills = self.kills.as_ref().map(|kills| kills.next);
        let over = self.takes_over.as_ref().map(|(moment, _)| *moment);
        kills.or(over)
    }

    pub fn keep_time(&mut self, now: Duration) {
        if let Some((_, reason)) = self.takes_over.take_if(|(moment, _)| now >= *moment) {
            self.phase = Phase::Killing;
            self.take_over(now, reason);
        }
        if self.kills.as_ref().is_some_and(|kills| now >= kills.next) {
            self.pass(now);
        }
    }

    fn take_over(&mut self, now: Duration, reason: EndReason) {
        self.takes_over = None;
        if self.kills.is_none() {
            self.kills = Some(Kills { reason, start: now, seen: BTreeSet::new(), next: now });
            self.pass(now);
        }
    }

    /// Kills whatever is below: with init its whole namespace, and one by one who is not in one.
    fn pass(&mut self, now: Duration) {
        let Some(kills) = &mut self.kills else { return };
        kills.next = now.saturating_add(PASS);
        if self.none_left {
            return;
        }
        for pid in living_below(Pid::this()).unwrap_or_default() {
            let _ = kill(pid, Signal::SIGKILL);
            kills.seen.insert(pid);
        }
    }

    /// How it ended, once nothing is left, and why it had not begun.
    pub fn finished(&mut self, now: Duration) -> Option<(End, Option<String>)> {
        if !self.none_left {
            return None;
        }
        let end = match (self.ended.take(), &self.kills) {
            (Some(end), _) => end,
            (None, Some(kills)) => End {
                reason: kills.reason.clone(),
                killed: u32::try_from(kills.seen.iter().filter(|pid| **pid != self.init).count())
                    .unwrap_or(u32::MAX),
                took: now.saturating_sub(kills.start),
                at: now,
            },
            (None, None) => {
                let reason = EndReason::GuardDied;
                End { reason, killed: 0, took: Duration::ZERO, at: now }
            }
        };
        let end = match &self.not_started {
            Some(_) => End { reason: EndReason::NotStarted, ..end },
            None => end,
        };
        Some((end, self.not_started.take()))
    }
}
