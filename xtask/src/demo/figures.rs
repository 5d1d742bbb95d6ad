//! What was measured, beside what the spec demands.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use jiff::Timestamp;
use lifeboat_model::Lsn;
use lifeboat_telemetry::{bytes, duration, rate};
use serde_json::Value;

use super::proof::Moment;
use super::stage::Stage;

/// The objectives of the spec.
pub const RTO: Duration = Duration::from_secs(30 * 60);
/// See `RTO`.
pub const RPO: Duration = Duration::from_secs(5 * 60);

/// Collected on the way.
#[derive(Default)]
pub struct Figures {
    /// The command `backup`, from start to end.
    pub backup: Duration,
    /// The command `restore`.
    pub restore: Duration,
    /// `pg_ctl start`, until the server takes writes: mostly replay of WAL.
    pub recovery: Duration,
    /// From the kill to the first answer of the restored server.
    pub outage: Duration,
    /// When the server was killed.
    pub killed_at: Timestamp,
    /// Rows that were compared and are equal.
    pub rows: u64,
}

/// A commit in the WAL of the dead server.
struct Commit {
    lsn: Lsn,
    time: Timestamp,
}

/// Prints the table; an objective that was missed is an error.
pub fn tell(stage: &Stage, figures: &Figures, moment: &Moment) -> Result<()> {
    let backup = json(stage, &["backups", "list", "payments/ledger"])?;
    let backup = backup.pointer("/result/backups/0").context("no backup")?;
    let size = |name: &str| backup.get(name).and_then(Value::as_u64).unwrap_or_default();
    let (logical, stored) = (size("logical_bytes"), size("stored_bytes"));
    let archived = archived(stage)?;
    let commits = commits(stage, moment)?;
    let kept = commits.iter().rev().find(|commit| commit.lsn < archived);
    let kept = kept.context("no commit after the moment is in the archive")?;
    let lost = commits.iter().filter(|commit| commit.lsn >= archived).count();
    let point = Duration::try_from(figures.killed_at.duration_since(kept.time))?;
    let given_up = figures.killed_at.duration_since(moment.time.parse()?);

    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["", "measured", "objective", ""]);
    table.add_row(judged("RTO: from kill -9 to the first answer in the west", figures.outage, RTO));
    table.add_row(judged("RPO: newest commit in the west's archive, before the kill", point, RPO));
    let mut row = |name: &str, value: String| {
        table.add_row([name, &value]);
    };
    row("commits that no archive had yet", format!("{lost} of {}", commits.len()));
    row(
        "given up by choice, as it came after the moment",
        format!("{}, {} commits", duration(Duration::try_from(given_up)?), commits.len()),
    );
    row("rows compared with the moment", format!("{} of {0} are equal", figures.rows));
    row("size of the cluster", bytes(logical));
    row(
        "backup under load, into two regions",
        format!("{}, {}", duration(figures.backup), rate(logical, figures.backup)),
    );
    let share = 100.0 * stored as f64 / logical.max(1) as f64;
    row("stored in each region", format!("{} ({share:.0} %)", bytes(stored)));
    row("restore", format!("{}, {}", duration(figures.restore), rate(logical, figures.restore)));
    row("start and replay of the WAL up to the moment", duration(figures.recovery));
    println!("{table}\n");
    ensure!(figures.outage <= RTO && point <= RPO, "an objective was missed");
    Ok(())
}

/// A line of the table with its verdict.
pub fn judged(name: &str, measured: Duration, objective: Duration) -> [String; 4] {
    let verdict = if measured <= objective { "met" } else { "MISSED" };
    [name.to_owned(), duration(measured), duration(objective), verdict.to_owned()]
}

/// Where the west's archive ends.
fn archived(stage: &Stage) -> Result<Lsn> {
    let status = json(stage, &["wal", "status", "payments/ledger"])?;
    let regions = status.pointer("/result/incarnations/0/regions").and_then(Value::as_array);
    let mut regions = regions.into_iter().flatten();
    let west = regions.find(|region| region["region"] == "west").context("no region west")?;
    let end = west["window"][0]["to_lsn"].as_str().context("the window has no end")?;
    Ok(end.parse()?)
}

/// The document that a command prints; it may well end with 5, as the east is gone.
fn json(stage: &Stage, words: &[&str]) -> Result<Value> {
    let shell = ["lifeboat", "--spec", "lifeboat.yaml", "--here", "west", "--json"];
    stage.quiet(&[&shell, words].concat())?.json()
}

/// All commits after the moment that the dead server had on its disk.
fn commits(stage: &Stage, moment: &Moment) -> Result<Vec<Commit>> {
    let words = ["pg_waldump", "--path=evidence", "--rmgr=Transaction", "--start", &moment.before];
    // It ends with an error, at the torn end of the WAL.
    let said = stage.quiet(&words)?.stdout;
    let mut commits: Vec<Commit> = said.lines().filter_map(commit).collect();
    let time: Timestamp = moment.time.parse()?;
    commits.retain(|commit| commit.time > time);
    ensure!(!commits.is_empty(), "pg_waldump found no commit after the moment");
    Ok(commits)
}

fn commit(line: &str) -> Option<Commit> {
    let (_, lsn) = line.split_once("lsn: ")?;
    let (_, time) = line.split_once("COMMIT ")?;
    let (lsn, _) = lsn.split_once(',')?;
    let (time, _) = time.split_once(" UTC")?;
    Some(Commit {
        lsn: lsn.parse().ok()?,
        time: format!("{}Z", time.trim().replace(' ', "T")).parse().ok()?,
    })
}

#[cfg(test)]
mod tests;
