//! The flow of a restore. Nothing that a server could start stands in the target until the last
//! step but one, and a restore that was interrupted anywhere is continued by running it again.

use std::path::PathBuf;

use lifeboat_cluster::ControlFile;
use lifeboat_environment::Environment;
use lifeboat_repository::ids::Incarnation;
use lifeboat_telemetry::{Cancel, Failure, Outcome, Reporter};
use lifeboat_wal::incarnation;

use crate::claim::{Claim, MARKER, Marker, look, owner_of, refuse_stranger};
use crate::configuration::{self, Changed};
use crate::copy::{Copied, Copying};
use crate::request::{RestorePlan, RestoreReport};
use crate::source::Source;
use crate::survey::Survey;
use crate::table::{CONTROL, FileTable, HELD_CONTROL};
use crate::target::Target;
use crate::{aside, manifest, recovery, space, strays};

/// Whom a restore works with.
#[derive(Clone, Copy)]
pub struct RestoreContext<'a> {
    /// Time, chance, failpoints.
    pub environment: &'a Environment,
    /// Repositories and keys.
    pub source: &'a Source,
    /// Who listens.
    pub reporter: &'a Reporter,
    /// Who may stop it.
    pub cancel: &'a Cancel,
}

/// Does what the plan says.
pub fn restore(plan: &RestorePlan, context: RestoreContext<'_>) -> Outcome<RestoreReport> {
    let RestoreContext { environment, source, reporter, cancel } = context;
    let began = environment.clock().elapsed();
    let hit = |name: &str| environment.failpoints().hit(name).map_err(Failure::from);
    hit("restore.planned")?;

    // The plan may be old by now: what it rests on is looked at again.
    let description = &plan.description;
    let table = FileTable::new(source, &description.file_table);
    let survey = Survey::of(table, description)?;
    let claim = claim(plan, environment)?;
    let target = &claim.target;
    hit("restore.directory_made")?;

    claim.disarm(plan.delta)?;
    let removed_files = if claim.compare { strays::remove(target, &survey)? } else { 0 };
    space::check(plan, &survey, target)?;
    target
        .make_directory(b"", survey.directories.get(b"global".as_slice()).copied().unwrap_or(0))?;
    for (path, mode) in &survey.directories {
        target.make_directory(path, *mode)?;
    }

    reporter.start("restoring files", survey.bytes);
    let copied = copy(plan, context, &claim, table, &survey)?;
    reporter.finish("restoring files");
    hit("restore.files_done")?;
    cancel.check()?;

    reporter.start("preparing recovery", 0);
    let mut changed = configuration::bring(target, description)?;
    let control = recovery::control(target, plan)?;
    let aside = aside::write(plan, context, &control)?;
    let incarnation = mark(target, plan, environment, &control, &mut changed)?;
    match plan.request.standby {
        true => recovery::write_standby(target, plan, &control, &aside, &mut changed)?,
        false => recovery::write(target, plan, &control, &aside, incarnation, &mut changed)?,
    }
    link_tablespaces(target, plan)?;
    manifest::write(environment, target, table, &survey, description, control.release, &changed)?;
    sync_directories(target, &survey)?;
    hit("restore.before_control")?;

    publish(target)?;
    hit("restore.after_control")?;
    target.remove(MARKER.as_bytes())?;
    target.sync_directory(b"")?;
    reporter.finish("preparing recovery");
    let time = environment.clock().elapsed().saturating_sub(began);
    if copied.kept_bytes == 0 {
        space::remember_rate(plan, copied.bytes, time);
    }
    Ok(report(plan, copied, removed_files, incarnation, changed.notes, time))
}

/// Makes sure that nobody else uses the target, and nothing in it is a stranger's.
fn claim(plan: &RestorePlan, environment: &Environment) -> Outcome<Claim> {
    let marker = marker_of(plan);
    let found = look(&plan.to, plan.delta)?;
    refuse_stranger(&found, &plan.to, &marker, environment)?;
    for tablespace in &plan.tablespaces {
        crate::claim::check_tablespace(&found, &plan.to, tablespace.oid, &tablespace.place)?;
    }
    let owner = owner_of(&plan.to, plan.request.owner.as_deref())?;
    Claim::take(&plan.to, &found, &marker, owner)
}

fn marker_of(plan: &RestorePlan) -> Marker {
    let places = plan.tablespaces.iter().map(|one| (one.oid, one.place.clone()));
    Marker {
        lifeboat_restore: 1,
        database: plan.database.clone(),
        system_identifier: plan.description.cluster.system_identifier,
        backup: plan.backup.name.clone(),
        tablespaces: places.collect(),
    }
}

fn copy(
    plan: &RestorePlan,
    context: RestoreContext<'_>,
    claim: &Claim,
    table: FileTable<'_>,
    survey: &Survey,
) -> Outcome<Copied> {
    let RestoreContext { environment, source, reporter, cancel } = context;
    let mut copying = Copying::new(environment, source, &claim.target, reporter, cancel);
    copying.compare = claim.compare;
    copying.total_bytes = survey.bytes;
    copying.run(table, survey, plan.request.workers)
}

/// Says which incarnation this copy is. Not even an adopted one may write before the
/// vault's root has granted it.
fn mark(
    target: &Target,
    plan: &RestorePlan,
    environment: &Environment,
    control: &ControlFile,
    changed: &mut Changed,
) -> Outcome<u64> {
    let source = plan.description.cluster.incarnation;
    if plan.request.standby {
        // It is not another cluster: what it writes after a promotion, its source would have.
        if source != Incarnation::FIRST {
            let marker = incarnation::Marker::new(&plan.database, control.system, source, true);
            marker.write(target.path())?;
            changed.remember(incarnation::MARKER, &marker.encode()?);
        }
        return Ok(source.0);
    }
    let incarnation = recovery::new_incarnation(environment);
    let marker =
        incarnation::Marker::new(&plan.database, control.system, Incarnation(incarnation), false);
    marker.write(target.path())?;
    // The grant of `--adopt` follows, and belongs to what the manifest tells of.
    let left = incarnation::Marker { granted: plan.adopt, ..marker };
    changed.remember(incarnation::MARKER, &left.encode()?);
    Ok(incarnation)
}

/// Links are made last of all, to places that this restore took itself.
fn link_tablespaces(target: &Target, plan: &RestorePlan) -> Outcome<()> {
    plan.tablespaces.iter().try_for_each(|tablespace| {
        let path = format!("pg_tblspc/{}", tablespace.oid);
        target.link(path.as_bytes(), &tablespace.place)
    })
}

fn sync_directories(target: &Target, survey: &Survey) -> Outcome<()> {
    for mount in target.mounts() {
        target.sync_directory(&mount.prefix)?;
    }
    survey.directories.keys().try_for_each(|path| target.sync_directory(path))
}

/// Gives the control file its name: from here on a server starts.
fn publish(target: &Target) -> Outcome<()> {
    target.sync_directory(b"global")?;
    target.rename(HELD_CONTROL.as_bytes(), CONTROL.as_bytes())
}

fn report(
    plan: &RestorePlan,
    copied: Copied,
    removed_files: u64,
    incarnation: u64,
    notes: Vec<String>,
    time: std::time::Duration,
) -> RestoreReport {
    let program = match &plan.request.bin_directory {
        Some(directory) => directory.join("pg_ctl"),
        None => PathBuf::from("pg_ctl"),
    };
    RestoreReport {
        to: plan.to.clone(),
        backup: plan.backup.name.clone(),
        files: copied.files,
        bytes: copied.bytes,
        kept_bytes: copied.kept_bytes,
        fetched_bytes: copied.fetched_bytes,
        removed_files,
        incarnation,
        time,
        predicted: plan.prediction.time,
        notes,
        start_command: format!("{} -D {} start", program.display(), plan.to.display()),
    }
}
