//! `lifeboat standby create`: a streaming standby, made from this region's repository.

use std::path::PathBuf;

use lifeboat_drivers::postgres::standby::{Making, StandbyPlan, StandbyReport, create, plan};
use lifeboat_model::{DatabaseId, NodeName};
use lifeboat_objects::Blocking;
use lifeboat_telemetry::{Outcome, bytes, duration};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::output::{Report, strong};
use crate::record::record;
use crate::site::Site;

/// Make the node of this region a standby of the primary
///
/// Fills the node's data directory from the region's repository, makes its replication slot on the
/// primary, and marks the directory as managed: from then on it starts below `lifeboat guard` only,
/// which the agent runs. The agent starts it, it replays what the repository has, and then streams.
/// An interrupted one is continued by running the same command again. Needs a key of the vault.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat standby create payments/ledger --here west --dry-run
  lifeboat standby create payments/ledger --here west
  lifeboat standby create payments/ledger --here east --keep-old")]
pub struct Args {
    /// The database, as SERVICE/DATABASE
    #[arg(value_name = "DB")]
    database: DatabaseId,
    /// The node, where the region has several
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// Set a stopped cluster in the directory aside, beside it; without this it is refused
    #[arg(long)]
    keep_old: bool,
    /// Working threads [default: as many as there are processors]
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    workers: usize,
    /// Print the plan and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// A standby.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StandbyCreated {
    /// `SERVICE/DATABASE`.
    database: String,
    /// The node.
    node: String,
    /// Its region.
    region: String,
    /// The directory that is filled.
    data_directory: PathBuf,
    /// The backup that it is filled from.
    backup: String,
    /// Regions whose repositories are read, in order.
    regions: Vec<String>,
    /// The node that writes; null if none answers.
    primary: Option<String>,
    /// The standby's replication slot there.
    slot: String,
    /// Where what was in the directory is kept; null if there was nothing.
    old: Option<PathBuf>,
    /// Settings of the primary that a standby depends on, and the standby's own.
    settings: Vec<Parity>,
    /// What it came to; null in a dry run.
    done: Option<Done>,
    /// What a person should know.
    notes: Vec<String>,
}

/// One setting on both sides.
#[derive(Debug, Serialize, JsonSchema)]
struct Parity {
    /// The setting.
    name: String,
    /// The primary's value, in PostgreSQL's unit.
    primary: String,
    /// What the standby's configuration says, as it says it; null if it says nothing, or is not
    /// there yet.
    standby: Option<String>,
}

/// What making it came to.
#[derive(Debug, Serialize, JsonSchema)]
struct Done {
    /// Files that were written.
    files: u64,
    /// Their bytes.
    bytes: u64,
    /// How long it took.
    elapsed_seconds: f64,
}

impl Report for StandbyCreated {
    const COMMAND: &'static str = "standby create";

    fn text(&self) -> String {
        let Self { database, node, region, .. } = self;
        let mut text = format!("Standby {node} of {database} in {region}\n");
        let mut line = |name: &str, value: String| {
            text.push_str(&format!("  {name:<10} {value}\n"));
        };
        line("directory", self.data_directory.display().to_string());
        line("backup", format!("{}, read from {}", self.backup, self.regions.join(", then ")));
        match &self.primary {
            Some(primary) => line("primary", format!("{primary}, by slot {}", self.slot)),
            None => line("primary", "none answers: it follows the repository alone".to_owned()),
        }
        if let Some(old) = &self.old {
            line("old", format!("kept as {}", old.display()));
        }
        for Parity { name, primary, standby } in &self.settings {
            let standby = standby.as_deref().map_or(String::new(), |own| format!(", here {own}"));
            line("setting", format!("{name}: {primary}{standby}"));
        }
        for note in &self.notes {
            line("note", note.clone());
        }
        let Some(done) = &self.done else {
            text.push_str("\nNothing was written: this was a dry run.\n");
            return text;
        };
        let time = std::time::Duration::try_from_secs_f64(done.elapsed_seconds);
        text.push_str(&format!(
            "\nMade in {}: {} in {} files\n\n{}\n  1. Start this region's agent, if it does not \
             run: `lifeboat agent --here {region}`.\n  2. It starts the standby, which replays what \
             the repository has and then streams.\n  3. `lifeboat status` shows when it is a \
             candidate.\n",
            strong(&duration(time.unwrap_or_default())),
            bytes(done.bytes),
            done.files,
            strong("What happens next:"),
        ));
        text
    }
}

/// Plans, and makes it unless it is a dry run.
pub fn run(args: &Args, context: &Context) -> Outcome<StandbyCreated> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let (id, database) = site.database(Some(&args.database))?;
    let settings = super::settings(&site, (&id, database), args.node.as_ref())?;
    let mut regions = access.regions()?;
    let (planned, made) = {
        let making = Making {
            settings: &settings,
            access: &access,
            regions: &regions,
            reporter: &context.reporter,
            cancel: &context.cancel,
            keep_old: args.keep_old,
            workers: args.workers,
        };
        let planned = plan(&making)?;
        let made = if args.dry_run { None } else { Some(create(&making, &planned)?) };
        (planned, made)
    };
    let node = settings.node.to_string();
    if let Some(made) = &made {
        let old = made.old.as_ref().map(|old| old.display().to_string());
        let facts = [
            ("node", node.clone()),
            ("backup", planned.restore.backup.name.clone()),
            ("to", planned.restore.to.display().to_string()),
            ("old", old.unwrap_or_else(|| "none".to_owned())),
        ];
        record(context, &access, &mut regions, ("standby create", id.to_string()), facts);
    }
    let region = settings.node()?.region.to_string();
    Ok(StandbyCreated::new((id.to_string(), node, region), planned, made))
}

impl StandbyCreated {
    fn new(
        (database, node, region): (String, String, String),
        plan: StandbyPlan,
        report: Option<StandbyReport>,
    ) -> Self {
        let own = report.as_ref().map(|report| report.settings.clone()).unwrap_or_default();
        let theirs = plan.primary.as_ref().map(|primary| primary.settings.clone());
        let settings = theirs.unwrap_or_default().into_iter().map(|(name, primary)| {
            let standby = own.iter().find(|(known, _)| *known == name);
            let standby = standby.map(|(_, value)| value.clone());
            Parity { name, primary, standby }
        });
        let mut notes = plan.restore.notes.clone();
        notes.extend(report.iter().flat_map(|report| report.notes.clone()));
        notes.extend(report.iter().flat_map(|report| report.restore.notes.clone()));
        let old = report.as_ref().map_or(plan.old, |report| report.old.clone());
        Self {
            database,
            node,
            region,
            data_directory: plan.restore.to.clone(),
            backup: plan.restore.backup.name.clone(),
            regions: plan.restore.regions.clone(),
            primary: plan.primary.map(|primary| primary.node.to_string()),
            slot: plan.slot,
            old,
            settings: settings.collect(),
            done: report.map(|report| Done {
                files: report.restore.files,
                bytes: report.restore.bytes,
                elapsed_seconds: report.restore.time.as_secs_f64(),
            }),
            notes,
        }
    }
}
