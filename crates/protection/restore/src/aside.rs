//! What restore_command needs, outside the data directory: the plan of the recovery, the WAL-read
//! key, and a place for WAL that is fetched ahead.

use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use lifeboat_cluster::ControlFile;
use lifeboat_repository::keys::WalReadKey;
use lifeboat_telemetry::Outcome;
use lifeboat_wal::plan::RecoveryPlan;

use crate::claim::owner_of;
use crate::local;
use crate::request::RestorePlan;
use crate::restore::RestoreContext;
use crate::target::Owner;

const PLAN: &str = "recovery.json";
const READ_KEY: &str = "wal-read.key";
const PREFETCH: &str = "prefetch";

/// Where these lie.
pub(crate) struct Aside {
    pub plan: PathBuf,
    pub read_key: PathBuf,
    pub prefetch: PathBuf,
}

/// Writes plan and key.
pub(crate) fn write(
    plan: &RestorePlan,
    context: RestoreContext<'_>,
    control: &ControlFile,
) -> Outcome<Aside> {
    let owner = owner_of(&plan.to, plan.request.owner.as_deref())?;
    let directory = make(plan, owner)?;
    let aside = Aside {
        plan: directory.join(PLAN),
        read_key: directory.join(READ_KEY),
        prefetch: directory.join(PREFETCH),
    };
    let keys = context.source.keys();
    let read_key = context.source.read_key().for_wal(keys.stream());
    WalReadKey { keys: keys.clone(), read_key }.save(&aside.read_key)?;
    let fetch = &plan.request.fetch;
    RecoveryPlan {
        lifeboat_plan: 1,
        database: plan.database.clone(),
        vault: keys.vault().id,
        stream: keys.stream(),
        system_identifier: control.system,
        incarnation: plan.description.cluster.incarnation,
        region: plan.regions.first().cloned().unwrap_or_else(|| fetch.here.clone()),
        repositories: fetch.repositories.clone(),
        timeline: plan.backup.timeline,
        wal_segment_bytes: control.wal_segment_size.bytes(),
        frontier: plan.frontier.clone(),
        read_key_file: aside.read_key.clone(),
        prefetch: aside.prefetch.clone(),
        fetch_deadline_ms: u64::try_from(fetch.deadline.as_millis()).unwrap_or(u64::MAX),
        created_at: context.environment.clock().now(),
    }
    .save(&aside.plan)?;
    for path in [&aside.plan, &aside.read_key] {
        give(path, owner)?;
    }
    Ok(aside)
}

/// A directory beside the target, which PostgreSQL's user can read; where nobody may write there,
/// in this user's state, for then PostgreSQL runs as this user.
fn make(plan: &RestorePlan, owner: Option<Owner>) -> Outcome<PathBuf> {
    let name = plan.to.file_name().unwrap_or_default().to_owned();
    let mut beside = name.clone();
    beside.push(".lifeboat");
    let beside = plan.to.with_file_name(beside);
    let directory = match make_private(&beside) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let inside = plan.request.state.join("restore").join(name);
            make_private(&inside).map_err(|error| local::failure("make", &inside, error))?;
            inside
        }
        made => {
            made.map_err(|error| local::failure("make", &beside, error))?;
            beside
        }
    };
    let prefetch = directory.join(PREFETCH);
    // What another restore fetched ahead belongs to another recovery.
    match std::fs::remove_dir_all(&prefetch) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(local::failure("empty", &prefetch, error));
        }
        _ => make_private(&prefetch).map_err(|error| local::failure("make", &prefetch, error))?,
    }
    give(&prefetch, owner)?;
    give(&directory, owner)?;
    Ok(directory)
}

fn make_private(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn give(path: &Path, owner: Option<Owner>) -> Outcome<()> {
    let Some(Owner { user, group }) = owner else {
        return Ok(());
    };
    std::os::unix::fs::lchown(path, Some(user.as_raw()), Some(group.as_raw()))
        .map_err(|error| local::failure("set the owner of", path, error))
}
