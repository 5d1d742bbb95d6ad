//! `lifeboat wal locate`: where in the archive data was lost, and how to go back to just before.

mod folder;
mod wanted;

use std::path::Path;

use jiff::Timestamp;
use lifeboat_model::{DatabaseId, SystemIdentifier, Timeline};
use lifeboat_objects::Blocking;
use lifeboat_repository::access::Access;
use lifeboat_repository::binding::Binding;
use lifeboat_repository::enroll::newest_binding;
use lifeboat_repository::keys::WalReadKey;
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::changes::{Loss, LossKind};
use lifeboat_wal::plan::RecoveryPlan;
use lifeboat_wal::search::{SearchRequest, Searched, search};
use lifeboat_wal::status::Inventory;
use schemars::JsonSchema;
use serde::Serialize;

use crate::commands::restore::target::moment as parse_moment;
use crate::context::Context;
use crate::output::{Report, emphasis, moment, strong};
use crate::site::Site;
use folder::Folder;
use wanted::Wanted;

const READ_KEY: &str = "wal-read.key";

/// Find where data was lost, and the position just before
///
/// Reads the archived WAL and lists the commits that dropped or truncated tables or deleted rows,
/// each with the command that restores to just before. WAL knows numbers, not names: a table that
/// still exists is found by its name, one that was dropped by its OID or among all drops by its
/// time. Reads only, and needs a key of the vault. Exit code 5 if some WAL could not be read.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat wal locate payments/ledger --before 'drop table orders'
  lifeboat wal locate --before delete --rows 1000 --since 2026-11-20T14:00:00Z
  lifeboat wal locate payments/ledger --before 'truncate 16402' --json")]
pub struct Args {
    /// The database, as SERVICE/DATABASE; without it the one whose data directory is the working
    /// directory, else the only one
    #[arg(value_name = "DB")]
    database: Option<DatabaseId>,
    /// What happened: drop, truncate, delete, rewrite, drop database or any; a table's name, OID
    /// or file number may follow
    #[arg(long, value_name = "WHAT")]
    before: String,
    /// Look at nothing earlier; rows deleted before by transactions at work are not counted
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Look at nothing later
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Leave out deletes of fewer rows of a table
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    rows: u64,
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Located {
    /// `SERVICE/DATABASE`.
    database: String,
    /// The region whose list of WAL was followed.
    region: String,
    /// The timeline whose history was searched.
    timeline: u32,
    /// Where the search began; null if there was nothing to read.
    from_lsn: Option<String>,
    /// Where it ended.
    to_lsn: Option<String>,
    /// Commits that lost data, oldest first.
    losses: Vec<Found>,
    /// How many there were besides.
    more: u64,
    /// WAL that could not be read, and why.
    unread: Vec<String>,
    #[serde(skip)]
    failure: Option<Failure>,
}

/// A commit that lost data.
#[derive(Debug, Serialize, JsonSchema)]
struct Found {
    /// `dropped`, `truncated`, `rewritten`, `deleted` or `database dropped`.
    kind: &'static str,
    /// When.
    time: Timestamp,
    /// The transaction.
    xid: u32,
    /// The record that made it so.
    lsn: String,
    /// The position to restore to: the last record before.
    before_lsn: String,
    /// Rows that were deleted.
    rows: u64,
    /// Files that are gone or emptied, as `tablespace/database/file` in OIDs.
    files: Vec<String>,
    /// Tables and indexes that were locked for it.
    tables: Vec<Table>,
    /// The command that restores to just before, less the directory.
    restore: String,
}

/// A table or an index.
#[derive(Debug, Serialize, JsonSchema)]
struct Table {
    /// OID of its database.
    database: u32,
    /// Its OID; zero if the database as a whole is meant.
    oid: u32,
}

impl Found {
    fn new(loss: Loss, id: &DatabaseId) -> Self {
        let files = loss
            .files
            .iter()
            .map(|file| format!("{}/{}/{}", file.tablespace, file.database, file.filenode));
        let tables =
            loss.tables.iter().map(|(database, oid)| Table { database: *database, oid: *oid });
        Self {
            kind: kind(loss.kind),
            time: loss.time,
            xid: loss.xid,
            lsn: loss.lsn.to_string(),
            before_lsn: loss.before.to_string(),
            rows: loss.rows,
            files: files.collect(),
            tables: tables.collect(),
            restore: format!("lifeboat restore {id} --lsn {} --to", loss.before),
        }
    }

    fn text(&self) -> String {
        let what = match (self.kind, self.rows) {
            (kind, 0) => kind.to_owned(),
            (kind, rows) => format!("{kind} {rows} rows"),
        };
        let mut text =
            format!("{}  {}, transaction {}\n", moment(self.time), strong(&what), self.xid);
        let mut line = |label: &str, values: Vec<String>| {
            // A schema may have thousands of tables.
            const SHOWN: usize = 8;
            let more = values.len().saturating_sub(SHOWN);
            let mut shown = values.into_iter().take(SHOWN).collect::<Vec<_>>().join(", ");
            if more > 0 {
                shown.push_str(&format!(" and {more} more"));
            }
            if !shown.is_empty() {
                text.push_str(&format!("    {}  {shown}\n", emphasis(label)));
            }
        };
        line("files  ", self.files.clone());
        let oids = self.tables.iter().map(|table| match table.oid {
            0 => format!("database {}", table.database),
            oid => oid.to_string(),
        });
        line("OIDs   ", oids.collect());
        line("restore", vec![format!("{} DIR", self.restore)]);
        text
    }
}

fn kind(kind: LossKind) -> &'static str {
    match kind {
        LossKind::Dropped => "dropped",
        LossKind::Truncated => "truncated",
        LossKind::Rewritten => "rewritten",
        LossKind::Deleted => "deleted",
        LossKind::DatabaseDropped => "database dropped",
    }
}

impl Report for Located {
    const COMMAND: &'static str = "wal locate";

    fn text(&self) -> String {
        let place = match (&self.from_lsn, &self.to_lsn) {
            (Some(from), Some(to)) => format!("WAL from {from} to {to}"),
            _ => "no WAL".to_owned(),
        };
        let count = self.losses.len() as u64 + self.more;
        let mut text = format!("{}: {count} found in {place}\n", strong(&self.database));
        for loss in &self.losses {
            text.push_str(&loss.text());
        }
        if self.more > 0 {
            text.push_str(&format!("and {} more: use --since, --until, --rows\n", self.more));
        }
        text
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Searches the WAL of the newest incarnation.
pub fn run(args: &Args, context: &Context) -> Outcome<Located> {
    let since = args.since.as_deref().map(parse_moment).transpose()?;
    let until = args.until.as_deref().map(parse_moment).transpose()?;
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let (id, database) = site.database(args.database.as_ref())?;
    let wanted = Wanted::parse(&args.before)?.resolve(&access, database, context)?;
    let regions = access.regions()?;
    let binding = blocking.run(newest_binding(&regions, &id.to_string()))?;
    let binding = binding.ok_or_else(|| nothing(&id))?;
    let secrets = access.secrets(&regions)?;
    let keys = secrets.stream_keys(binding.body.stream);
    let inventory = Inventory::read(&blocking, regions.nearest(), &keys)?;
    let timeline = inventory.timelines().last().ok_or_else(|| nothing(&id))?;
    let folder = Folder::make(&site.state, context)?;
    let read_key = secrets.read_key().for_wal(keys.stream());
    WalReadKey { keys: keys.clone(), read_key }.save(&folder.path().join(READ_KEY))?;
    let plan = plan(&site, &access, &regions, &binding, &inventory, folder.path())?;
    let searched = search(
        &SearchRequest {
            environment: &context.environment,
            cancel: &context.cancel,
            reporter: &context.reporter,
            plan: &plan,
            inventory: &inventory,
            timeline,
            since,
            until,
            fewest_rows: args.rows,
            folder: folder.path(),
        },
        |loss| wanted.takes(loss),
    )?;
    let Searched { losses, more, span, unread } = searched;
    Ok(Located {
        database: id.to_string(),
        region: inventory.region().to_owned(),
        timeline: timeline.0,
        from_lsn: span.map(|(from, _)| from.to_string()),
        to_lsn: span.map(|(_, to)| to.to_string()),
        losses: losses.into_iter().map(|loss| Found::new(loss, &id)).collect(),
        more,
        failure: failure(&unread),
        unread,
    })
}

/// Where the segments come from: the nearest region first, then the others.
fn plan(
    site: &Site<'_>,
    access: &Access<'_>,
    regions: &Regions,
    binding: &Binding,
    inventory: &Inventory<'_>,
    folder: &Path,
) -> Outcome<RecoveryPlan> {
    let database = site.spec.database(&binding.body.database.parse()?)?;
    let deadline = database.wal.fetch_deadline.duration();
    Ok(RecoveryPlan {
        lifeboat_plan: 1,
        database: binding.body.database.clone(),
        vault: regions.vault().id,
        stream: binding.body.stream,
        system_identifier: SystemIdentifier(binding.body.system_identifier),
        incarnation: binding.body.incarnation,
        region: inventory.region().to_owned(),
        repositories: site.repositories(access)?,
        timeline: inventory.timelines().next().unwrap_or(Timeline::FIRST),
        wal_segment_bytes: inventory.segment_size_of_stream().bytes(),
        frontier: inventory.frontier(),
        read_key_file: folder.join(READ_KEY),
        prefetch: folder.join("ahead"),
        fetch_deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        created_at: site.context().environment.clock().now(),
    })
}

fn nothing(id: &DatabaseId) -> Failure {
    Failure::new(Code::NoBackup, format!("nothing was ever stored of {id}"))
        .hint("Is it the right database, and the right spec?")
}

fn failure(unread: &[String]) -> Option<Failure> {
    (!unread.is_empty()).then(|| {
        Failure::new(Code::RegionSkipped, "some WAL could not be read: a loss there is not listed")
            .details(unread.to_vec())
            .hint("`lifeboat wal status` says what is missing, and in which region.")
    })
}
