//! `lifeboat key enroll`: this host's writer key.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lifeboat_cluster::control;
use lifeboat_model::DatabaseId;
use lifeboat_model::spec::PostgresNode;
use lifeboat_objects::Blocking;
use lifeboat_repository::access::Access;
use lifeboat_repository::catch_up::catch_up;
use lifeboat_repository::keys::{VaultSecrets, WriterKey};
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::{Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::output::Report;
use crate::record::record;
use crate::site::Site;

/// Make the key with which this host writes, and bind its databases
///
/// The writer key lies in a file of mode 0600. With it a host writes backups and WAL; it cannot
/// read the past. Opens a slot of the vault once: bring the passphrase, or the recovery key in
/// LIFEBOAT_RECOVERY_KEY. Run it as the user that runs PostgreSQL. An existing key is kept, and
/// completed for databases that were not bound yet.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  runuser -u postgres -- lifeboat key enroll --here east
  lifeboat key enroll --renew")]
pub struct Args {
    /// Make a new key although this host has one
    #[arg(long)]
    renew: bool,
}

/// This host's key.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Enrolled {
    /// The key file.
    writer_key: PathBuf,
    /// What the vault calls this host.
    label: String,
    /// Whether the key is new.
    new: bool,
    /// Databases that this host can write now.
    databases: Vec<Bound>,
    #[serde(skip)]
    failure: Option<Failure>,
}

/// A database that is bound to its cluster.
#[derive(Debug, Serialize, JsonSchema)]
struct Bound {
    /// `SERVICE/DATABASE`.
    database: String,
    /// The cluster's system identifier.
    system_identifier: String,
    /// Which incarnation of the cluster may write.
    incarnation: u64,
}

impl Report for Enrolled {
    const COMMAND: &'static str = "key enroll";

    fn text(&self) -> String {
        let what = if self.new { "This host was enrolled" } else { "This host is enrolled" };
        let mut text = format!("{what} as {}: {}\n", self.label, self.writer_key.display());
        for bound in &self.databases {
            text.push_str(&format!(
                "  {} is bound to cluster {}\n",
                bound.database, bound.system_identifier
            ));
        }
        if self.databases.is_empty() {
            text.push_str("  No database of the spec is on this host.\n");
        }
        text
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Enrols this host.
pub fn run(args: &Args, context: &Context) -> Outcome<Enrolled> {
    let site = Site::open_anywhere(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let mut regions = access.regions()?;
    let secrets = access.secrets(&regions)?;
    blocking.run(catch_up(&mut regions))?;
    enroll(&site, &access, &mut regions, &secrets, args.renew)
}

/// Makes or completes the writer key of this host.
pub fn enroll(
    site: &Site<'_>,
    access: &Access<'_>,
    regions: &mut Regions,
    secrets: &VaultSecrets,
    renew: bool,
) -> Outcome<Enrolled> {
    let path = access.writer_path();
    let new = renew || !path.exists();
    let mut writer = if new {
        let label = label(site);
        let environment = access.environment;
        access.blocking.run(lifeboat_repository::enroll::enroll(
            environment,
            regions,
            secrets,
            &label,
        ))?
    } else {
        access.writer(regions)?
    };
    let mut databases = Vec::new();
    for (id, node) in nodes_here(site) {
        warn_of_owner(site.context(), &path, &node.data_directory);
        databases.push(bind(access, regions, secrets, &mut writer, (&id, node))?);
    }
    writer.save(&path)?;
    let failure = regions.partial();
    let bound: Vec<&str> = databases.iter().map(|bound| bound.database.as_str()).collect();
    let facts = [("new", new.to_string()), ("databases", bound.join(" "))];
    let act = ("key enroll", writer.label().to_owned());
    record(site.context(), access, regions, act, facts);
    Ok(Enrolled { writer_key: path, label: writer.label().to_owned(), new, databases, failure })
}

/// Databases of this region whose cluster is on this host.
fn nodes_here<'a>(site: &'a Site<'_>) -> Vec<(DatabaseId, &'a PostgresNode)> {
    let databases = site.spec.databases();
    let nodes = databases.filter_map(|(id, database)| {
        let (_, node) = site.node(&id, database).ok()?;
        node.data_directory.join("global/pg_control").exists().then_some((id, node))
    });
    nodes.collect()
}

fn bind(
    access: &Access<'_>,
    regions: &mut Regions,
    secrets: &VaultSecrets,
    writer: &mut WriterKey,
    (id, node): (&DatabaseId, &PostgresNode),
) -> Outcome<Bound> {
    let environment = access.environment;
    let system = control::read(&node.data_directory, environment)?.system;
    let database = id.to_string();
    let stream = access.blocking.run(lifeboat_repository::enroll::bind(
        environment,
        regions,
        secrets,
        &database,
        system.0,
    ))?;
    let incarnation = stream.incarnation.0;
    writer.bind(&database, stream);
    Ok(Bound { database, system_identifier: system.0.to_string(), incarnation })
}

/// A key that root owns is of no use to PostgreSQL's user.
fn warn_of_owner(context: &Context, key: &Path, data_directory: &Path) {
    let owner = fs::metadata(data_directory).map(|found| found.uid()).ok();
    let own = nix::unistd::geteuid().as_raw();
    if owner.is_some_and(|owner| owner != own) {
        context.reporter.warn(format!(
            "{} will belong to user id {own}, and {} belongs to another: `wal push` runs as \
             PostgreSQL's user and must read the key",
            key.display(),
            data_directory.display(),
        ));
    }
}

/// Region and host, as people see them in `key list`.
fn label(site: &Site<'_>) -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "host",
        host => host,
    };
    match &site.here {
        Some(region) => format!("{region}/{host}"),
        None => host.to_owned(),
    }
}
