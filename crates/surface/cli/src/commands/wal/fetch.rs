//! `lifeboat wal fetch`: restore_command.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lifeboat_model::{DatabaseId, TimeSpan};
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::fetch::{FetchRequest, Fetched as Answer};
use lifeboat_wal::plan::RecoveryPlan;
use schemars::JsonSchema;
use serde::Serialize;

use super::push::working_directory;
use super::standing_plan;
use crate::context::Context;
use crate::output::Report;

/// Fetch one WAL file from the archive: PostgreSQL's restore_command
///
/// Exits 0 with the file; 1 only if it is proved that the archive does not have it, which ends the
/// recovery; 200 for everything else, which stops it. On a standby 1 also means "not available
/// now". `lifeboat restore` writes the complete line into the restored cluster.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  restore_command = '/usr/bin/lifeboat --spec /etc/lifeboat/lifeboat.yaml --here east wal fetch \"%f\" \"%p\"'
  lifeboat wal fetch 000000010000000000000007 /tmp/segment --plan /var/lib/lifeboat/restore.plan")]
pub struct Args {
    /// The name that PostgreSQL asks for, as %f
    name: String,
    /// Where it wants the file, as %p
    destination: PathBuf,
    /// The database, as SERVICE/DATABASE; without it the one whose data directory is the working
    /// directory, else the only one
    #[arg(long, value_name = "DB")]
    db: Option<DatabaseId>,
    /// How long the call may take, as in 30s [default: the spec's wal.fetch_deadline]
    #[arg(long, value_name = "DURATION")]
    deadline: Option<TimeSpan>,
    /// The plan that a restore left; with it nothing else is needed
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
}

/// Where the file came from.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Fetched {
    /// The file.
    file: String,
    /// The region that it came from; null if it had been fetched ahead.
    region: Option<String>,
}

impl Report for Fetched {
    const COMMAND: &'static str = "wal fetch";

    /// Nothing: PostgreSQL would write it into its log for every segment.
    fn text(&self) -> String {
        String::new()
    }
}

/// Fetches the file.
pub fn run(args: &Args, context: &Context) -> Outcome<Fetched> {
    let working_directory = working_directory()?;
    let (plan, path) = match &args.plan {
        Some(path) => (RecoveryPlan::load(path)?, path.clone()),
        None => standing_plan::make(args.db.as_ref(), args.deadline, &working_directory, context)?,
    };
    let answer = lifeboat_wal::fetch::fetch(&FetchRequest {
        environment: &context.environment,
        cancel: &context.cancel,
        reporter: &context.reporter,
        plan: &plan,
        file: &args.name,
        destination: &args.destination,
        working_directory: &working_directory,
        deadline: args.deadline.map_or_else(|| plan.fetch_deadline(), TimeSpan::duration),
    })?;
    match answer {
        Answer::Absent { reason } => Err(Failure::new(Code::WalAbsent, reason)),
        Answer::Done { region, prefetch } => {
            if prefetch {
                fetch_ahead(&path, &args.name);
            }
            Ok(Fetched { file: args.name.clone(), region })
        }
    }
}

/// Starts a process that fetches what follows. PostgreSQL does not wait for it, and if it cannot
/// be started the next call fetches by itself.
fn fetch_ahead(plan: &Path, after: &str) {
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut command = Command::new(program);
    command.args(["--quiet", "wal", "prefetch", after, "--plan"]).arg(plan);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A group of its own: a signal to the group of the server's startup process shall not reach
    // it half-way through a file.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let _ = command.spawn();
}
