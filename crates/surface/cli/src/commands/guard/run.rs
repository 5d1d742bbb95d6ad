//! `lifeboat guard run`: the guard itself.

use std::path::PathBuf;

use lifeboat_drivers::guard::GuardPlan;
use lifeboat_model::TimeSpan;
use lifeboat_telemetry::Outcome;
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::output::Report;

/// Guard one instance until SIGTERM
///
/// The guard is PostgreSQL's parent. An agent tells it, over a socket in `--state`, to start
/// PostgreSQL and until when the instance may live; at that moment every process of the instance
/// is killed. The agent starts it by itself; run it by hand to look, or as a unit of systemd. As
/// root it makes a PID namespace and PostgreSQL runs as the owner of the data directory. SIGTERM
/// shuts PostgreSQL down, kills what is left after `--stop-limit`, and ends the guard.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat guard run --state /var/lib/lifeboat/guard/east-1 --data /var/lib/postgresql/15/main \\
      --bin /usr/lib/postgresql/15/bin --longest 10s")]
pub struct Args {
    /// A directory of this guard alone, for its socket, lock and logs
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The directory with `postgres`
    #[arg(long, value_name = "DIR")]
    bin: PathBuf,
    /// Where postgresql.conf lies, if not in the data directory
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Where PostgreSQL's standard error goes [default: postgres.log in --state]
    #[arg(long, value_name = "FILE")]
    server_log: Option<PathBuf>,
    /// The farthest that a deadline may lie ahead: a lease
    #[arg(long, value_name = "DURATION")]
    longest: TimeSpan,
    /// How long a shutdown may take after SIGTERM
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    stop_limit: TimeSpan,
    /// A watchdog device, armed while the instance has a deadline
    #[arg(long, value_name = "DEVICE")]
    watchdog: Option<PathBuf>,
    /// Start it in a session of its own, wait until it answers, and return
    #[arg(long)]
    detach: bool,
}

/// A guard that runs on, or has ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Guarded {
    /// Where it listens.
    socket: String,
    /// Whether it still runs.
    running: bool,
}

impl Report for Guarded {
    const COMMAND: &'static str = "guard run";

    fn text(&self) -> String {
        match self.running {
            true => format!("A guard listens on {}.\n", self.socket),
            false => "The guard has ended, and nothing of its instance is left.\n".to_owned(),
        }
    }
}

/// Guards, or starts a guard.
pub fn run(args: &Args, context: &Context) -> Outcome<Guarded> {
    let plan = GuardPlan {
        program: None,
        state: args.state.clone(),
        data_directory: args.data.clone(),
        bin_directory: args.bin.clone(),
        config_file: args.config_file.clone(),
        server_log: args.server_log.clone(),
        longest: args.longest.duration(),
        stop_limit: args.stop_limit.duration(),
        watchdog: args.watchdog.clone(),
    };
    match args.detach {
        true => lifeboat_daemons::guard::detach(&plan, &context.environment)?,
        false => lifeboat_daemons::guard::run(&plan, &context.environment)?,
    }
    Ok(Guarded { socket: plan.socket().display().to_string(), running: args.detach })
}
