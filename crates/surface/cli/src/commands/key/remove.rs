//! `lifeboat key remove`: a slot that opens the vault no more.

use lifeboat_objects::Blocking;
use lifeboat_repository::catch_up::catch_up;
use lifeboat_repository::layout;
use lifeboat_repository::regions::Regions;
use lifeboat_repository::repository::remove_slot;
use lifeboat_telemetry::{Code, Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::output::Report;
use crate::record::record;
use crate::site::Site;

/// Remove a slot from every region
///
/// Lifeboat stops using the slot. Who opened it before, or kept a copy of its object, still knows
/// the vault's secrets: if a secret leaked together with read access to a repository, make a new
/// vault. The last slot cannot be removed, and another one has to be at hand: removing needs the
/// vault open.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat key list
  lifeboat key remove 2")]
pub struct Args {
    /// The number that `key list` shows
    slot: u32,
}

/// The slot that is gone.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Removed {
    /// Its number.
    slot: u32,
    /// What people called it; empty if it had been removed before.
    label: String,
    /// How many slots are left.
    left: usize,
    #[serde(skip)]
    failure: Option<Failure>,
}

impl Report for Removed {
    const COMMAND: &'static str = "key remove";

    fn text(&self) -> String {
        let Self { slot, label, left, .. } = self;
        if label.is_empty() {
            return format!("Slot {slot} was removed before; {left} left.\n");
        }
        format!("Slot {slot} ({label}) opens nothing any more; {left} left.\n")
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Removes the slot.
pub fn run(args: &Args, context: &Context) -> Outcome<Removed> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let mut regions = access.regions()?;
    blocking.run(catch_up(&mut regions))?;
    let slots = blocking.run(regions.nearest().slots())?;
    let Some(wanted) = slots.iter().find(|slot| slot.number == args.slot) else {
        return removed_before(args.slot, slots.len(), &blocking, &regions);
    };
    if slots.len() == 1 {
        return Err(Failure::new(
            Code::Usage,
            "this is the last slot: nobody could open the vault",
        )
        .hint("Add another one first: `lifeboat key add --help`."));
    }
    let root = access.secrets(&regions)?.root()?;
    let mut failed = Vec::new();
    for repository in regions.all() {
        if let Err(failure) = blocking.run(remove_slot(repository, &root, args.slot)) {
            failed.push(format!("{}: {failure}", repository.region()));
        }
    }
    if failed.len() == regions.all().len() {
        return Err(Failure::new(Code::StoreUnavailable, "no region removed the slot")
            .details(failed)
            .hint(
                "Run the command again once the stores answer and these credentials may write.",
            ));
    }
    let partial = (!failed.is_empty()).then(|| {
        Failure::new(Code::RegionSkipped, "the slot is still there in some regions")
            .details(failed)
            .hint("Run the command again once they answer.")
    });
    let failure = partial.or_else(|| regions.partial());
    let facts = [("label", wanted.body.label.clone())];
    let subject = format!("slot {}", args.slot);
    record(context, &access, &mut regions, ("key remove", subject), facts);
    Ok(Removed {
        slot: args.slot,
        label: wanted.body.label.clone(),
        left: slots.len() - 1,
        failure,
    })
}

/// Finishes what an earlier run began; a number that never was one is refused.
fn removed_before(
    slot: u32,
    left: usize,
    blocking: &Blocking,
    regions: &Regions,
) -> Outcome<Removed> {
    let removal = layout::slot_removal(slot)?;
    if blocking.run(regions.nearest().store().stat(&removal))?.is_none() {
        return Err(Failure::new(Code::Usage, format!("there is no slot {slot}"))
            .hint("`lifeboat key list` shows the slots and their numbers."));
    }
    for repository in regions.all() {
        blocking.run(repository.store().delete(&layout::slot(slot)?))?;
    }
    Ok(Removed { slot, label: String::new(), left, failure: regions.partial() })
}
