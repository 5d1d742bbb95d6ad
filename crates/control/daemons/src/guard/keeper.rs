//! The upper process: talks to agents, and to init below it.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use lifeboat_drivers::guard::{
    Answer, Ask, End, EndReason, GuardPlan, GuardStatus, Mode, Phase, Refusal, Stop,
};
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::alarm::Alarm;
use super::deadline::Deadline;
use super::link::{Down, Up};
use super::log::log;
use super::watchdog::Watchdog;
use super::{reap, start};

mod below;
mod peers;

use below::Below;
use peers::{Asked, Peers};

struct Keeper<'a> {
    plan: &'a GuardPlan,
    environment: &'a Environment,
    mode: Mode,
    peers: Peers,
    waiting: Vec<Waiting>,
    deadline: Deadline,
    below: Option<Below>,
    last_end: Option<End>,
    watchdog: Watchdog,
    memory_locked: bool,
    /// It was told to end, and does once nothing is below it.
    ending: bool,
}

/// An agent that waits for something.
struct Waiting {
    asked: Asked,
    what: WaitsFor,
    /// After this it is told what is known.
    until: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    Start,
    Extension(Duration),
    End,
}

impl WaitsFor {
    /// Whether it waits for an extension that both processes know now.
    fn is_reached(self, until: Duration) -> bool {
        matches!(self, Self::Extension(to) if to <= until)
    }
}

/// How long an agent waits until it is told that something is left.
const LEFT: Duration = Duration::from_secs(8);
/// How long an agent waits for what init does at once.
const PROMPT: Duration = Duration::from_secs(1);
/// How long it may take until PostgreSQL's first process exists.
const START: Duration = Duration::from_secs(14);

/// Guards one instance until it is told to end. The directory for its state is locked by `lock`.
pub fn run(plan: &GuardPlan, environment: &Environment) -> Outcome<()> {
    let (listener, mode, memory_locked, _lock) = start::take_place(plan, environment)?;
    let mut alarm = Alarm::new().map_err(odd)?;
    let mut keeper = Keeper::new(plan, environment, listener, mode, memory_locked)?;
    keeper.calm_watchdog();
    keeper.say(&format!("guarding {} as {mode:?}", plan.data_directory.display()));
    let ended = keeper.run(&mut alarm);
    let _ = std::fs::remove_file(plan.socket());
    keeper.say("ends");
    ended
}

fn odd(error: std::io::Error) -> Failure {
    Failure::new(Code::Internal, "the guard cannot wait").because(error)
}

impl<'a> Keeper<'a> {
    fn new(
        plan: &'a GuardPlan,
        environment: &'a Environment,
        listener: UnixListener,
        mode: Mode,
        memory_locked: bool,
    ) -> Outcome<Self> {
        Ok(Self {
            plan,
            environment,
            mode,
            peers: Peers::new(listener),
            waiting: Vec::new(),
            deadline: Deadline::new(plan.longest),
            below: None,
            last_end: None,
            watchdog: Watchdog::new(plan.watchdog.clone()),
            memory_locked,
            ending: false,
        })
    }

    fn run(&mut self, alarm: &mut Alarm) -> Outcome<()> {
        loop {
            self.look_below();
            self.keep_time();
            if alarm.told_to_end() {
                self.told_to_end();
            }
            for asked in self.peers.receive() {
                self.ask(asked);
            }
            self.look_below();
            if self.ending && self.below.is_none() {
                return Ok(());
            }
            let moment = self.next_moment();
            let link = self.below.as_ref().map(|below| below.link()).into_iter().flatten();
            let others: Vec<_> = link.chain(self.peers.descriptors()).collect();
            alarm.wait(moment, &others).map_err(odd)?;
        }
    }

    /// A guard that died has left the device counting. Where nothing lives, that is over.
    fn calm_watchdog(&mut self) {
        if start::nothing_lives(self.plan) && self.watchdog.arm(self.now()).is_ok() {
            self.watchdog.disarm();
        }
    }

    fn now(&self) -> Duration {
        self.environment.clock().elapsed()
    }

    fn say(&self, what: &str) {
        log(self.environment, "keeper", what);
    }

    /// What has come: the deadline, the end of somebody's patience, the watchdog's meal.
    fn keep_time(&mut self) {
        let now = self.now();
        let passed = self.deadline.passed(now);
        match &mut self.below {
            Some(below) if passed => below.is_dying(now, EndReason::Deadline),
            // Also while it dies: what has not ended yet is not proved to be gone.
            Some(_) => self.watchdog.tick(now),
            None => {}
        }
        if let Some(below) = &mut self.below {
            below.keep_time(now);
        }
        let (late, waiting): (Vec<_>, Vec<_>) =
            self.waiting.drain(..).partition(|waiting| now >= waiting.until);
        self.waiting = waiting;
        for Waiting { asked, what, .. } in late {
            let (refusal, why) = match what {
                WaitsFor::Start => (Refusal::Start, "PostgreSQL has not begun in time".to_owned()),
                WaitsFor::Extension(_) => {
                    (Refusal::State, "the lower process of the guard does not answer".to_owned())
                }
                WaitsFor::End => (Refusal::Left, start::left()),
            };
            self.peers.answer(asked, Answer::Refused { refusal, why });
        }
    }

    fn next_moment(&self) -> Option<Duration> {
        let below = self.below.as_ref();
        let alive = below.is_some_and(|below| !below.dying());
        let starving = below.is_none() || self.deadline.passed(self.now());
        let moments = [
            self.deadline.until().filter(|_| alive),
            below.and_then(Below::next_moment),
            self.waiting.iter().map(|waiting| waiting.until).min(),
            self.watchdog.next().filter(|_| !starving),
        ];
        moments.into_iter().flatten().min()
    }

    fn ask(&mut self, asked: Asked) {
        match asked.ask.clone() {
            Ask::Status => {
                let status = Answer::Status(Box::new(self.status()));
                self.peers.answer(asked, status);
            }
            Ask::Start { options, deadline } => match self.start(options, deadline) {
                Ok(()) => self.wait_for(asked, WaitsFor::Start, START),
                Err((refusal, why)) => self.peers.answer(asked, Answer::Refused { refusal, why }),
            },
            Ask::Extend { deadline } => match self.extend(deadline) {
                Ok(()) => self.wait_for(asked, WaitsFor::Extension(deadline), PROMPT),
                Err((refusal, why)) => self.peers.answer(asked, Answer::Refused { refusal, why }),
            },
            Ask::Fence => self.fence(asked),
            Ask::Stop { how, limit } => self.stop(asked, how, limit),
            Ask::End if self.below.is_some() => {
                let why = "an instance lives".to_owned();
                self.peers.answer(asked, Answer::Refused { refusal: Refusal::State, why });
            }
            Ask::End => {
                self.ending = true;
                self.peers.answer(asked, Answer::Ending);
            }
        }
    }

    fn wait_for(&mut self, asked: Asked, what: WaitsFor, limit: Duration) {
        let until = self.now().saturating_add(limit);
        self.waiting.push(Waiting { asked, what, until });
    }

    fn start(
        &mut self,
        options: lifeboat_drivers::guard::Options,
        deadline: Option<Duration>,
    ) -> Result<(), (Refusal, String)> {
        if self.below.is_some() || self.ending {
            return Err((Refusal::State, "an instance lives, or the guard ends".to_owned()));
        }
        start::may_start(self.plan)?;
        if let Some(until) = deadline {
            self.check(until)?;
            self.arm()?;
            // What has passed since the check is seen at the next look at the clock.
            let _ = self.deadline.extend(self.now(), until);
        }
        self.say(&format!("starts PostgreSQL, deadline {deadline:.3?}"));
        match Below::start(self.plan, self.mode, options, deadline) {
            Ok(below) => {
                self.below = Some(below);
                Ok(())
            }
            Err(error) => {
                self.deadline.clear();
                self.watchdog.disarm();
                Err((Refusal::Start, format!("the lower process cannot be made: {error}")))
            }
        }
    }

    fn extend(&mut self, to: Duration) -> Result<(), (Refusal, String)> {
        if self.below.as_ref().is_none_or(Below::dying) {
            return Err((Refusal::State, "no instance lives".to_owned()));
        }
        self.check(to)?;
        if self.deadline.until().is_none() {
            self.arm()?;
            self.say("the instance gets a deadline");
        }
        if let Some(below) = &mut self.below {
            below.tell(&Down::Extend(to));
        }
        Ok(())
    }

    fn check(&self, to: Duration) -> Result<(), (Refusal, String)> {
        let fits = self.deadline.check(self.now(), to);
        fits.map_err(|declined| (Refusal::Deadline, declined.to_string()))
    }

    /// The watchdog counts before an instance may write.
    fn arm(&mut self) -> Result<(), (Refusal, String)> {
        let armed = self.watchdog.arm(self.now());
        armed.map_err(|error| (Refusal::State, format!("the watchdog cannot be armed: {error}")))
    }

    fn fence(&mut self, asked: Asked) {
        let now = self.now();
        match &mut self.below {
            None => {
                let reason = EndReason::Fenced;
                let end = End { reason, killed: 0, took: Duration::ZERO, at: now };
                self.peers.answer(asked, Answer::Gone(end));
            }
            Some(below) => {
                below.tell(&Down::Fence);
                below.is_dying(now, EndReason::Fenced);
                self.wait_for(asked, WaitsFor::End, LEFT);
            }
        }
    }

    fn stop(&mut self, asked: Asked, how: Stop, limit: Duration) {
        match self.below.is_some() {
            false => {
                let why = "no instance lives".to_owned();
                self.peers.answer(asked, Answer::Refused { refusal: Refusal::State, why });
            }
            true => {
                self.shut_down(how, limit);
                self.wait_for(asked, WaitsFor::End, limit.saturating_add(LEFT));
            }
        }
    }

    fn shut_down(&mut self, how: Stop, limit: Duration) {
        self.say(&format!("shuts PostgreSQL down ({how:?}), at most {limit:.3?}"));
        let now = self.now();
        if let Some(below) = &mut self.below {
            below.stop(now, how, limit);
        }
    }

    fn told_to_end(&mut self) {
        let again = std::mem::replace(&mut self.ending, true);
        let now = self.now();
        match &mut self.below {
            Some(below) if again => {
                below.tell(&Down::Fence);
                below.is_dying(now, EndReason::Fenced);
            }
            Some(_) => self.shut_down(Stop::Fast, self.plan.stop_limit),
            None => {}
        }
    }

    /// What init says, and whether it has ended.
    fn look_below(&mut self) {
        let now = self.now();
        let children = reap::children();
        let Some(below) = &mut self.below else { return };
        for word in below.receive(now, &children) {
            match word {
                Up::Started { postmaster, .. } => {
                    let answer = Answer::Started { postmaster };
                    self.tell_waiting(|what| *what == WaitsFor::Start, &answer);
                }
                Up::Extended(until) => {
                    // A deadline that has come meanwhile stays where it is.
                    if let Ok(deadline) = self.deadline.extend(now, until) {
                        let answer = Answer::Extended { deadline };
                        self.tell_waiting(|what| what.is_reached(until), &answer);
                    }
                }
                Up::NotStarted(_) | Up::Killing | Up::Ended(_) => {}
            }
        }
        let finished = self.below.as_mut().and_then(|below| below.finished(now));
        if let Some((end, why)) = finished {
            self.finish(end, why);
        }
    }

    /// Nothing is left.
    fn finish(&mut self, end: End, not_started: Option<String>) {
        self.below = None;
        self.deadline.clear();
        self.watchdog.disarm();
        let End { reason, killed, took, .. } = &end;
        self.say(&format!("nothing is left: {reason:?}, {killed} killed in {took:.3?}"));
        self.tell_waiting(|what| *what == WaitsFor::End, &Answer::Gone(end.clone()));
        let why = not_started.unwrap_or_else(|| format!("the instance has ended: {reason:?}"));
        let start = Answer::Refused { refusal: Refusal::Start, why: why.clone() };
        self.tell_waiting(|what| *what == WaitsFor::Start, &start);
        self.tell_waiting(|_| true, &Answer::Refused { refusal: Refusal::State, why });
        self.last_end = Some(end);
    }

    fn tell_waiting(&mut self, whom: impl Fn(&WaitsFor) -> bool, answer: &Answer) {
        let (told, waiting): (Vec<_>, Vec<_>) =
            self.waiting.drain(..).partition(|waiting| whom(&waiting.what));
        self.waiting = waiting;
        for Waiting { asked, .. } in told {
            self.peers.answer(asked, answer.clone());
        }
    }

    fn status(&self) -> GuardStatus {
        let below = self.below.as_ref();
        GuardStatus {
            mode: self.mode,
            phase: below.map_or(Phase::Down, Below::phase),
            keeper: nix::unistd::Pid::this().as_raw(),
            init: below.map(Below::init),
            postmaster: below.and_then(Below::postmaster),
            numbers_agree: below.is_some_and(Below::numbers_agree),
            deadline: self.deadline.until(),
            last_end: self.last_end.clone(),
            memory_locked: self.memory_locked && below.is_none_or(Below::memory_locked),
            watchdog_armed: self.watchdog.armed(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}
