//! How fast a recovery replays WAL from a repository, beside the same WAL in a local directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lifeboat_testkit::postgres::{Cluster, DEBIAN_MAJOR, Stop};
use lifeboat_testkit::run::Lifeboat;
use lifeboat_testkit::scratch::{self, Scratch};

use super::report::percentile;

const DATABASE: &str = "bench/main";
/// Recoveries of each kind; who begins takes turns.
const PAIRS: usize = 5;
/// Transactions of each of 4 sessions: about 64 segments.
const TRANSACTIONS: &str = "120000";

/// Where the WAL comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Repository,
    Directory,
}

/// A stopped server whose WAL lies in a repository and in a directory.
struct Archived {
    lifeboat: Lifeboat,
    spec: PathBuf,
    segments: usize,
    scratch: Scratch,
}

/// Measures and prints.
pub fn run(root: &Path) -> Result<()> {
    let archived = Archived::new(root)?;
    println!("\nreplay of {} segments, seconds of redo\n", archived.segments);
    let mut ratios = Vec::new();
    let mut order = [Place::Repository, Place::Directory];
    for number in 1..=PAIRS {
        let mut took = [0.0; 2];
        for from in order {
            took[from as usize] = archived.replay(from)?;
        }
        let [repository, directory] = took;
        println!("{number}: repository {repository:.2}, directory {directory:.2}");
        ratios.push(directory / repository);
        order.reverse();
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "speed from the repository / from the directory: {:.2} median of the pairs",
        percentile(&ratios, 50)
    );
    Ok(())
}

impl Archived {
    fn new(root: &Path) -> Result<Self> {
        let lifeboat = Lifeboat::of(&crate::demo::build(root)?)?;
        let scratch = Scratch::new()?;
        let spec = scratch.join("lifeboat.yaml");
        let local = scratch.folder("local")?;
        let push = format!(
            "cp %p {}/%f && {} --spec {} --here east wal push %p --db {DATABASE}",
            local.display(),
            lifeboat.program().display(),
            spec.display()
        );
        let mut source = Cluster::builder(DEBIAN_MAJOR)
            .setting("archive_mode = on")
            .setting(format!("archive_command = '{push}'"))
            .setting("max_wal_size = 8GB")
            .setting("checkpoint_timeout = 1h")
            .create()?;
        scratch.file("passphrase", "a passphrase for the bench\n")?;
        scratch::write(&spec, spec_text(&scratch.path().display().to_string(), &source))?;
        let ok = |words: &[&str]| {
            let global = ["--spec", &spec.to_string_lossy(), "--here", "east"].map(str::to_owned);
            let words = words.iter().map(|word| (*word).to_owned());
            lifeboat.ok(global.into_iter().chain(words)).map(drop)
        };
        ok(&["repo", "create"])?;
        source.start()?;
        source.pgbench(["-i", "-q", "-s", "20"])?;
        ok(&["backup", DATABASE])?;
        source.pgbench(["-n", "-c", "4", "-j", "2", "-t", TRANSACTIONS])?;
        source.psql("SELECT pg_switch_wal()")?;
        source.wait_for(
            "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'",
            "0",
        )?;
        source.stop(Stop::Fast)?;
        let segments = fs::read_dir(&local)?.count();
        Ok(Self { lifeboat, spec, segments, scratch })
    }

    /// Seconds between begin and end of redo, as the server logs them.
    fn replay(&self, from: Place) -> Result<f64> {
        let target = self.scratch.join("copy");
        let place = target.display().to_string();
        let global = ["--spec", &self.spec.to_string_lossy(), "--here", "east"].map(str::to_owned);
        let words = ["restore", DATABASE, "--to", &place, "--latest"].map(str::to_owned);
        self.lifeboat.ok(global.into_iter().chain(words))?;
        if from == Place::Directory {
            let local = self.scratch.join("local");
            let line = format!("restore_command = 'cp {}/%f %p'\n", local.display());
            let path = target.join("postgresql.auto.conf");
            let known = fs::read_to_string(&path)?;
            scratch::write(&path, format!("{known}\n{line}"))?;
        }
        let mut copy = Cluster::over(DEBIAN_MAJOR, &target)?;
        copy.start()?;
        copy.wait_for("SELECT pg_is_in_recovery()", "f")?;
        copy.stop(Stop::Immediate)?;
        let log = copy.log();
        drop(copy);
        let line =
            log.lines().find(|line| line.contains("redo done")).context("no redo was done")?;
        let elapsed = line.rsplit_once("elapsed: ").context("redo took no time")?.1;
        let seconds = elapsed.split(' ').next().unwrap_or_default().parse::<f64>()?;
        ensure!(seconds > 0.0, "there was nothing to replay: {line}");
        fs::remove_dir_all(&target)?;
        Ok(seconds)
    }
}

fn spec_text(here: &str, cluster: &Cluster) -> String {
    format!(
        "lifeboat: 1
state: {here}/state
regions:
  east: {{ repository: {{ url: \"file://{here}/east\" }} }}
encryption:
  slots:
    - passphrase: \"file:{here}/passphrase\"
tiers:
  bench: {{ rto: 1h, rpo: 1h }}
services:
  bench:
    tier: bench
    home: east
    databases:
      main:
        engine: postgres
        nodes:
          one: {{ region: east, data_directory: {data}, connection: \"{connection}\", bin_directory: {programs} }}
",
        data = cluster.data().display(),
        connection = cluster.connection(),
        programs = cluster.installation().bin().display(),
    )
}
