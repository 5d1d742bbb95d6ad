//! The server of the story: a real PostgreSQL with checksums that archives with Lifeboat.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use lifeboat_testkit::process::{Running, kill_tree, tree};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::stage::Stage;

/// The tables, and what puts their rows into an order.
pub const TABLES: [(&str, &str); 5] = [
    ("pgbench_accounts", "aid"),
    ("pgbench_branches", "bid"),
    ("pgbench_tellers", "tid"),
    ("pgbench_history", "t::text"),
    ("moments", "id"),
];

/// The port of the server in the east. There is no TCP: a port only names a socket.
pub const EAST: &str = "5432";
/// The port of the server in the west.
pub const WEST: &str = "5433";

/// pgbench's size: 2 million accounts, about 300 MiB.
const SCALE: &str = "20";

/// Makes the cluster and fills it.
pub fn create(stage: &Stage) -> Result<()> {
    stage.brief(&[
        "initdb",
        "--pgdata=east/data",
        "--data-checksums",
        "--auth=trust",
        "--username=postgres",
        "--no-sync",
    ])?;
    let path = "east/data/postgresql.conf";
    let defaults = fs::read_to_string(stage.path(path))?;
    let settings = settings(stage);
    stage.note(&format!("postgresql.conf, at its end:\n\n{settings}"));
    stage.file(path, &format!("{defaults}\n{settings}"))?;
    start(stage, "east", EAST)?;
    stage.brief(&["createdb", "ledger"])?;
    stage.brief(&["pgbench", "--initialize", "--quiet", "--scale", SCALE, "ledger"])?;
    stage.ask(EAST, "CREATE TABLE moments (id int PRIMARY KEY, at timestamptz, lsn pg_lsn)")?;
    stage.show(&["psql", "-X", "ledger", "-c", r"\dt+ pgbench_*"])?;
    Ok(())
}

/// What a server needs to be protected, and two lines for the story's sake: shared memory in files
/// goes away with the data directory, also after kill -9, and commit times make the proof exact.
fn settings(stage: &Stage) -> String {
    format!(
        "listen_addresses = ''
unix_socket_directories = '{}'
dynamic_shared_memory_type = mmap
track_commit_timestamp = on
max_wal_size = 4GB
archive_mode = on
archive_timeout = 60s
",
        stage.path("run").display()
    )
}

/// Lets the server archive with Lifeboat, and waits until it has begun to.
pub fn archive(stage: &Stage) -> Result<()> {
    let command = format!(
        "{} --spec {} --here east wal push \"%p\" --db payments/ledger",
        stage.path("bin/lifeboat").display(),
        stage.path("lifeboat.yaml").display(),
    );
    let alter = format!("ALTER SYSTEM SET archive_command = '{command}'");
    stage.show(&["psql", "-X", "ledger", "-c", &alter])?;
    stage.show(&["psql", "-X", "ledger", "-c", "SELECT pg_reload_conf(), pg_switch_wal()"])?;
    let waiting = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'";
    stage.wait_until("archiving", || Ok(stage.ask(EAST, waiting)? == "0"))
}

/// Starts a server in a region, the way everybody does, and waits until it answers.
pub fn start(stage: &Stage, region: &str, port: &str) -> Result<()> {
    let (data, log) = (format!("{region}/data"), format!("{region}/server.log"));
    stage.show(&[
        "pg_ctl",
        "-D",
        &data,
        "-l",
        &log,
        "-o",
        &format!("-p {port}"),
        "-w",
        "-t",
        "600",
        "start",
    ])?;
    Ok(())
}

/// Starts pgbench as load without end.
pub fn load(stage: &Stage) -> Result<Running> {
    let words = ["pgbench", "--client=4", "--jobs=2", "--no-vacuum", "--time=3600", "ledger"];
    stage.echo(&format!("{} &", words.join(" ")));
    stage.background(&words)
}

/// Kills every process of a server at once, as a power cut does.
pub fn kill(stage: &Stage, data: &str) -> Result<()> {
    let pid = pid(stage, data).context("the server does not run")?;
    let all = tree(pid);
    let words: Vec<String> = all.iter().map(ToString::to_string).collect();
    stage.echo(&format!("kill -9 {}", words.join(" ")));
    kill_tree(pid);
    for pid in all {
        // They are children of ours now, or gone.
        let _ = waitpid(pid, None);
    }
    remove_segment(stage, data);
    Ok(())
}

/// Stops a server, if there is one.
pub fn stop(stage: &Stage, data: &str) {
    let Some(pid) = pid(stage, data) else { return };
    let words = ["pg_ctl", "-D", data, "-m", "immediate", "-w", "-t", "20", "stop"];
    if !stage.quiet(&words).is_ok_and(|stopped| stopped.code == Some(0)) {
        kill_tree(pid);
        remove_segment(stage, data);
    }
}

fn pid(stage: &Stage, data: &str) -> Option<Pid> {
    let text = fs::read_to_string(stage.path(data).join("postmaster.pid")).ok()?;
    Some(Pid::from_raw(text.lines().next()?.trim().parse().ok()?))
}

/// A killed server leaves a few bytes of shared memory in the kernel, named in its pid file.
fn remove_segment(stage: &Stage, data: &str) {
    let text = fs::read_to_string(stage.path(data).join("postmaster.pid")).unwrap_or_default();
    let segment = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1));
    if let Some(segment) = segment {
        let _ = stage.quiet(&["ipcrm", "--shmem-id", segment]);
    }
}

/// Whether the load still runs; it must not have ended by itself.
pub fn assert_running(load: &mut Running) -> Result<()> {
    anyhow::ensure!(load.is_running()?, "pgbench ended too early");
    Ok(())
}

/// Waits while the load writes.
pub fn write_for(stage: &Stage, time: Duration) -> Result<()> {
    use lifeboat_environment::{Clock, SystemClock};
    let end = SystemClock.elapsed() + time;
    while SystemClock.elapsed() < end {
        stage.check()?;
        SystemClock.sleep(Duration::from_millis(100));
    }
    Ok(())
}
