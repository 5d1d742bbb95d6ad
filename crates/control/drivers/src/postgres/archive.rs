//! What restore_command needs beside the data directory: a plan, and the key with which WAL is
//! read. They are made from the repositories and kept, so that a standby starts without them.

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_cluster::{ControlFile, control};
use lifeboat_model::{Reference, RegionName};
use lifeboat_objects::{Blocking, Options};
use lifeboat_repository::access::Access;
use lifeboat_repository::enroll::newest_binding;
use lifeboat_repository::keys::WalReadKey;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::plan::{PlanRepository, RecoveryPlan};

use super::configuration;
use super::place::{self, aside};
use super::settings::Settings;

const PLAN: &str = "recovery.json";
const READ_KEY: &str = "wal-read.key";
const PREFETCH: &str = "prefetch";
/// A repository that does not answer must not keep a standby from starting.
const STORE_DEADLINE: Duration = Duration::from_secs(5);

/// The restore_command of this node; empty if nothing can be read with it.
pub(crate) fn restore_command(settings: &Settings) -> Outcome<String> {
    let folder = aside(settings)?;
    let plan = folder.join(PLAN);
    match plan.exists() && folder.join(READ_KEY).exists() {
        true => configuration::restore_command(settings, &plan),
        false => Ok(String::new()),
    }
}

/// Makes plan and key anew if they are missing or of another time. Blocks: for a thread of its own.
pub(crate) fn refresh(settings: &Settings) -> Outcome<()> {
    let folder = aside(settings)?;
    let (plan, key) = (folder.join(PLAN), folder.join(READ_KEY));
    let control = control::read(settings.data()?, &settings.environment)?;
    let known = RecoveryPlan::load(&plan).ok().filter(|plan| fits(plan, settings, &control));
    if known.is_some() && key.exists() {
        return Ok(());
    }
    let blocking = Blocking::new()?;
    let access = access(settings, &blocking)?;
    let regions = access.regions()?;
    let database = settings.database.to_string();
    let Some(binding) = blocking.run(newest_binding(&regions, &database))? else {
        return Err(Failure::new(
            Code::DatabaseUnknown,
            format!("{database} is bound to no cluster"),
        )
        .hint("Take a backup of it first: that binds it."));
    };
    if binding.body.system_identifier != control.system.0 {
        let (bound, found) = (binding.body.system_identifier, control.system);
        let message = format!("{database} is bound to cluster {bound}, this node is of {found}");
        return Err(Failure::new(Code::BindingConflict, message)
            .hint("Correct `data_directory` of the node in the spec."));
    }
    if !key.exists() {
        let secrets = access.secrets(&regions)?;
        let keys = secrets.stream_keys(binding.body.stream);
        let read_key = secrets.read_key().for_wal(keys.stream());
        WalReadKey { keys, read_key }.save(&key)?;
        place::give(settings, &key)?;
    }
    let prefetch = folder.join(PREFETCH);
    if !prefetch.is_dir() {
        std::fs::create_dir_all(&prefetch).map_err(|error| place::failed(&prefetch, error))?;
        place::give(settings, &prefetch)?;
    }
    let deadline = settings.database()?.wal.fetch_deadline.duration();
    RecoveryPlan {
        lifeboat_plan: 1,
        database,
        vault: regions.vault().id,
        stream: binding.body.stream,
        system_identifier: control.system,
        incarnation: binding.body.incarnation,
        region: settings.node()?.region.to_string(),
        repositories: repositories(settings, &access)?,
        timeline: control.timeline,
        wal_segment_bytes: control.wal_segment_size.bytes(),
        frontier: Vec::new(),
        read_key_file: key,
        prefetch,
        fetch_deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        created_at: settings.environment.clock().now(),
    }
    .save(&plan)?;
    place::give(settings, &plan)
}

/// Removes the key and what was fetched ahead, at the end of a recovery.
pub(crate) fn end_command(settings: &Settings) -> Outcome<String> {
    let folder = aside(settings)?;
    let (key, ahead) = (folder.join(READ_KEY), folder.join(PREFETCH));
    Ok(format!("rm -rf {} {}", configuration::word(&key)?, configuration::word(&ahead)?))
}

/// Removes the key: a primary has no business with the past.
pub(crate) fn forget_key(settings: &Settings) -> Outcome<()> {
    let folder = aside(settings)?;
    place::remove(&folder.join(READ_KEY))?;
    // What was fetched ahead is WAL in the clear.
    match std::fs::remove_dir_all(folder.join(PREFETCH)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(place::failed(&folder.join(PREFETCH), error))
        }
        _ => Ok(()),
    }
}

fn fits(plan: &RecoveryPlan, settings: &Settings, control: &ControlFile) -> bool {
    // A frontier is of a restore: a standby goes on behind it.
    plan.frontier.is_empty()
        && plan.system_identifier == control.system
        && plan.database == settings.database.to_string()
        && settings.node().is_ok_and(|node| node.region.as_str() == plan.region)
}

/// The way to repositories and keys.
pub(crate) fn access<'a>(settings: &'a Settings, blocking: &'a Blocking) -> Outcome<Access<'a>> {
    let options = Options {
        deadline: STORE_DEADLINE,
        attempt_timeout: STORE_DEADLINE / 2,
        ..Options::default()
    };
    Ok(Access {
        spec: &settings.spec,
        here: Some(&settings.node()?.region),
        state: &settings.state,
        environment: &settings.environment,
        blocking,
        options,
    })
}

/// Where all repositories lie, with every reference resolved.
pub(crate) fn repositories(
    settings: &Settings,
    access: &Access<'_>,
) -> Outcome<Vec<PlanRepository>> {
    let environment = &settings.environment;
    let one = |name: &RegionName| {
        let repository = &settings.spec.region(name)?.repository;
        let resolve = |text: &Option<Reference>| {
            text.as_ref().map(|text| text.resolve(environment)).transpose()
        };
        Ok(PlanRepository {
            region: name.to_string(),
            url: repository.url.resolve(environment)?,
            endpoint: resolve(&repository.endpoint)?,
            region_name: resolve(&repository.region)?,
        })
    };
    access.region_names().into_iter().map(one).collect()
}

/// Where the plan lies.
pub(crate) fn plan_path(settings: &Settings) -> Outcome<PathBuf> {
    Ok(aside(settings)?.join(PLAN))
}
