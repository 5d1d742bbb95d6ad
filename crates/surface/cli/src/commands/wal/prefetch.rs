//! `lifeboat wal prefetch`: started by `wal fetch`, ends by itself.

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_telemetry::Outcome;
use lifeboat_wal::fetch::PrefetchRequest;
use lifeboat_wal::plan::RecoveryPlan;
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::output::Report;

/// A recovery that needs longer starts another process.
const DEADLINE: Duration = Duration::from_secs(600);

/// Fetch the WAL that a recovery will ask for next; `wal fetch` starts this by itself
#[derive(Debug, clap::Args)]
#[command(
    hide = true,
    after_long_help = "Examples:
  lifeboat wal prefetch 000000010000000000000007 --plan /var/lib/lifeboat/restore.plan"
)]
pub struct Args {
    /// The segment that PostgreSQL got last
    after: String,
    /// The plan of the recovery
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,
}

/// What was fetched ahead.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Prefetched {
    /// How many segments.
    segments: u64,
}

impl Report for Prefetched {
    const COMMAND: &'static str = "wal prefetch";

    fn text(&self) -> String {
        format!("{} segments were fetched ahead.\n", self.segments)
    }
}

/// Fetches until nobody takes any more.
pub fn run(args: &Args, context: &Context) -> Outcome<Prefetched> {
    let plan = RecoveryPlan::load(&args.plan)?;
    let segments = lifeboat_wal::fetch::prefetch(&PrefetchRequest {
        environment: &context.environment,
        cancel: &context.cancel,
        plan: &plan,
        after: &args.after,
        deadline: DEADLINE,
    })?;
    Ok(Prefetched { segments })
}
