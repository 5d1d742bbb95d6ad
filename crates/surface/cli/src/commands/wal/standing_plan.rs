//! The plan of a `wal fetch` without `--plan`, as a standby's: made anew each time from the spec
//! and the newest binding, and left in the state directory for the process that fetches ahead.

use std::path::{Path, PathBuf};

use lifeboat_cluster::control;
use lifeboat_model::{DatabaseId, RegionName, TimeSpan};
use lifeboat_objects::Blocking;
use lifeboat_repository::access::Access;
use lifeboat_repository::binding::Binding;
use lifeboat_repository::enroll::newest_binding;
use lifeboat_repository::keys::WalReadKey;
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::{Code, Failure, Kind, Outcome};
use lifeboat_wal::plan::RecoveryPlan;

use crate::context::Context;
use crate::site::Site;

/// Makes the plan for the cluster in `working_directory`; returns it with its file.
pub fn make(
    database: Option<&DatabaseId>,
    deadline: Option<TimeSpan>,
    working_directory: &Path,
    context: &Context,
) -> Outcome<(RecoveryPlan, PathBuf)> {
    let standby = working_directory.join("standby.signal").exists();
    let made = from_spec(database, deadline, working_directory, context);
    made.map_err(|failure| if standby { not_now(failure) } else { failure })
}

fn from_spec(
    database: Option<&DatabaseId>,
    deadline: Option<TimeSpan>,
    working_directory: &Path,
    context: &Context,
) -> Outcome<(RecoveryPlan, PathBuf)> {
    let site = Site::open(context)?;
    let (id, database) = site.database(database)?;
    let deadline = deadline.unwrap_or(database.wal.fetch_deadline).duration();
    let region = match &site.here {
        Some(here) => here.clone(),
        None => site.node(&id, database)?.1.region.clone(),
    };
    let control = control::read(working_directory, &context.environment)?;
    let blocking = Blocking::new()?;
    let access = site.access_within(&blocking, deadline);
    let regions = open(&access, &region)?;
    let binding = blocking.run(newest_binding(&regions, &id.to_string()))?;
    let binding = binding.ok_or_else(|| unbound(&id))?;
    if binding.body.system_identifier != control.system.0 {
        return Err(foreign(&id, &binding, control.system.0));
    }
    let folder = site.state.join("fetch").join(id.service.as_str()).join(id.database.as_str());
    std::fs::create_dir_all(&folder).map_err(|error| {
        let message = format!("cannot make {}", folder.display());
        Failure::new(Code::LocalState, message).because(error)
    })?;
    let read_key_file = folder.join(format!("{}.wal-read.key", binding.body.stream));
    leave_read_key(&access, &regions, &binding, &read_key_file)?;
    let plan = RecoveryPlan {
        lifeboat_plan: 1,
        database: id.to_string(),
        vault: regions.vault().id,
        stream: binding.body.stream,
        system_identifier: control.system,
        incarnation: binding.body.incarnation,
        region: region.to_string(),
        repositories: site.repositories(&access)?,
        timeline: control.timeline,
        wal_segment_bytes: control.wal_segment_size.bytes(),
        frontier: Vec::new(),
        read_key_file,
        prefetch: folder.join("ahead"),
        fetch_deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        created_at: context.environment.clock().now(),
    };
    let path = folder.join("plan.json");
    // Whoever fetches ahead reads it. Without room for it nobody does, and this fetch goes on.
    if plan.save(&path).is_err() {
        let _ = std::fs::remove_file(&path);
    }
    Ok((plan, path))
}

/// Absence is judged by the own region's repository: without it there is no answer.
fn open(access: &Access<'_>, region: &RegionName) -> Outcome<Regions> {
    let regions = access.regions()?;
    if regions.nearest().region() == region.as_str() {
        return Ok(regions);
    }
    let missing = regions.skipped().iter().find(|skipped| skipped.region == region.as_str());
    let why = missing.map(|skipped| skipped.failure.full_message()).unwrap_or_default();
    let message = format!("the repository of {region} does not answer: {why}");
    Err(Failure::new(Code::StoreUnavailable, message)
        .hint("Only this region can prove that WAL is absent: see why it does not answer."))
}

/// What keeps a standby waiting instead of ending it: it asks again.
fn not_now(failure: Failure) -> Failure {
    let of_store = matches!(
        failure.code(),
        Code::StoreUnavailable
            | Code::StoreDenied
            | Code::RepositoryMissing
            | Code::FormatUnreadable
    );
    // One damaged answer must not end it either.
    if of_store || failure.kind() == Kind::Damage {
        return Failure::new(Code::WalAbsent, format!("not available now: {failure}"));
    }
    failure
}

/// Opens a slot once and leaves the key, so that later calls need no secret.
fn leave_read_key(
    access: &Access<'_>,
    regions: &Regions,
    binding: &Binding,
    path: &Path,
) -> Outcome<()> {
    if path.exists() {
        return Ok(());
    }
    let secrets = access.secrets(regions)?;
    let keys = secrets.stream_keys(binding.body.stream);
    let read_key = secrets.read_key().for_wal(keys.stream());
    WalReadKey { keys, read_key }.save(path)
}

fn unbound(id: &DatabaseId) -> Failure {
    Failure::new(Code::DatabaseUnknown, format!("{id} was never bound to a cluster"))
        .hint("Nothing was archived for it yet. Is it the right database, and the right spec?")
}

fn foreign(id: &DatabaseId, binding: &Binding, found: u64) -> Failure {
    let bound = binding.body.system_identifier;
    let message = format!("{id} is bound to cluster {bound}, this data directory is of {found}");
    Failure::new(Code::BindingConflict, message).hint("Correct --db or the spec.")
}
