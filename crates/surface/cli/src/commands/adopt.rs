//! `lifeboat adopt`: a restored copy becomes the source.

use std::path::PathBuf;

use lifeboat_cluster::control;
use lifeboat_model::DatabaseId;
use lifeboat_objects::Blocking;
use lifeboat_repository::access::{Access, writer_path};
use lifeboat_repository::catch_up::catch_up;
use lifeboat_repository::enroll::{grant, newest_binding};
use lifeboat_repository::ids::Incarnation;
use lifeboat_repository::keys::{VaultSecrets, WriterKey, WriterStream};
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::incarnation::Marker;
use schemars::JsonSchema;
use serde::Serialize;

use crate::commands::incarnations;
use crate::commands::key::enroll;
use crate::context::Context;
use crate::output::{Report, strong};
use crate::record::record;
use crate::site::Site;

/// Make a restored copy the source of its database
///
/// A restored cluster may not archive: it would write into its source's archive. Once it takes the
/// source's place, adopt it: a new incarnation of the database begins, and `wal push` and `backup`
/// of the old one are refused from now on. Be sure that the old server is down for good. Needs a
/// key of the vault, and the data directory in the spec to be the one of the copy.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat adopt payments/ledger --here west")]
pub struct Args {
    /// The database, as SERVICE/DATABASE
    #[arg(value_name = "DB")]
    database: DatabaseId,
}

/// The copy that is the source now.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Adopted {
    /// `SERVICE/DATABASE`.
    database: String,
    /// The data directory.
    data_directory: PathBuf,
    /// The incarnation of the cluster that may write now.
    incarnation: u64,
    /// The incarnation that may not any more; null if this one had the right already.
    ended: Option<u64>,
    #[serde(skip)]
    failure: Option<Failure>,
}

impl Report for Adopted {
    const COMMAND: &'static str = "adopt";

    fn text(&self) -> String {
        let place = self.data_directory.display();
        let what = match self.ended {
            Some(ended) => format!("is the source now; incarnation {ended} may not write any more"),
            None => "was the source already".to_owned(),
        };
        format!(
            "{} in {place} {what}.\n\n{}\n  1. SHOW archive_mode; if it is off, ALTER SYSTEM SET \
             archive_mode = on and restart.\n  2. lifeboat backup {}\n",
            self.database,
            strong("What to do next:"),
            self.database
        )
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

impl Adopted {
    /// What is not well with an adoption as a part of a restore.
    pub fn partial(&mut self) -> Option<Failure> {
        self.failure.take()
    }
}

/// Adopts the cluster in the data directory of the node on this host.
pub fn run(args: &Args, context: &Context) -> Outcome<Adopted> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let (id, database) = site.database(Some(&args.database))?;
    let (_, node) = site.node(&id, database)?;
    let mut regions = access.regions()?;
    let secrets = access.secrets(&regions)?;
    blocking.run(catch_up(&mut regions))?;
    adopt(&site, &access, &mut regions, &secrets, (&id, node.data_directory.clone()))
}

/// Grants the incarnation of the cluster in a directory. May be repeated after a crash at any step.
pub fn adopt(
    site: &Site<'_>,
    access: &Access<'_>,
    regions: &mut Regions,
    secrets: &VaultSecrets,
    (id, data_directory): (&DatabaseId, PathBuf),
) -> Outcome<Adopted> {
    let database = id.to_string();
    let marker = Marker::read(&data_directory)?;
    let incarnation = marker.as_ref().map_or(Incarnation::FIRST, |marker| marker.incarnation);
    let system = control::read(&data_directory, access.environment)?.system.0;
    if let Some(marker) = &marker
        && marker.database != database
    {
        let message = format!("this is a copy of {}, not of {database}", marker.database);
        return Err(Failure::new(Code::CloneRefused, message)
            .hint("Name its own database, or correct `data_directory` in the spec."));
    }
    let (stream, ended) =
        grant_incarnation(access, regions, secrets, &database, (system, incarnation))?;
    let path = writer_path(&site.spec, &site.state);
    let mut writer = if path.exists() {
        access.writer(regions)?
    } else {
        enroll::enroll(site, access, regions, secrets, false)?;
        WriterKey::load(&path)?
    };
    writer.bind(&database, stream);
    writer.save(&path)?;
    // Last: until now `wal push` refuses this directory.
    if let Some(mut marker) = marker {
        marker.granted = true;
        marker.write(&data_directory)?;
    }
    let failure = regions.partial();
    let ended_text = ended.map_or_else(|| "none".to_owned(), |ended| ended.to_string());
    let facts = [("incarnation", incarnation.0.to_string()), ("ended", ended_text)];
    record(site.context(), access, regions, ("adopt", database.clone()), facts);
    Ok(Adopted { database, data_directory, incarnation: incarnation.0, ended, failure })
}

fn grant_incarnation(
    access: &Access<'_>,
    regions: &mut Regions,
    secrets: &VaultSecrets,
    database: &str,
    (system, incarnation): (u64, Incarnation),
) -> Outcome<(WriterStream, Option<u64>)> {
    let newest = access.blocking.run(newest_binding(regions, database))?;
    let Some(newest) = newest else {
        let message = format!("{database} was never bound to a cluster");
        return Err(Failure::new(Code::DatabaseUnknown, message)
            .hint("There is nothing to adopt: `lifeboat key enroll` binds a new database."));
    };
    let bound = newest.body.system_identifier;
    if bound != system {
        let message = format!("{database} is bound to cluster {bound}, this one is {system}");
        return Err(Failure::new(Code::BindingConflict, message)
            .hint("Only a restored copy of that cluster can be adopted."));
    }
    if newest.body.incarnation == incarnation {
        let again = lifeboat_repository::enroll::bind(
            access.environment,
            regions,
            secrets,
            database,
            system,
        );
        return Ok((access.blocking.run(again)?, None));
    }
    let lost = incarnations::unbound(access, regions, secrets, database)?.len();
    let lost = u32::try_from(lost).unwrap_or_default();
    let granted =
        grant(access.environment, regions, secrets, database, (system, incarnation), lost);
    Ok((access.blocking.run(granted)?, Some(newest.body.incarnation.0)))
}
