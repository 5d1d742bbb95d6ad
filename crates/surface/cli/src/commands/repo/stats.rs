//! `lifeboat repo stats`: what lies in the repositories.

use std::collections::BTreeMap;

use lifeboat_objects::{Blocking, Key, Stat};
use lifeboat_repository::access::Access;
use lifeboat_repository::repository::Repository;
use lifeboat_telemetry::{Failure, Outcome, bytes};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::output::{Report, strong, table};
use crate::site::Site;

/// Show how much lies in each repository, by kind and by database
///
/// Counts the objects that the store lists; nothing is opened and no key is needed.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat repo stats
  lifeboat repo stats --json")]
pub struct Args {}

/// What lies in the repositories.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Stats {
    /// The vault.
    vault: String,
    /// Every region that answered.
    regions: Vec<Region>,
    #[serde(skip)]
    failure: Option<Failure>,
}

/// One repository.
#[derive(Debug, Serialize, JsonSchema)]
struct Region {
    /// The region.
    region: String,
    /// Where the repository lies.
    place: String,
    /// All of it.
    total: Amount,
    /// By kind: `packs`, `maps`, `manifests`, `wal`, `fragments`, `keys` and so on.
    kinds: BTreeMap<String, Amount>,
    /// By database, all incarnations together.
    databases: BTreeMap<String, Database>,
}

/// How much there is of something.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct Amount {
    /// Objects.
    objects: u64,
    /// Their size in bytes.
    bytes: u64,
}

impl Amount {
    fn add(&mut self, stat: &Stat) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(stat.size);
    }
}

/// What a database takes.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct Database {
    /// All of it.
    total: Amount,
    /// Its backups.
    backups: u64,
    /// Its WAL: segments and fragments.
    wal: Amount,
}

impl Report for Stats {
    const COMMAND: &'static str = "repo stats";

    fn text(&self) -> String {
        let mut text = format!("Vault {}\n", self.vault);
        for region in &self.regions {
            let total = bytes(region.total.bytes);
            let objects = region.total.objects;
            let place = &region.place;
            let name = strong(&region.region);
            text.push_str(&format!("\n{name}: {total} in {objects} objects  {place}\n\n"));
            let kinds = region.kinds.iter().map(|(kind, amount)| {
                [kind.clone(), amount.objects.to_string(), bytes(amount.bytes)]
            });
            text.push_str(&table(["Kind", ">Objects", ">Size"], kinds.collect()));
            let databases = region.databases.iter().map(|(name, database)| {
                let backups = database.backups.to_string();
                [name.clone(), backups, bytes(database.wal.bytes), bytes(database.total.bytes)]
            });
            text.push('\n');
            let headings = ["Database", ">Backups", ">WAL", ">Size"];
            text.push_str(&table(headings, databases.collect()));
        }
        text
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Lists every repository that answers.
pub fn run(context: &Context) -> Outcome<Stats> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let regions = access.regions()?;
    let mut counted = Vec::new();
    for repository in regions.all() {
        context.cancel.check()?;
        counted.push(count(&access, repository)?);
    }
    let vault = regions.vault().id.to_string();
    Ok(Stats { vault, regions: counted, failure: regions.partial() })
}

fn count(access: &Access<'_>, repository: &Repository) -> Outcome<Region> {
    let owners = access.blocking.run(owners(repository))?;
    let objects = access.blocking.run(repository.store().list(""))?;
    let mut region = Region {
        region: repository.region().to_owned(),
        place: repository.store().location().display(),
        total: Amount::default(),
        kinds: BTreeMap::new(),
        databases: BTreeMap::new(),
    };
    for (key, stat) in &objects {
        region.add(key, stat, &owners);
    }
    Ok(region)
}

/// Which stream belongs to which database.
async fn owners(repository: &Repository) -> Outcome<BTreeMap<String, String>> {
    let mut owners = BTreeMap::new();
    for database in repository.bound_databases().await? {
        for binding in repository.bindings(&database).await? {
            owners.insert(binding.body.stream.to_string(), database.clone());
        }
    }
    Ok(owners)
}

impl Region {
    fn add(&mut self, key: &Key, stat: &Stat, owners: &BTreeMap<String, String>) {
        self.total.add(stat);
        let parts: Vec<&str> = key.as_str().split('/').collect();
        let (stream, kind) = match parts.as_slice() {
            ["streams", stream, kind, ..] => (Some(*stream), *kind),
            [kind, ..] => (None, *kind),
            [] => return,
        };
        self.kinds.entry(kind.to_owned()).or_default().add(stat);
        let Some(owner) = stream.and_then(|stream| owners.get(stream)) else {
            return;
        };
        let database = self.databases.entry(owner.clone()).or_default();
        database.total.add(stat);
        match kind {
            "manifests" => database.backups += 1,
            "wal" | "fragments" => database.wal.add(stat),
            _ => {}
        }
    }
}
