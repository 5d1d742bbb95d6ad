//! `lifeboat wal seal`: the receiver of this host acknowledges nothing more for an epoch.

use lifeboat_model::{DatabaseId, TimeSpan};
use lifeboat_objects::Blocking;
use lifeboat_telemetry::Outcome;
use lifeboat_wal::receive::{SealRequest, seal};
use schemars::JsonSchema;
use serde::Serialize;

use super::receive::{region, writer_stream};
use crate::context::Context;
use crate::output::Report;
use crate::site::Site;

/// Seal this host's receiver for an epoch: it never acknowledges WAL for it again
///
/// When the command succeeds, the receiver has persisted the seal and its last durable position,
/// has dropped the stream, and refuses to work for the epoch or an earlier one also after a
/// restart. With enough receivers sealed, a primary that waits for them cannot commit any more.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat wal seal payments/ledger --epoch 3 --here west")]
pub struct Args {
    /// The database, as SERVICE/DATABASE
    #[arg(value_name = "DB")]
    database: DatabaseId,
    /// The control epoch that is over
    #[arg(long, value_name = "N")]
    epoch: u64,
    /// How long a running receiver may take
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    deadline: TimeSpan,
}

/// A receiver that is sealed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Sealed {
    /// `SERVICE/DATABASE`.
    database: String,
    /// The region of the receiver.
    region: String,
    /// This epoch and all before it are over.
    epoch: u64,
    /// The timeline of the last durable position; null if nothing was ever received.
    timeline: Option<u32>,
    /// Nothing behind this position was ever acknowledged for the epoch.
    durable_lsn: Option<String>,
}

impl Report for Sealed {
    const COMMAND: &'static str = "wal seal";

    fn text(&self) -> String {
        let Self { database, region, epoch, .. } = self;
        let held = match (&self.durable_lsn, self.timeline) {
            (Some(lsn), Some(timeline)) => format!("at {lsn} of timeline {timeline}"),
            _ => "before it received anything".to_owned(),
        };
        format!("The receiver of {database} in {region} is sealed for epoch {epoch} {held}.\n")
    }
}

/// Seals.
pub fn run(args: &Args, context: &Context) -> Outcome<Sealed> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let (id, database) = site.database(Some(&args.database))?;
    let region = region(&site, &id, database)?;
    let (_, stream) = writer_stream(&access, &id)?;
    let sealed = seal(&SealRequest {
        environment: &context.environment,
        cancel: &context.cancel,
        stream: &stream,
        region: region.as_str(),
        state: &site.state,
        epoch: args.epoch,
        deadline: args.deadline.duration(),
    })?;
    Ok(Sealed {
        database: id.to_string(),
        region: region.to_string(),
        epoch: sealed.epoch,
        timeline: sealed.timeline.map(|timeline| timeline.0),
        durable_lsn: sealed.flushed.map(|lsn| lsn.to_string()),
    })
}
