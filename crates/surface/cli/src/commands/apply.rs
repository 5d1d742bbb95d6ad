//! `lifeboat apply`: services get their first epoch, or one above all that are known.

mod adopt;

use jiff::Timestamp;
use lifeboat_drivers::{EpochArchive, RepositoryEpochs};
use lifeboat_failover::{Adoption, Elsewhere, Service, adoption, first_epoch};
use lifeboat_model::RegionName;
use lifeboat_quorum::Transaction;
use lifeboat_telemetry::{Code, Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::control::{Control, FENCE_STATEMENT, writer};
use crate::output::{Mark, Report};
use crate::site::Site;

/// Put the spec's services into the quorum store: each gets its first epoch
///
/// The first epoch belongs to the service's `home`. A service that has one keeps it. An epoch's
/// number exceeds all that any repository knows: a quorum store that was set up anew goes on where
/// the old one was, with whoever held the newest epoch. One that came back with an older epoch than
/// a repository has, as from a snapshot, is refused by everybody; --adopt takes that epoch away,
/// waits out its lease, and begins one above all.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat apply --dry-run
  lifeboat apply
  lifeboat apply --adopt
  lifeboat apply --adopt --to west --statement 'the old primary cannot write'")]
pub struct Args {
    /// Show what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Where the quorum store has an older epoch than a repository, go on above both
    #[arg(long)]
    adopt: bool,
    /// Who shall hold what goes on so, if not whoever held the newest epoch
    #[arg(long, value_name = "REGION")]
    to: Option<RegionName>,
    /// With --to: what you know of the old primary
    #[arg(long, value_name = "TEXT", requires = "to")]
    statement: Option<String>,
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
    /// Why nobody acts on it, where a higher one is known elsewhere; null if none is.
    refused: Option<String>,
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
            let line = format!("{}: epoch {} {what} in {}.\n", one.service, one.epoch, one.region);
            match &one.refused {
                None => line,
                Some(why) => format!("{line}  {} {why}.\n", Mark::Bad.paint("refused:")),
            }
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
    let mut applied = Applied { dry_run: args.dry_run, services: Vec::new(), failure: None };
    for service in control.services.values() {
        let sight = control.read()?;
        let archived = control.runtime.block_on(epochs.highest(&service.name));
        let Some(record) = sight.view(&control, service)?.record else {
            let elsewhere = sight.elsewhere(&control, service, archived?)?;
            let at = context.environment.clock().now();
            applied.services.push(begin(args, &control, &epochs, service, &elsewhere, at)?);
            continue;
        };
        // A repository that is away is no reason to think ill of the store.
        let elsewhere = sight.elsewhere(&control, service, archived.ok().flatten())?;
        let refusal = sight.refusal(&control, service, &elsewhere)?;
        if refusal.is_some() && args.adopt {
            let adopter = adopt::Adopter { args, context, control: &control, epochs: &epochs };
            applied.services.push(adopter.adopt(service, sight, &elsewhere)?);
            continue;
        }
        applied.services.push(AppliedService {
            service: service.name.to_string(),
            epoch: record.value.epoch,
            region: record.value.region.to_string(),
            new: false,
            refused: refusal.as_ref().map(|failure| failure.full_message()),
        });
        applied.failure = applied.failure.take().or(refusal);
    }
    Ok(applied)
}

/// A service's first epoch in this store: in its home, or where it was by the newest one known.
fn begin(
    args: &Args,
    control: &Control,
    epochs: &RepositoryEpochs,
    service: &Service,
    elsewhere: &Elsewhere,
    at: Timestamp,
) -> Outcome<AppliedService> {
    let whom = match elsewhere.highest() {
        0 => {
            let (region, holders) = (service.home.clone(), service.nodes_in(&service.home)?);
            Adoption { epoch: 1, region, holders, moves: false }
        }
        _ => allowed(args, adoption(service, elsewhere, 0, args.to.as_ref())?)?,
    };
    if !args.dry_run {
        let there = Service { home: whom.region.clone(), ..service.clone() };
        let (mut record, _) = first_epoch(&there, &control.keys, whom.epoch, at)?;
        record.holders.clone_from(&whom.holders);
        let transaction = Transaction::new().create(control.keys.epoch(&service.name), &record);
        control.runtime.block_on(epochs.record(&service.name, &record))?;
        control.commit(transaction, "Somebody else applies it: look again.")?;
    }
    Ok(AppliedService::new(service, &whom))
}

impl AppliedService {
    fn new(service: &Service, whom: &Adoption) -> Self {
        Self {
            service: service.name.to_string(),
            epoch: whom.epoch,
            region: whom.region.to_string(),
            new: true,
            refused: None,
        }
    }
}

/// A service that goes on elsewhere than it was needs a word that nobody writes there any more.
fn allowed(args: &Args, whom: Adoption) -> Outcome<Adoption> {
    if !whom.moves || args.statement.as_deref() == Some(FENCE_STATEMENT) {
        return Ok(whom);
    }
    let message = "nothing proves that whoever held the newest epoch does not write any more";
    Err(Failure::new(Code::MoveRefused, message).hint(format!(
        "Leave --to out to go on where it was. If you have switched that one off yourself, add \
         --statement '{FENCE_STATEMENT}'."
    )))
}
