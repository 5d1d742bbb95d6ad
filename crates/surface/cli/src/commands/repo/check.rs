//! `lifeboat repo check`: is everything there that backups need, and is it what was written.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_objects::{Blocking, Key, Stat};
use lifeboat_repository::access::Access;
use lifeboat_repository::check::{Check, CheckReport, Place, classify};
use lifeboat_repository::regions::Regions;
use lifeboat_repository::repository::Repository;
use lifeboat_telemetry::{Code, Failure, Outcome, bytes};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::output::{Mark, Report, strong};
use crate::site::Site;

/// Find damage in the repositories
///
/// Lists every object of every region and compares names, sizes and references. With --read-data
/// every byte is read and compared with the SHA-256 that its object carries: any single damaged
/// byte is found. No key is needed. Exit code 3 if something is damaged.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat repo check
  lifeboat repo check --read-data --here west --json")]
pub struct Args {
    /// Read every byte of every object
    #[arg(long)]
    read_data: bool,
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RepositoriesChecked {
    /// Whether every byte was read.
    read_data: bool,
    /// Every region that answered.
    regions: Vec<RegionChecked>,
    /// Regions that did not answer, and why.
    skipped: Vec<Skipped>,
    #[serde(skip)]
    failure: Option<Failure>,
}

/// One repository.
#[derive(Debug, Serialize, JsonSchema)]
struct RegionChecked {
    /// The region.
    region: String,
    /// Where the repository lies.
    place: String,
    /// Objects.
    objects: u64,
    /// Their size in bytes.
    bytes: u64,
    /// Objects whose every byte was read.
    read: u64,
    /// Backups.
    backups: u64,
    /// Objects that are damaged or missing.
    damage: Vec<Damage>,
    /// Backups that were taken while this region did not answer; another one has them.
    lacks: Vec<Damage>,
    /// Leftovers that nothing needs.
    leftovers: Vec<Damage>,
}

/// One object that is not as it should be.
#[derive(Debug, Serialize, JsonSchema)]
struct Damage {
    /// Its key.
    object: String,
    /// What is wrong.
    what: String,
    /// Backups that need it.
    backups: Vec<String>,
}

/// A region that did not answer.
#[derive(Debug, Serialize, JsonSchema)]
struct Skipped {
    /// The region.
    region: String,
    /// Why.
    why: String,
}

impl Report for RepositoriesChecked {
    const COMMAND: &'static str = "repo check";

    fn text(&self) -> String {
        let mut text = String::new();
        for region in &self.regions {
            let verdict = match region.damage.len() {
                0 => Mark::Good.paint("no damage"),
                count => Mark::Bad.paint(&format!("{count} damaged")),
            };
            text.push_str(&format!(
                "{}: {verdict}  {}\n  {} objects, {}, {} backups, {} objects read whole\n",
                strong(&region.region),
                region.place,
                region.objects,
                bytes(region.bytes),
                region.backups,
                region.read,
            ));
            for damage in &region.damage {
                text.push_str(&format!("  {}: {}\n", damage.object, damage.what));
                if !damage.backups.is_empty() {
                    text.push_str(&format!("    needed by {}\n", damage.backups.join(", ")));
                }
            }
            for lack in &region.lacks {
                text.push_str(&format!("  {}: {}\n", lack.object, lack.what));
            }
            if !region.leftovers.is_empty() {
                let count = region.leftovers.len();
                text.push_str(&format!(
                    "  {count} leftovers that nothing needs (--json names them)\n"
                ));
            }
        }
        if !self.read_data {
            text.push_str("Content was NOT TESTED: --read-data reads every byte.\n");
        }
        text
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Checks all repositories that answer.
pub fn run(args: &Args, context: &Context) -> Outcome<RepositoriesChecked> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let regions = access.regions()?;
    let mut checked = Vec::new();
    for repository in regions.all() {
        context.reporter.note(format!("checking {}", repository.region()));
        let report = blocking.run(check(repository, context, args.read_data))?;
        checked.push(RegionChecked::new(report, repository.store().location().display()));
    }
    compare_vaults(&access, &regions, &mut checked)?;
    compare_backups(&access, &regions, &mut checked)?;
    let skipped = regions.skipped().iter().map(|skipped| Skipped {
        region: skipped.region.clone(),
        why: skipped.failure.full_message(),
    });
    let failure =
        damage(&checked, args.read_data).or_else(|| regions.partial()).or_else(|| lacks(&checked));
    Ok(RepositoriesChecked {
        read_data: args.read_data,
        skipped: skipped.collect(),
        regions: checked,
        failure,
    })
}

/// Nothing in a repository names the last slot, certificate or binding; another region does.
fn compare_vaults(
    access: &Access<'_>,
    regions: &Regions,
    checked: &mut [RegionChecked],
) -> Outcome<()> {
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for repository in regions.all() {
        for prefix in ["keys/", "bindings/"] {
            for (key, _) in access.blocking.run(repository.store().list(prefix))? {
                let holders = names.entry(key.to_string()).or_default();
                holders.insert(repository.region().to_owned());
            }
        }
    }
    for (object, holders) in &names {
        let removed = names.contains_key(&format!("{object}-removed"));
        for region in checked.iter_mut().filter(|_| !removed) {
            if !holders.contains(&region.region) {
                let holders: Vec<&str> = holders.iter().map(String::as_str).collect();
                let what = format!("missing here; {} has it", holders.join(", "));
                region.damage.push(Damage { object: object.clone(), what, backups: Vec::new() });
            }
        }
    }
    Ok(())
}

/// A backup that its successor names and that only another region has is no damage: it was taken
/// while this region did not answer.
fn compare_backups(
    access: &Access<'_>,
    regions: &Regions,
    checked: &mut [RegionChecked],
) -> Outcome<()> {
    for region in checked {
        let others = || regions.all().iter().filter(|other| other.region() != region.region);
        for damage in std::mem::take(&mut region.damage) {
            let mut holder = None;
            if let Ok(key) = Key::new(damage.object.as_str())
                && matches!(classify(&key), Some(Place::Manifest(..)))
                && access.blocking.run(own(regions, &region.region, &key))?.is_none()
            {
                for other in others() {
                    if access.blocking.run(other.store().stat(&key))?.is_some() {
                        holder = Some(other.region());
                    }
                }
            }
            match holder {
                Some(holder) => {
                    let what = format!("this backup was never here; {holder} has it");
                    region.lacks.push(Damage { what, ..damage });
                }
                None => region.damage.push(damage),
            }
        }
    }
    Ok(())
}

/// The object in the region's own repository.
async fn own(regions: &Regions, region: &str, key: &Key) -> Outcome<Option<Stat>> {
    match regions.all().iter().find(|one| one.region() == region) {
        Some(repository) => repository.store().stat(key).await,
        None => Ok(None),
    }
}

fn lacks(regions: &[RegionChecked]) -> Option<Failure> {
    let behind: Vec<&str> = regions
        .iter()
        .filter(|region| !region.lacks.is_empty())
        .map(|region| region.region.as_str())
        .collect();
    (!behind.is_empty()).then(|| {
        let message = format!("{} lacks backups that another region has", behind.join(", "));
        Failure::new(Code::RegionSkipped, message)
            .hint("What is there is sound. The next backup is in all regions that answer.")
    })
}

async fn check(
    repository: &Repository,
    context: &Context,
    read_data: bool,
) -> Outcome<CheckReport> {
    let check = Check::begin(repository, &context.reporter, &context.cancel).await?;
    check.run(read_data).await
}

impl RegionChecked {
    fn new(report: CheckReport, place: String) -> Self {
        let (leftovers, damage) = report.damage.into_iter().partition(|damage| damage.harmless);
        let shown = |list: Vec<lifeboat_repository::check::Damage>| {
            let one = |damage: lifeboat_repository::check::Damage| Damage {
                object: damage.object,
                what: damage.what,
                backups: damage.backups,
            };
            list.into_iter().map(one).collect()
        };
        Self {
            region: report.region,
            place,
            objects: report.objects,
            bytes: report.bytes,
            read: report.read,
            backups: report.backups,
            damage: shown(damage),
            lacks: Vec::new(),
            leftovers: shown(leftovers),
        }
    }
}

fn damage(regions: &[RegionChecked], read_data: bool) -> Option<Failure> {
    let (damaged, sound): (Vec<_>, Vec<_>) =
        regions.iter().partition(|region| !region.damage.is_empty());
    let names = |regions: &[&RegionChecked]| {
        let names: Vec<&str> = regions.iter().map(|region| region.region.as_str()).collect();
        names.join(", ")
    };
    let count: usize = damaged.iter().map(|region| region.damage.len()).sum();
    // A region is recommended only after every byte of it was read.
    let hint = match (sound.as_slice(), read_data) {
        ([], _) => "No other region is known to be sound. Take a backup now.".to_owned(),
        (_, false) => "`lifeboat repo check --read-data` tells whether another region is sound; \
                       then take a backup."
            .to_owned(),
        (sound, true) => format!(
            "Restore from {} meanwhile: all of it was read and is sound. Then take a backup.",
            names(sound)
        ),
    };
    (count > 0).then(|| {
        let message = format!("{count} damaged or missing objects in {}", names(&damaged));
        Failure::new(Code::RepositoryDamaged, message).hint(hint)
    })
}

#[cfg(test)]
mod tests;
