//! `lifeboat guard status`: what a guard and its instance are doing.

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_drivers::guard::{EndReason, GuardStatus, Mode, Phase, connect};
use lifeboat_telemetry::{Code, Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::output::Report;

/// Show what a guard and its instance are doing
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat guard status --state /var/lib/lifeboat/guard/east-1")]
pub struct Args {
    /// The directory of the guard
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
}

/// A guard and its instance.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Status {
    /// `namespace` or `subreaper`: how it holds the processes of the instance together.
    mode: &'static str,
    /// `down`, `starting`, `up`, `stopping` or `killing`.
    phase: &'static str,
    /// The upper process of the guard.
    keeper: i32,
    /// The lower one, PostgreSQL's parent, while there is one.
    init: Option<i32>,
    /// PostgreSQL's first process, as this host numbers it.
    postmaster: Option<i32>,
    /// Whether postmaster.pid holds that same number, so that `pg_ctl reload` works.
    numbers_agree: bool,
    /// Milliseconds until the instance is killed; null for one without a deadline.
    remaining_ms: Option<u64>,
    /// Whether both processes are locked in memory.
    memory_locked: bool,
    /// Whether a watchdog device is armed.
    watchdog_armed: bool,
    /// How the last instance ended; null if there was none.
    last_end: Option<String>,
    /// The guard's version of Lifeboat.
    release: String,
}

impl Report for Status {
    const COMMAND: &'static str = "guard status";

    fn text(&self) -> String {
        let Self { mode, phase, keeper, .. } = self;
        let mut text = format!("instance {phase}, guard {keeper} ({mode})");
        if let Some(postmaster) = self.postmaster {
            text.push_str(&format!(", postmaster {postmaster}"));
        }
        text.push_str(match self.memory_locked {
            true => "\n",
            false => ", NOT locked in memory\n",
        });
        text.push_str(&match (self.remaining_ms, self.postmaster) {
            (Some(left), _) => format!("killed in {left} ms unless its life is extended\n"),
            (None, Some(_)) => "no deadline: it may live for ever\n".to_owned(),
            (None, None) => String::new(),
        });
        if let Some(end) = &self.last_end {
            text.push_str(&format!("the last one ended: {end}\n"));
        }
        text
    }
}

/// Asks the guard.
pub fn run(args: &Args, context: &Context) -> Outcome<Status> {
    let socket = args.state.join("guard.sock");
    let client = connect(&socket)?.ok_or_else(|| {
        Failure::new(Code::GuardSilent, format!("no guard listens on {}", socket.display()))
            .hint("The agent starts one. Without a guard no process of the instance lives.")
    })?;
    Ok(Status::new(client.status()?, context.environment.clock().elapsed()))
}

impl Status {
    fn new(status: GuardStatus, now: Duration) -> Self {
        let left = status.deadline.map(|deadline| deadline.saturating_sub(now).as_millis());
        Self {
            mode: match status.mode {
                Mode::Namespace => "namespace",
                Mode::Subreaper => "subreaper",
            },
            phase: match status.phase {
                Phase::Down => "down",
                Phase::Starting => "starting",
                Phase::Up => "up",
                Phase::Stopping => "stopping",
                Phase::Killing => "killing",
            },
            keeper: status.keeper,
            init: status.init,
            postmaster: status.postmaster,
            numbers_agree: status.numbers_agree,
            remaining_ms: left.map(|left| u64::try_from(left).unwrap_or(u64::MAX)),
            memory_locked: status.memory_locked,
            watchdog_armed: status.watchdog_armed,
            last_end: status.last_end.map(|end| {
                let why = words(&end.reason);
                format!("{why}; {} processes killed in {} ms", end.killed, end.took.as_millis())
            }),
            release: status.release,
        }
    }
}

fn words(reason: &EndReason) -> String {
    let code = |code: &Option<i32>| match code {
        Some(code) => format!("exit code {code}"),
        None => "killed by a signal".to_owned(),
    };
    match reason {
        EndReason::Deadline => "nobody extended its life".to_owned(),
        EndReason::Fenced => "it was fenced".to_owned(),
        EndReason::Stopped { code: Some(0) } => "it was shut down".to_owned(),
        EndReason::Stopped { code: it } => format!("it was shut down, {}", code(it)),
        EndReason::StopTimedOut => "it had not shut down in time".to_owned(),
        EndReason::PostmasterEnded { code: it } => {
            format!("PostgreSQL ended by itself, {}", code(it))
        }
        EndReason::NotStarted => "it could not be started".to_owned(),
        EndReason::GuardDied => "one process of the guard died".to_owned(),
    }
}
