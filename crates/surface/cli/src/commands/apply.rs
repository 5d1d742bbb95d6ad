//! `lifeboat apply`: services get their first epoch.

use jiff::Timestamp;
use lifeboat_drivers::{EpochArchive, RepositoryEpochs};
use lifeboat_failover::{Service, first_epoch};
use lifeboat_telemetry::{Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::control::{Control, writer};
use crate::output::Report;
use crate::site::Site;

/// Put the spec's services into the quorum store: each gets its first epoch
///
/// The first epoch belongs to the service's `home`. A service that has one keeps it. An epoch's
/// number exceeds all that any repository knows: a quorum store that was set up anew goes on where
/// the old one was.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat apply --dry-run
  lifeboat apply")]
pub struct Args {
    /// Show what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// What stands in the quorum store now.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Applied {
    /// Whether nothing was written.
    dry_run: bool,
    /// The services.
    services: Vec<AppliedService>,
    #[serde(skip)]
    failure: Option<Failure>,
}

/// A service's epoch.
#[derive(Debug, Serialize, JsonSchema)]
struct AppliedService {
    /// Its name.
    service: String,
    /// Its epoch.
    epoch: u64,
    /// Who holds it.
    region: String,
    /// Whether it was written now.
    new: bool,
}

impl Report for Applied {
    const COMMAND: &'static str = "apply";

    fn text(&self) -> String {
        let line = |one: &AppliedService| {
            let what = match (one.new, self.dry_run) {
                (true, false) => "begins",
                (true, true) => "would begin",
                (false, _) => "stays",
            };
            format!("{}: epoch {} {what} in {}.\n", one.service, one.epoch, one.region)
        };
        self.services.iter().map(line).collect()
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Writes what is not there.
pub fn run(args: &Args, context: &Context) -> Outcome<Applied> {
    let site = Site::open_anywhere(context)?;
    let control = Control::open(&site)?;
    let epochs = RepositoryEpochs::new(&site.spec, &context.environment, writer(&site)?)?;
    let sight = control.read()?;
    let at = context.environment.clock().now();
    let mut applied = Applied { dry_run: args.dry_run, services: Vec::new(), failure: None };
    for service in control.services.values() {
        let name = service.name.to_string();
        if let Some(seen) = sight.view(&control, service)?.record {
            let (epoch, region) = (seen.value.epoch, seen.value.region.to_string());
            applied.services.push(AppliedService { service: name, epoch, region, new: false });
            continue;
        }
        let epoch = next_epoch(&control, &epochs, service)?;
        if !args.dry_run {
            begin(&control, &epochs, service, epoch, at)?;
        }
        let region = service.home.to_string();
        applied.services.push(AppliedService { service: name, epoch, region, new: true });
    }
    Ok(applied)
}

fn next_epoch(control: &Control, epochs: &RepositoryEpochs, service: &Service) -> Outcome<u64> {
    let known = control.runtime.block_on(epochs.highest(&service.name))?;
    Ok(known.map_or(1, |known| known.epoch.saturating_add(1)))
}

fn begin(
    control: &Control,
    epochs: &RepositoryEpochs,
    service: &Service,
    epoch: u64,
    at: Timestamp,
) -> Outcome<()> {
    let (record, transaction) = first_epoch(service, &control.keys, epoch, at)?;
    control.runtime.block_on(epochs.record(&service.name, &record))?;
    control.commit(transaction, "Somebody else applies it: look again.")
}
