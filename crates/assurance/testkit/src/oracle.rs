//! Judges of a restored cluster that are not Lifeboat: PostgreSQL's own tools, and a comparison
//! of two data directories block by block.

mod compare;
mod mask;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use aws_lc_rs::digest::{SHA256, digest};

use crate::postgres::{Cluster, Installation};
use crate::process::run;
use crate::scratch::{self, Scratch};

pub use compare::{Comparison, compare};

/// `pg_verifybackup -n` accepts a data directory that was restored and never started.
pub fn verify_backup(installation: &Installation, data: &Path) -> Result<()> {
    if installation.major() < 17 {
        let mut command = installation.client_command("pg_verifybackup")?;
        run(command.arg("--no-parse-wal").arg(data))?.success()?;
        return Ok(());
    }
    // The packaged tool of 18 crashes and there is none of 17. That of 16 does the same work, but
    // knows only version 1 of the manifest, which lacks the system identifier.
    let manifest = fs::read_to_string(data.join("backup_manifest"))?;
    let older = first_version(&manifest, &system_identifier(data)?)?;
    let scratch = Scratch::new()?;
    let copy = scratch.file("backup_manifest", older)?;
    let mut command = Installation::find(16)?.client_command("pg_verifybackup")?;
    run(command.arg("--no-parse-wal").arg("--manifest-path").arg(copy).arg(data))?.success()?;
    Ok(())
}

/// `pg_checksums --check` finds no page with a wrong checksum. The server must be stopped.
pub fn checksums(installation: &Installation, data: &Path) -> Result<()> {
    if installation.major() == 17 {
        bail!("no pg_checksums of version 17 is packaged; use another version");
    }
    let mut command = installation.client_command("pg_checksums")?;
    run(command.args(["--check", "--pgdata"]).arg(data))?.success()?;
    Ok(())
}

/// amcheck finds every heap and B-tree sound, and every heap tuple in its indexes.
pub fn amcheck(cluster: &Cluster) -> Result<()> {
    if cluster.installation().major() == 13 {
        return amcheck_indexes(cluster);
    }
    let mut command = cluster.installation().client_command("pg_amcheck")?;
    command.args(["--all", "--install-missing", "--heapallindexed", "--jobs=2"]);
    command.env("PGHOST", cluster.sockets()).env("PGPORT", cluster.port().to_string());
    let finished = run(command.env("PGUSER", "postgres"))?.success()?;
    if !finished.stdout.is_empty() {
        bail!("{finished}");
    }
    Ok(())
}

/// pg_amcheck begins with version 14; the functions that it calls are older.
fn amcheck_indexes(cluster: &Cluster) -> Result<()> {
    let databases = cluster.psql("SELECT datname FROM pg_database WHERE datallowconn")?;
    for database in databases.lines() {
        cluster.psql_in(
            database,
            "SET client_min_messages = warning;
             CREATE EXTENSION IF NOT EXISTS amcheck;
             SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am a ON a.oid = c.relam
             JOIN pg_index i ON i.indexrelid = c.oid
             WHERE a.amname = 'btree' AND c.relkind = 'i' AND i.indisvalid
             AND c.relpersistence = 'p'",
        )?;
    }
    Ok(())
}

/// `pg_dumpall`, without what differs from run to run. Unlogged tables are left out, for a restore
/// empties them. A sequence may stand up to 32 values ahead after a recovery: its WAL does.
pub fn dump(cluster: &Cluster) -> Result<String> {
    let mut command = cluster.installation().client_command("pg_dumpall")?;
    command.arg("--no-unlogged-table-data").arg("--dbname").arg(cluster.connection());
    let text = run(&mut command)?.success()?.stdout;
    // Newer minor versions guard the script with a random word.
    let random = |line: &&str| line.starts_with("\\restrict") || line.starts_with("\\unrestrict");
    Ok(text.lines().filter(|line| !random(line)).collect::<Vec<_>>().join("\n"))
}

/// The first eight bytes of pg_control.
fn system_identifier(data: &Path) -> Result<String> {
    let control = fs::read(data.join("global/pg_control"))?;
    let bytes = control.first_chunk::<8>().context("pg_control is empty")?;
    Ok(u64::from_le_bytes(*bytes).to_string())
}

/// A manifest of version 2 as version 1, after checking what only version 2 holds.
fn first_version(manifest: &str, system_identifier: &str) -> Result<String> {
    let end = manifest.find("\"Manifest-Checksum\"").context("no Manifest-Checksum")?;
    let (content, last) = manifest.split_at(end);
    if !last.contains(&sum(content)) {
        bail!("the manifest's own checksum is wrong");
    }
    let version = "\"PostgreSQL-Backup-Manifest-Version\": 2,";
    let identifier = format!("\"System-Identifier\": {system_identifier},\n");
    if !content.contains(version) || !content.contains(&identifier) {
        bail!("the manifest is not of version 2 and system {system_identifier}");
    }
    let content = content.replacen(version, &version.replace('2', "1"), 1);
    let content = content.replacen(&identifier, "", 1);
    Ok(format!("{content}\"Manifest-Checksum\": \"{}\"}}\n", sum(&content)))
}

fn sum(text: &str) -> String {
    hex::encode(digest(&SHA256, text.as_bytes()))
}

/// Flips one bit of a file, for tests that expect damage to be found.
pub fn flip_bit(path: &Path, offset: u64) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let byte = usize::try_from(offset).ok().and_then(|offset| bytes.get_mut(offset));
    *byte.with_context(|| format!("{} ends before {offset}", path.display()))? ^= 1;
    scratch::write(path, bytes)
}

#[cfg(test)]
mod tests;
