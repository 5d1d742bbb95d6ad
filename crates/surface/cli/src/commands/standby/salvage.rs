//! `lifeboat standby salvage`: what an old primary wrote and nobody has.

use std::path::PathBuf;

use lifeboat_drivers::postgres::salvage::{Kind, Salvaged, Salvaging, salvage};
use lifeboat_model::{DatabaseId, Lsn, NodeName};
use lifeboat_objects::Blocking;
use lifeboat_telemetry::{Code, Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::output::Report;
use crate::record::record;
use crate::site::Site;

/// Set apart what the stopped old primary of this region wrote after the fork
///
/// Its WAL from the fork on goes to the repositories. A copy of its directory and the database as
/// it was at the fork are started in a sandbox and compared; rows that differ are written as CSV,
/// by table. The directory itself is only read. Needs room for two copies, and a key of the vault.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat standby salvage payments/ledger --here east --fork 0/3000148")]
pub struct Args {
    /// The database, as SERVICE/DATABASE
    #[arg(value_name = "DB")]
    database: DatabaseId,
    /// The node, where the region has several
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// Where the new primary's history left the old timeline
    #[arg(long, value_name = "LSN")]
    fork: Lsn,
}

/// What was set apart.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SalvageReport {
    /// `SERVICE/DATABASE`.
    database: String,
    /// The node.
    node: String,
    /// Where the files lie.
    folder: PathBuf,
    /// Where the timelines part.
    fork_lsn: String,
    /// Where the old primary's WAL ends.
    end_lsn: String,
    /// The regions whose repositories have that WAL.
    regions: Vec<String>,
    /// Tables whose rows differ, and tables that could not be compared.
    tables: Vec<Table>,
    #[serde(skip)]
    text: String,
    #[serde(skip)]
    failure: Option<Failure>,
}

/// One table.
#[derive(Debug, Serialize, JsonSchema)]
struct Table {
    /// The database.
    database: String,
    /// `schema.table`.
    name: String,
    /// Rows that only the old primary has.
    inserted: u64,
    /// Rows to which it gave other values.
    updated: u64,
    /// Rows that it deleted.
    deleted: u64,
    /// Why it could not be compared; null if it was.
    trouble: Option<String>,
    /// The files with its rows.
    files: Vec<PathBuf>,
}

impl Report for SalvageReport {
    const COMMAND: &'static str = "standby salvage";

    fn text(&self) -> String {
        self.text.clone()
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Sets apart.
pub fn run(args: &Args, context: &Context) -> Outcome<SalvageReport> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let (id, database) = site.database(Some(&args.database))?;
    let settings = super::settings(&site, (&id, database), args.node.as_ref())?;
    let mut regions = access.regions()?;
    let salvaged = salvage(&Salvaging {
        settings: &settings,
        access: &access,
        regions: &regions,
        reporter: &context.reporter,
        cancel: &context.cancel,
        fork: args.fork,
    })?;
    let facts = [
        ("node", settings.node.to_string()),
        ("fork", args.fork.to_string()),
        ("end", salvaged.end.to_string()),
        ("folder", salvaged.folder.display().to_string()),
    ];
    record(context, &access, &mut regions, ("salvage", id.to_string()), facts);
    Ok(SalvageReport::new(id.to_string(), settings.node.to_string(), args.fork, salvaged))
}

impl SalvageReport {
    fn new(database: String, node: String, fork: Lsn, salvaged: Salvaged) -> Self {
        let text = salvaged.text();
        let mut tables = Vec::new();
        for one in salvaged.tables {
            let mut table = Table {
                database: one.database,
                name: one.name,
                inserted: 0,
                updated: 0,
                deleted: 0,
                trouble: None,
                files: one.files,
            };
            match one.kind {
                Kind::Differs { inserted, updated, deleted } => {
                    (table.inserted, table.updated, table.deleted) = (inserted, updated, deleted);
                }
                Kind::WithoutKey => table.trouble = Some("it has no primary key".to_owned()),
                Kind::Failed(why) => table.trouble = Some(why),
            }
            tables.push(table);
        }
        let lines = tables.iter().filter_map(|table| {
            let trouble = table.trouble.as_ref()?;
            Some(format!("{} {}: {trouble}", table.database, table.name))
        });
        let lines: Vec<String> = lines.collect();
        // Everything else was set apart: what is left is named.
        let failure = (!lines.is_empty()).then(|| {
            Failure::new(Code::SalvagePartial, "some tables could not be compared")
                .details(lines)
                .hint("Keep the old directory until they were looked at.")
        });
        Self {
            database,
            node,
            folder: salvaged.folder,
            fork_lsn: fork.to_string(),
            end_lsn: salvaged.end.to_string(),
            regions: salvaged.regions,
            tables,
            text,
            failure,
        }
    }
}
