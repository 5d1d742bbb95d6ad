//! A standby from its region's repository: no byte of the primary's disks is read for it.

use std::path::PathBuf;

use lifeboat_cluster::settings;
use lifeboat_model::RecoveryTarget;
use lifeboat_repository::access::Access;
use lifeboat_repository::enroll::newest_binding;
use lifeboat_repository::regions::Regions;
use lifeboat_restore::{
    FetchCommand, RestoreContext, RestorePlan, RestoreReport, RestoreRequest, Source, TargetAction,
};
use lifeboat_telemetry::{Cancel, Code, Failure, Outcome, Reporter};
use lifeboat_wal::writing_server;
use lifeboat_wire::{Config, Host};

use super::session::{rows, text};
use super::settings::Settings;
use super::{archive, configuration, kept, place, slots};
use crate::guard;

const AUTO: &str = "postgresql.auto.conf";
/// The title of the settings that are of this node alone.
const BLOCK: &str = "lifeboat node";

/// Whom the making of a standby works with.
pub struct Making<'a> {
    /// The node, which becomes the standby.
    pub settings: &'a Settings,
    /// The way to repositories and keys.
    pub access: &'a Access<'a>,
    /// The repositories.
    pub regions: &'a Regions,
    /// Who listens.
    pub reporter: &'a Reporter,
    /// Who may stop it.
    pub cancel: &'a Cancel,
    /// Whether a cluster that is there is set aside instead of refused.
    pub keep_old: bool,
    /// Working threads; 0 for as many as the machine can use.
    pub workers: usize,
}

/// What will be done.
pub struct StandbyPlan {
    /// How the directory is filled.
    pub restore: RestorePlan,
    /// The node that writes now, and what its server is set to; none if none answers.
    pub primary: Option<Primary>,
    /// The standby's slot there.
    pub slot: String,
    /// Where what is in the directory now will be.
    pub old: Option<PathBuf>,
    source: Source,
}

/// The server that writes.
pub struct Primary {
    /// Its node.
    pub node: lifeboat_model::NodeName,
    /// Settings that a standby depends on.
    pub settings: Vec<(String, String)>,
}

/// What was done.
pub struct StandbyReport {
    /// How the directory was filled.
    pub restore: RestoreReport,
    /// Where what was in the directory is now.
    pub old: Option<PathBuf>,
    /// Settings as the standby has them, in the order of the primary's.
    pub settings: Vec<(String, String)>,
    /// What a person should know.
    pub notes: Vec<String>,
}

const PARITY: &str = "
    SELECT name, setting FROM pg_settings WHERE name IN ('max_connections',
      'max_worker_processes', 'max_wal_senders', 'max_prepared_transactions',
      'max_locks_per_transaction', 'wal_level', 'wal_log_hints', 'data_checksums',
      'max_slot_wal_keep_size', 'archive_mode', 'shared_preload_libraries') ORDER BY name";

/// Plans, and refuses what cannot work. Writes nothing.
pub fn plan(making: &Making<'_>) -> Outcome<StandbyPlan> {
    let (own, access) = (making.settings, making.access);
    let old = match making.keep_old {
        true => kept::name(own)?,
        false => None,
    };
    let database = own.database.to_string();
    let binding = access.blocking.run(newest_binding(making.regions, &database))?;
    let binding = binding.ok_or_else(|| {
        Failure::new(Code::DatabaseUnknown, format!("{database} is bound to no cluster"))
            .hint("Take a backup of it first: `lifeboat backup`.")
    })?;
    let secrets = access.secrets(making.regions)?;
    let source = Source::new(
        access.blocking.clone(),
        making.regions,
        secrets.stream_keys(binding.body.stream),
        secrets.read_key(),
        making.reporter.clone(),
    );
    let mut request = request(making)?;
    // It is planned for a directory that is free once the old one is out of the way.
    if old.is_some() {
        request.to = request.to.with_extension("lifeboat-planned");
    }
    let mut restore = lifeboat_restore::plan(&request, context(making, &source), making.regions)?;
    let data = own.data()?.to_owned();
    (restore.to, restore.request.to) = (data.clone(), data);
    let primary = access.blocking.run(primary(making));
    Ok(StandbyPlan { restore, primary, slot: own.slot(&own.node)?, old, source })
}

/// Does it. What was interrupted is continued by doing it again.
pub fn create(making: &Making<'_>, plan: &StandbyPlan) -> Outcome<StandbyReport> {
    let own = making.settings;
    let mut notes = Vec::new();
    let old = match making.keep_old {
        true => kept::set_aside(own)?,
        false => None,
    };
    if let Some(primary) = &plan.primary {
        // From now on it keeps WAL; what is older, the repository has.
        let made = making.access.blocking.run(slots::make_at(own, &primary.node));
        if let Err(failure) = made {
            notes.push(format!("its slot on {} could not be made yet: {failure}", primary.node));
        }
    }
    let restore = lifeboat_restore::restore(&plan.restore, context(making, &plan.source))?;
    own.environment.failpoints().hit("standby.restored")?;
    node_settings(own)?;
    guard::manage(own.data()?, own.config_file()?.as_deref())?;
    super::rewind::forget(own)?;
    let configured = configuration::read(own)?;
    let names = plan.primary.iter().flat_map(|primary| primary.settings.iter());
    let settings = names
        .filter_map(|(name, _)| configured.get(name).map(|value| (name.clone(), value.clone())));
    Ok(StandbyReport { settings: settings.collect(), restore, old, notes })
}

fn context<'a>(making: &Making<'a>, source: &'a Source) -> RestoreContext<'a> {
    RestoreContext {
        environment: &making.settings.environment,
        source,
        reporter: making.reporter,
        cancel: making.cancel,
    }
}

fn request(making: &Making<'_>) -> Outcome<RestoreRequest> {
    let own = making.settings;
    let node = own.node()?;
    Ok(RestoreRequest {
        database: own.database.to_string(),
        to: node.data_directory.clone(),
        target: RecoveryTarget::Latest,
        backup: None,
        timeline: None,
        action: TargetAction::Pause,
        delta: false,
        adopt: false,
        standby: true,
        tablespaces: Vec::new(),
        owner: None,
        workers: making.workers,
        bin_directory: node.bin_directory.clone(),
        fetch: FetchCommand {
            binary: own.program.clone(),
            spec: own.spec_path.clone(),
            here: node.region.to_string(),
            repositories: archive::repositories(own, making.access)?,
            deadline: own.database()?.wal.fetch_deadline.duration(),
        },
        state: own.state.clone(),
    })
}

/// The server that writes; without one, a standby is made all the same.
async fn primary(making: &Making<'_>) -> Option<Primary> {
    let own = making.settings;
    let here = &own.node().ok()?.region;
    let found =
        writing_server::find(&own.database, own.database().ok()?, Some(here), &own.environment);
    let found = match found.await {
        Ok(found) => found,
        Err(failure) => {
            making.reporter.warn(format!("no primary answers: {failure}"));
            return None;
        }
    };
    let rows = rows(&found.connection, PARITY).await.unwrap_or_default();
    let settings =
        rows.iter().filter_map(|row| Some((text(row, 0)?.to_owned(), text(row, 1)?.to_owned())));
    Some(Primary { node: found.node, settings: settings.collect() })
}

/// The source's configuration says where the source listens; this node's `connection` says where
/// it is looked for itself.
fn node_settings(own: &Settings) -> Outcome<()> {
    let connection = own.node()?.connection.resolve(&own.environment)?;
    let config = Config::parse(&connection).map_err(|error| error.at("`connection`"))?;
    let configured = configuration::read(own)?;
    let mut block = Vec::new();
    if configured.get("port").map_or("5432", String::as_str) != config.port.to_string() {
        block.push(("port", config.port.to_string()));
    }
    if let Host::Socket(folder) = &config.host {
        let folder = folder.display().to_string();
        let known = configured.get("unix_socket_directories");
        let listens = known.is_some_and(|known| known.split(',').any(|one| one.trim() == folder));
        if !listens {
            block.push(("unix_socket_directories", folder));
        }
    }
    if block.is_empty() {
        return Ok(());
    }
    let path = own.data()?.join(AUTO);
    let before = std::fs::read(&path).map_err(|error| place::failed(&path, error))?;
    let names: Vec<&str> = block.iter().map(|(name, _)| *name).collect();
    let cleaned = settings::comment_out(&before, &names);
    place::write(&path, &settings::append_block(&cleaned, BLOCK, &block)).map(drop)
}
