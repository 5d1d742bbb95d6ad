//! `lifeboat restore`: a database as it was, in a directory of its own.

mod incarnation;
mod report;
pub mod target;

use std::path::PathBuf;

use lifeboat_model::spec::Database;
use lifeboat_model::{DatabaseId, Lsn, Timeline};
use lifeboat_objects::Blocking;
use lifeboat_repository::access::Access;
use lifeboat_repository::regions::Regions;
use lifeboat_restore::{FetchCommand, RestoreRequest, TargetAction};
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::commands::adopt;
use crate::context::Context;
use crate::record::record;
use crate::site::Site;

pub use report::Restored;

/// Restore a database to a directory, up to a moment
///
/// Picks the backup, fills the directory, and writes the settings with which PostgreSQL fetches
/// the WAL and stops at the target; start the server afterwards with the command that is printed.
/// A target that cannot be reached is refused before anything is written. The directory must be
/// empty or absent, unless --delta is given. The copy may not archive until it is adopted. An
/// interrupted restore is continued by running the same command again. Needs a key of the vault.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat restore payments/ledger --to /var/lib/postgresql/15/restored --time 2026-11-20T14:03:07Z
  lifeboat restore payments/ledger --to /srv/copy --latest --here west --dry-run
  lifeboat restore payments/ledger --to /var/lib/postgresql/15/main --latest --delta")]
pub struct Args {
    /// The database, as SERVICE/DATABASE; without it the only one
    #[arg(value_name = "DB")]
    database: Option<DatabaseId>,
    /// The directory to fill
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    #[command(flatten)]
    target: Target,
    /// Leave out commits at exactly the moment of --time
    #[arg(long, requires = "time")]
    exclusive: bool,
    /// The backup to start from; alone: restore to its end
    #[arg(long, value_name = "NAME")]
    backup: Option<String>,
    /// The timeline to follow [default: the newest one]
    #[arg(long, value_name = "NUMBER")]
    timeline: Option<u32>,
    /// What the server does at the target
    #[arg(long, value_name = "ACTION", default_value = "promote")]
    target_action: Action,
    /// Replace only what differs in the directory of a stopped server; files that are not in the
    /// backup go
    #[arg(long)]
    delta: bool,
    /// Make the copy the source: it may archive, the old cluster may not any more
    #[arg(long)]
    adopt: bool,
    /// Put a tablespace elsewhere; OLD is its path or OID. May be given more than once
    #[arg(long, value_name = "OLD=NEW", value_parser = target::tablespace)]
    tablespace: Vec<(String, PathBuf)>,
    /// Who shall own the files, if root restores [default: the owner of the directory]
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// Working threads [default: as many as there are processors]
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    workers: usize,
    /// Print the plan and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// How far recovery goes; the newest state if nothing is said.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Target {
    /// The last commit up to a moment, as in 2026-11-20T14:03:07Z
    #[arg(long, value_name = "TIME")]
    time: Option<String>,
    /// A position in the WAL, as in 0/2A000148
    #[arg(long, value_name = "LSN")]
    lsn: Option<Lsn>,
    /// The commit of a transaction, which is kept
    #[arg(long, value_name = "XID")]
    xid: Option<u64>,
    /// A restore point made by pg_create_restore_point
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The end of the archived WAL: the newest state
    #[arg(long)]
    latest: bool,
    /// The end of the backup: the quickest state
    #[arg(long)]
    immediate: bool,
}

/// What the server does at the target.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Action {
    /// Take writes, on a new timeline
    Promote,
    /// Wait, readable, for a person to decide
    Pause,
    /// Shut down
    Shutdown,
}

/// Plans, and restores unless it is a dry run.
pub fn run(args: &Args, context: &Context) -> Outcome<Restored> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let (id, database) = site.database(args.database.as_ref())?;
    let mut regions = access.regions()?;
    let secrets = access.secrets(&regions)?;
    let request = request(args, &site, &access, &regions, (&id, database))?;
    let (plan, source) = incarnation::plan(&request, context, &access, &regions, &secrets)?;
    if args.dry_run {
        return Ok(Restored::planned(&plan));
    }
    context.reporter.note(report::intent(&plan));
    let report = lifeboat_restore::restore(&plan, incarnation::within(context, &source))?;
    let facts = [
        ("backup", plan.backup.name.clone()),
        ("target", plan.target.to_string()),
        ("to", plan.to.display().to_string()),
        ("incarnation", report.incarnation.to_string()),
    ];
    record(context, &access, &mut regions, ("restore", id.to_string()), facts);
    let mut restored = Restored::done(&plan, report);
    if args.adopt {
        let directory = request.to.clone();
        restored.adopted(adopt::adopt(&site, &access, &mut regions, &secrets, (&id, directory)));
    }
    Ok(restored)
}

fn request(
    args: &Args,
    site: &Site<'_>,
    access: &Access<'_>,
    regions: &Regions,
    (id, database): (&DatabaseId, &Database),
) -> Outcome<RestoreRequest> {
    let local = |what: &str, error: std::io::Error| {
        Failure::new(Code::LocalFile, format!("{what} cannot be found")).because(error)
    };
    let here = match &site.here {
        Some(here) => here.to_string(),
        None => regions.nearest().region().to_owned(),
    };
    let nodes = database.nodes.values();
    let node =
        nodes.clone().find(|node| node.region.as_str() == here).or_else(|| nodes.clone().next());
    let binary = std::env::current_exe();
    Ok(RestoreRequest {
        database: id.to_string(),
        to: std::path::absolute(&args.to).map_err(|error| local("the target directory", error))?,
        target: target::target(args)?,
        backup: args.backup.clone(),
        timeline: args.timeline.map(Timeline),
        action: match args.target_action {
            Action::Promote => TargetAction::Promote,
            Action::Pause => TargetAction::Pause,
            Action::Shutdown => TargetAction::Shutdown,
        },
        delta: args.delta,
        adopt: args.adopt,
        standby: false,
        tablespaces: args.tablespace.clone(),
        owner: args.owner.clone(),
        workers: args.workers,
        bin_directory: node.and_then(|node| node.bin_directory.clone()),
        fetch: FetchCommand {
            binary: binary.map_err(|error| local("this program", error))?,
            spec: site.origin.clone(),
            here,
            repositories: site.repositories(access)?,
            deadline: database.wal.fetch_deadline.duration(),
        },
        state: site.state.clone(),
    })
}
