//! `lifeboat repo prune`: delete the WAL that no backup needs.

use std::collections::BTreeMap;

use futures::StreamExt;
use jiff::Timestamp;
use lifeboat_audit::Act;
use lifeboat_model::DatabaseId;
use lifeboat_objects::{Blocking, Key, Stat};
use lifeboat_repository::access::Access;
use lifeboat_repository::regions::Regions;
use lifeboat_repository::repository::Repository;
use lifeboat_telemetry::{Code, Failure, Outcome, bytes};
use lifeboat_wal::retention::{Reason, Superfluous, superfluous};
use schemars::JsonSchema;
use serde::Serialize;

use crate::commands::incarnations;
use crate::context::Context;
use crate::keyring::Keyring;
use crate::output::{Report, strong, table};
use crate::site::Site;

/// So many objects are deleted at a time.
const AT_A_TIME: usize = 16;

/// Delete WAL that no backup needs
///
/// Deletes segments that lie before every backup, 25 hours after they came, and fragments whose
/// segment is there, an hour after it came; ages are by the store's own clock. What damaged
/// manifests, a backup in the making or a timeline of unknown origin might need is left. Backups
/// do not expire in this version. Needs credentials that may delete; nothing else in Lifeboat does.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat repo prune --dry-run
  lifeboat repo prune --here west")]
pub struct Args {
    /// Show what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
}

/// What was deleted, or would be.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Pruned {
    /// Whether nothing was deleted because nothing should be.
    dry_run: bool,
    /// By region, database and incarnation.
    streams: Vec<Stream>,
    #[serde(skip)]
    failure: Option<Failure>,
}

/// One incarnation of a database in one repository.
#[derive(Debug, Serialize, JsonSchema)]
struct Stream {
    /// The region.
    region: String,
    /// `SERVICE/DATABASE`.
    database: String,
    /// The incarnation.
    incarnation: u64,
    /// WAL before every backup.
    before_backups: Amount,
    /// Fragments whose segment is there.
    covered_fragments: Amount,
    /// Objects that can go when they are old enough.
    too_young: u64,
    /// The first segment of each timeline that backups need.
    needed_from: Vec<String>,
    /// Why no WAL before backups was deleted.
    held: Option<String>,
    /// Objects that could not be deleted, and why.
    failed: BTreeMap<String, String>,
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
    fn of<'a>(objects: impl Iterator<Item = &'a Stat>) -> Self {
        objects.fold(Self::default(), |sum, stat| Self {
            objects: sum.objects + 1,
            bytes: sum.bytes.saturating_add(stat.size),
        })
    }
}

impl Report for Pruned {
    const COMMAND: &'static str = "repo prune";

    fn text(&self) -> String {
        let verb = if self.dry_run { "would be deleted" } else { "deleted" };
        let mut text = String::new();
        for stream in &self.streams {
            let Stream { region, database, incarnation, .. } = stream;
            text.push_str(&format!("{}: {database}, incarnation {incarnation}\n", strong(region)));
            let row = |what: &str, amount: &Amount| {
                [what.to_owned(), amount.objects.to_string(), bytes(amount.bytes)]
            };
            text.push_str(&table(
                [verb, ">Objects", ">Size"],
                vec![
                    row("WAL before every backup", &stream.before_backups),
                    row("fragments whose segment is there", &stream.covered_fragments),
                ],
            ));
            if !stream.needed_from.is_empty() {
                text.push_str(&format!("  needed from {} on\n", stream.needed_from.join(", ")));
            }
            if stream.too_young > 0 {
                text.push_str(&format!("  {} more when they are older\n", stream.too_young));
            }
            if let Some(held) = &stream.held {
                text.push_str(&format!("  WAL before backups is left alone: {held}\n"));
            }
        }
        text
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Deletes what nobody needs, region by region.
pub fn run(args: &Args, context: &Context) -> Outcome<Pruned> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let mut regions = access.regions()?;
    if !args.dry_run {
        announce(context, &access, &mut regions)?;
    }
    let mut streams = Vec::new();
    for (id, _) in site.spec.databases() {
        let mut keyring = Keyring::new(&access, &regions, &id);
        for binding in incarnations::of(&access, &regions, &id.to_string())? {
            let keys = keyring.of(binding.body.stream)?;
            for repository in regions.all() {
                context.cancel.check()?;
                let now = now(context, &access, repository, args.dry_run)?;
                let found = superfluous(&blocking, repository, &keys, now)?;
                let failed = match args.dry_run {
                    true => BTreeMap::new(),
                    false => delete(context, &access, repository, &found)?,
                };
                let incarnation = binding.body.incarnation.0;
                streams.push(Stream::new(repository, &id, incarnation, found, failed));
            }
        }
    }
    let failure = not_deleted(&streams).or_else(|| regions.partial());
    Ok(Pruned { dry_run: args.dry_run, streams, failure })
}

/// What deletes is recorded before it does. The entry's age is also what the stores' clocks are
/// read from.
fn announce(context: &Context, access: &Access<'_>, regions: &mut Regions) -> Outcome<()> {
    let writer = access.writer(regions)?;
    let act = Act {
        act: "repo prune".to_owned(),
        subject: regions.vault().id.to_string(),
        facts: BTreeMap::new(),
    };
    let recorded = lifeboat_audit::record(&context.environment, regions, &writer, act);
    access.blocking.run(recorded).map(drop)
}

/// The store's time, for this host's clock can only delay a deletion. Without having written
/// anything only this host's is known.
fn now(
    context: &Context,
    access: &Access<'_>,
    repository: &Repository,
    dry_run: bool,
) -> Outcome<Timestamp> {
    let own = context.environment.clock().now();
    if dry_run {
        return Ok(own);
    }
    let entries = access.blocking.run(repository.store().list("audit/"))?;
    let newest = entries.iter().map(|(_, stat)| stat.modified).max();
    Ok(newest.map_or(own, |newest| newest.min(own)))
}

/// Deletes objects; returns those that would not go.
fn delete(
    context: &Context,
    access: &Access<'_>,
    repository: &Repository,
    found: &Superfluous,
) -> Outcome<BTreeMap<String, String>> {
    // The head of a large segment goes before its parts: it says that they exist.
    let is_part = |key: &Key| key.as_str().contains(".part-");
    let (parts, whole): (Vec<_>, Vec<_>) = found
        .objects
        .iter()
        .map(|(key, stat, _)| (key, stat.size))
        .partition(|(key, _)| is_part(key));
    let step = format!("deleting in {}", repository.region());
    let total = found.objects.iter().map(|(_, stat, _)| stat.size).sum();
    context.reporter.start(&step, total);
    let mut failed = BTreeMap::new();
    for objects in [whole, parts] {
        let store = repository.store();
        let deletions = futures::stream::iter(
            objects
                .into_iter()
                .map(|(key, size)| async move { (key, size, store.delete(key).await) }),
        );
        let mut deletions = deletions.buffer_unordered(AT_A_TIME);
        access.blocking.run(async {
            while let Some((key, size, outcome)) = deletions.next().await {
                context.cancel.check()?;
                if let Err(failure) = outcome {
                    failed.insert(key.as_str().to_owned(), failure.to_string());
                }
                context.reporter.advance(size);
            }
            Ok::<(), Failure>(())
        })?;
    }
    context.reporter.finish(&step);
    Ok(failed)
}

impl Stream {
    fn new(
        repository: &Repository,
        id: &DatabaseId,
        incarnation: u64,
        found: Superfluous,
        failed: BTreeMap<String, String>,
    ) -> Self {
        let gone = |wanted: Reason| {
            let of_reason = found
                .objects
                .iter()
                .filter(|(key, _, reason)| *reason == wanted && !failed.contains_key(key.as_str()));
            Amount::of(of_reason.map(|(_, stat, _)| stat))
        };
        Self {
            region: repository.region().to_owned(),
            database: id.to_string(),
            incarnation,
            before_backups: gone(Reason::BeforeBackups),
            covered_fragments: gone(Reason::Covered),
            too_young: found.young,
            needed_from: found.needed.iter().map(ToString::to_string).collect(),
            held: found.held,
            failed,
        }
    }
}

fn not_deleted(streams: &[Stream]) -> Option<Failure> {
    let failed = streams.iter().flat_map(|stream| {
        stream.failed.iter().map(|(key, why)| format!("{}: {key}: {why}", stream.region))
    });
    let lines: Vec<String> = failed.collect();
    if lines.is_empty() {
        return None;
    }
    let message = format!("{} objects could not be deleted", lines.len());
    Some(Failure::new(Code::RegionSkipped, message).details(lines.into_iter().take(20)).hint(
        "Locked objects go when their lock has ended; else give these credentials the right to delete.",
    ))
}
