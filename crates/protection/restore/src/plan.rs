//! The plan of a restore: everything that can be known before the first byte is written.

use std::path::Path;

use lifeboat_model::{Lsn, RecoveryTarget, Timeline};
use lifeboat_repository::manifest::Description;
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::status::Inventory;

use crate::choose::{Choice, choose};
use crate::claim::{self, Found, Marker, look};
use crate::request::{PlannedBackup, PlannedTablespace, RestorePlan, RestoreRequest};
use crate::restore::RestoreContext;
use crate::survey::Survey;
use crate::table::FileTable;
use crate::{space, tablespaces};

/// Plans a restore and refuses what cannot work. Writes nothing.
pub fn plan(
    request: &RestoreRequest,
    context: RestoreContext<'_>,
    regions: &Regions,
) -> Outcome<RestorePlan> {
    let source = context.source;
    if !request.to.is_absolute() {
        let message = format!("{} is not an absolute path", request.to.display());
        return Err(Failure::new(Code::Usage, message));
    }
    let mut notes = Vec::new();
    let chosen = choose_region(request, context, regions, &mut notes)?;
    source.prefer(&chosen.region);
    let description = chosen.choice.backup.description.clone();
    check_database(request, &description)?;

    let survey = Survey::of(FileTable::new(source, &description.file_table), &description)?;
    let tablespaces = tablespaces::map(request, &description, &survey)?;
    let found = look(&request.to, request.delta)?;
    check_target(request, context, &found, &marker(request, &chosen.choice, &tablespaces))?;
    let space = space::needed(&request.to, &found, &tablespaces, &survey)?;
    space::refuse_full(&space)?;

    let mut prediction = space::predict(&request.state, &survey, description.sizes.stored_bytes);
    let wal = description.wal;
    prediction.wal_bytes = chosen.choice.end.map(|end| end.distance_from(wal.start));
    notes.extend(warnings(&description, chosen.choice.timeline));
    Ok(RestorePlan {
        database: request.database.clone(),
        to: request.to.clone(),
        found,
        delta: request.delta,
        adopt: request.adopt,
        target: request.target.clone(),
        action: request.action,
        timeline: chosen.choice.timeline,
        frontier: chosen.frontier,
        backup: PlannedBackup {
            name: chosen.choice.backup.name,
            label: description.label.clone(),
            stopped_at: description.stopped_at,
            timeline: wal.timeline,
            start: wal.start,
            stop: wal.stop,
            postgresql: description.cluster.major,
        },
        regions: source.region_names(),
        tablespaces,
        space,
        prediction,
        notes,
        description,
        request: request.clone(),
    })
}

struct Chosen {
    region: String,
    choice: Choice,
    frontier: Vec<lifeboat_model::SegmentName>,
}

impl Chosen {
    /// How far this region's WAL goes.
    fn end(&self) -> (Timeline, Option<Lsn>) {
        (self.choice.timeline, self.choice.end)
    }
}

/// The first region, nearest first, from which the target can be reached; for the newest state
/// the one whose WAL goes furthest, for a region that was away would take its own end for it.
fn choose_region(
    request: &RestoreRequest,
    context: RestoreContext<'_>,
    regions: &Regions,
    notes: &mut Vec<String>,
) -> Outcome<Chosen> {
    let source = context.source;
    let now = context.environment.clock().now();
    for skipped in regions.skipped() {
        notes.push(format!("region {} does not answer: {}", skipped.region, skipped.failure));
    }
    let mut failures: Vec<(String, Failure)> = Vec::new();
    let mut best: Option<Chosen> = None;
    for repository in regions.all() {
        context.cancel.check()?;
        let region = repository.region().to_owned();
        let chosen = Inventory::read(source.blocking(), repository, source.keys());
        let chosen = chosen
            .and_then(|inventory| Ok((choose(&inventory, request, now)?, inventory.frontier())));
        match chosen {
            Ok((choice, frontier)) => {
                let chosen = Chosen { region, choice, frontier };
                let shorter = best.as_ref().filter(|best| best.end() < chosen.end());
                if let Some(shorter) = shorter {
                    let (region, other) = (&chosen.region, &shorter.region);
                    notes
                        .push(format!("region {region} is read: its WAL goes on behind {other}'s"));
                }
                if best.is_none() || shorter.is_some() {
                    best = Some(chosen);
                }
                if request.target != RecoveryTarget::Latest {
                    break;
                }
            }
            Err(failure) => failures.push((region, failure)),
        }
    }
    if let Some(best) = best {
        let region = &best.region;
        notes.extend(failures.iter().map(|(other, failure)| {
            format!("region {region} is read, for region {other} cannot serve: {failure}")
        }));
        return Ok(best);
    }
    let mut failures = failures.into_iter();
    let Some((region, first)) = failures.next() else {
        return Err(Failure::new(Code::StoreUnavailable, "no repository answers"));
    };
    // The nearest region's reason comes first; that all say the same is not worth a line.
    let said = first.to_string();
    let others = failures.filter(|(_, failure)| failure.to_string() != said);
    let others = others.map(|(region, failure)| format!("region {region}: {failure}"));
    let lines: Vec<String> = others.chain(notes.drain(..)).collect();
    Err(first.within(format!("region {region}")).details(lines))
}

/// A repository that belongs to another database of the vault would be opened by no key; this is
/// for a spec that names one database twice.
fn check_database(request: &RestoreRequest, description: &Description) -> Outcome<()> {
    if description.database == request.database {
        return Ok(());
    }
    let message = format!("the backup is of {}", description.database);
    Err(Failure::new(Code::BindingConflict, message)
        .hint(format!("Restore it under that name, or give {} its own stream.", request.database)))
}

fn check_target(
    request: &RestoreRequest,
    context: RestoreContext<'_>,
    found: &Found,
    marker: &Marker,
) -> Outcome<()> {
    claim::refuse_stranger(found, &request.to, marker, context.environment)?;
    claim::owner_of(&request.to, request.owner.as_deref())?;
    marker
        .tablespaces
        .iter()
        .try_for_each(|(oid, place)| claim::check_tablespace(found, &request.to, *oid, place))
}

fn marker(request: &RestoreRequest, choice: &Choice, places: &[PlannedTablespace]) -> Marker {
    Marker {
        lifeboat_restore: 1,
        database: request.database.clone(),
        system_identifier: choice.backup.description.cluster.system_identifier,
        backup: choice.backup.name.clone(),
        tablespaces: places.iter().map(|one| (one.oid, one.place.clone())).collect(),
    }
}

fn warnings(description: &Description, timeline: Timeline) -> Vec<String> {
    let mut notes = Vec::new();
    if !description.damaged_pages.is_empty() {
        let count = description.damaged_pages.len();
        notes.push(format!("{count} pages were damaged in the source already, and come back so"));
    }
    if timeline != description.wal.timeline {
        let from = description.wal.timeline;
        notes.push(format!("recovery goes from timeline {from} on to timeline {timeline}"));
    }
    let around = Path::new(&description.cluster.data_directory);
    if around.join("postmaster.pid").exists() {
        notes.push(format!("a server seems to run in {} still", around.display()));
    }
    notes
}
