//! What a receiver takes at 100 MB of WAL a second, fed from a recording.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_model::{SegmentName, SegmentSize};
use lifeboat_testkit::postgres::{Cluster, DEBIAN_MAJOR, Recording, Replay, Stop};
use lifeboat_testkit::process::wait_until;
use lifeboat_testkit::run::Lifeboat;
use lifeboat_testkit::scratch::{self, Scratch};
use nix::sys::signal::Signal;

use super::ground::{DATABASE, cpu_seconds, peak_bytes, spec_text};

const BYTES_PER_SECOND: u64 = 100_000_000;
/// Of recorded WAL, at that rate.
const SECONDS: u64 = 15;
const PEAK_BYTES_MAX: u64 = 64 << 20;
/// A rate is held if the end comes this late at most.
const LATE: f64 = 1.05;
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures and prints; fails where the peak is too high or the rate was not held.
pub fn run(root: &Path) -> Result<()> {
    let lifeboat = Lifeboat::of(&crate::demo::build(root)?)?;
    let scratch = Scratch::new()?;
    let mut cluster = Cluster::builder(DEBIAN_MAJOR)
        .setting("fsync = off")
        .setting("shared_buffers = 512MB")
        .setting("max_wal_size = 16GB")
        // The checkpoint at its end would remove what was recorded.
        .setting("wal_keep_size = 8GB")
        .setting("checkpoint_timeout = 1h")
        .setting("autovacuum = off")
        .tcp()
        .start()?;
    let recording = record(&mut cluster)?;
    let bytes = recording.segments.len() as u64 * recording.segment_bytes;
    let replay = Replay::start(recording, BYTES_PER_SECOND)?;
    let spec = scratch.join("lifeboat.yaml");
    scratch.file("passphrase", "a passphrase for the bench\n")?;
    let here = scratch.path().display().to_string();
    scratch::write(&spec, spec_text(&here, &cluster, replay.port()))?;
    let words = |region: &str, words: &[&str]| {
        let spec = spec.to_string_lossy().into_owned();
        let global = ["--spec", &spec, "--here", region];
        global.iter().chain(words).map(|word| (*word).to_owned()).collect::<Vec<_>>()
    };
    lifeboat.ok(words("east", &["repo", "create"]))?;

    let mut running = lifeboat.spawn(words("west", &["--quiet", "wal", "receive", DATABASE]))?;
    let begin = replay.sent();
    let mut wait = |until: u64| {
        let there =
            wait_until(PATIENCE, || Ok(!running.is_running()? || replay.acknowledged() >= until))?;
        ensure!(there && running.is_running()?, "the receiver does not receive");
        Ok(SystemClock.elapsed())
    };
    let began = wait(begin + 1)?;
    let took = wait(replay.end())?.saturating_sub(began).as_secs_f64();
    let (peak, cpu) = (peak_bytes(running.id())?, cpu_seconds(running.id())?);
    running.signal(Signal::SIGINT)?;
    running.wait(PATIENCE)?.success()?;

    let gigabytes = bytes as f64 / 1e9;
    println!(
        "{gigabytes:.2} GB of recorded WAL in {took:.1} s: {:.0} MB a second; peak {:.1} MiB, {:.2} \
         CPU s a GB",
        gigabytes * 1000.0 / took,
        peak as f64 / 1_048_576.0,
        cpu / gigabytes,
    );
    let due = bytes as f64 / BYTES_PER_SECOND as f64;
    ensure!(took <= due * LATE, "the rate was not held: {due:.1} s were due");
    ensure!(peak <= PEAK_BYTES_MAX, "more than {} MiB", PEAK_BYTES_MAX >> 20);
    Ok(())
}

/// Lets a server write WAL of rows and indexes, and stops it.
fn record(cluster: &mut Cluster) -> Result<Recording> {
    let size = SegmentSize::DEFAULT;
    let wanted = (BYTES_PER_SECOND * SECONDS).div_ceil(size.bytes());
    let current = |cluster: &Cluster| -> Result<SegmentName> {
        let name = cluster.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")?;
        name.parse().ok().with_context(|| format!("{name} is no segment"))
    };
    cluster.psql("CREATE TABLE more (id int PRIMARY KEY, body jsonb); SELECT pg_switch_wal()")?;
    let mut begin = 0;
    let first = current(cluster)?.next(size).context("no next segment")?;
    while current(cluster)?.number(size) < first.number(size) + wanted {
        eprintln!("bench: recording, {} of {wanted}", current(cluster)?);
        cluster.psql(&format!(
            "INSERT INTO more SELECT n, jsonb_build_object('customer', md5((n % 5000)::text),
                 'total', n * 7919 % 100000, 'state', (ARRAY['new', 'paid', 'sent'])[1 + n % 3],
                 'note', 'order ' || n || ' waits for the carrier, who comes on day ' || n % 7)
             FROM generate_series({begin}::bigint + 1, {begin} + 400000) AS n"
        ))?;
        begin += 400_000;
    }
    let system = cluster.psql("SELECT system_identifier FROM pg_control_system()")?;
    cluster.stop(Stop::Fast)?;
    let mut segments: Vec<PathBuf> = Vec::new();
    let mut name = first;
    for _ in 0..wanted {
        let path = cluster.data().join("pg_wal").join(name.to_string());
        if !path.exists() {
            bail!("{} is missing", path.display());
        }
        segments.push(path);
        name = name.next(size).context("no next segment")?;
    }
    Ok(Recording {
        segments,
        system: system.parse()?,
        start: first.start(size).context("no position")?.0,
        segment_bytes: size.bytes(),
    })
}
