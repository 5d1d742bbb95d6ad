//! A table whose rows say which state a copy is in, and the points in time that were noted.

use anyhow::{Context, Result, ensure};
use lifeboat_testkit::postgres::Cluster;

/// A state of the ledger, and every name by which one can ask for it.
#[derive(Debug, Clone)]
pub struct Point {
    /// Rows so far.
    pub rows: u64,
    /// The moment right after the commit, RFC 3339 in UTC.
    pub time: String,
    /// The transaction that wrote the last row.
    pub xid: String,
    /// The position right after the commit.
    pub lsn: String,
    /// The restore point made right after the commit.
    pub name: String,
    /// The content.
    pub digest: String,
}

/// Makes the ledger.
pub fn create(cluster: &Cluster) -> Result<()> {
    cluster.psql(
        "CREATE TABLE ledger (id int PRIMARY KEY, previous text NOT NULL, payload text NOT NULL)",
    )?;
    Ok(())
}

/// Adds one transaction of ten rows, each of which names the hash of the one before.
pub fn append(cluster: &Cluster) -> Result<Point> {
    let xid = cluster.psql(
        "BEGIN; SELECT pg_current_xact_id();
         INSERT INTO ledger SELECT
           n + coalesce((SELECT max(id) FROM ledger), 0),
           coalesce((SELECT md5(l::text) FROM ledger l ORDER BY id DESC LIMIT 1), ''),
           repeat(md5(random()::text), 20)
         FROM generate_series(1, 10) AS n;
         COMMIT",
    )?;
    // Apart from the next commit, which a time must be able to exclude.
    let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
               pg_current_wal_insert_lsn() FROM pg_sleep(0.05)";
    let noted = cluster.psql(now)?;
    let (time, lsn) = noted.split_once('|').context("no time")?;
    let (rows, digest) = state(cluster)?;
    // No two alike, also on another timeline.
    let name = format!("after-{rows}-at-{time}");
    cluster.psql(&format!("SELECT pg_create_restore_point('{name}'), pg_sleep(0.05)"))?;
    Ok(Point { rows, time: time.to_owned(), xid, lsn: lsn.to_owned(), name, digest })
}

/// Rows and content.
pub fn state(cluster: &Cluster) -> Result<(u64, String)> {
    let found = cluster.psql(
        "SELECT count(*), md5(coalesce(string_agg(l::text, ',' ORDER BY id), '')) FROM ledger l",
    )?;
    let (rows, digest) = found.split_once('|').context("no state")?;
    Ok((rows.parse()?, digest.to_owned()))
}

/// A copy must be in exactly the state of a point.
pub fn is_at(copy: &Cluster, point: &Point) -> Result<()> {
    let (rows, digest) = state(copy)?;
    ensure!(rows == point.rows, "{rows} rows, expected {}", point.rows);
    ensure!(digest == point.digest, "the rows differ");
    Ok(())
}
