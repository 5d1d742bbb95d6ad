//! The proof: the md5 of every row, at the moment and after the restore.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Lines};

use anyhow::{Context, Result, bail};
use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::ledger::{TABLES, WEST};
use super::stage::Stage;

/// The moment to come back to.
pub struct Moment {
    /// When its transaction was committed, to the microsecond.
    pub time: String,
    /// Where the WAL was before it.
    pub before: String,
    /// Where the WAL was right after it.
    pub after: String,
}

/// Commits a row that marks the moment, and writes down what the ledger holds then.
///
/// The lock makes it exact while pgbench goes on: nobody commits between the rows that are read
/// here and the row that marks the moment.
pub fn note_moment(stage: &Stage) -> Result<Moment> {
    stage.folder("moment")?;
    let names = TABLES.map(|(table, _)| table).join(", ");
    let mut script = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ;
LOCK TABLE {names} IN SHARE MODE;
"
    );
    let (pgbench, marker) = TABLES.split_at(TABLES.len() - 1);
    script.push_str(&copies("moment", pgbench));
    script.push_str(
        "INSERT INTO moments VALUES (1, clock_timestamp(), pg_current_wal_insert_lsn())
    RETURNING lsn AS before \\gset
",
    );
    script.push_str(&copies("moment", marker));
    script.push_str(
        "SELECT pg_current_xact_id() AS xid \\gset
COMMIT;
SELECT to_char(pg_xact_commit_timestamp(:'xid'::xid) AT TIME ZONE 'UTC',
    'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS committed, pg_current_wal_insert_lsn() AS after \\gset
\\echo The moment was committed at :committed, in the WAL before :after.
\\o moment/point
\\qecho :committed :before :after
",
    );
    stage.file("moment.sql", &script)?;
    stage.show(&["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "ledger", "-f", "moment.sql"])?;
    let point = std::fs::read_to_string(stage.path("moment/point"))?;
    let mut words = point.split_whitespace().map(str::to_owned);
    let mut next = || words.next().context("psql noted no moment");
    Ok(Moment { time: next()?, before: next()?, after: next()? })
}

/// Writes down what the ledger holds now.
pub fn note_restored(stage: &Stage) -> Result<()> {
    stage.folder("restored")?;
    stage.file("restored.sql", &copies("restored", &TABLES))?;
    stage.show(&[
        "psql",
        "-X",
        "-v",
        "ON_ERROR_STOP=1",
        "-p",
        WEST,
        "ledger",
        "-f",
        "restored.sql",
    ])?;
    Ok(())
}

fn copies(folder: &str, tables: &[(&str, &str)]) -> String {
    tables
        .iter()
        .map(|(table, order)| {
            let rows = format!("SELECT md5(t::text) FROM {table} t ORDER BY {order}");
            format!("\\copy ({rows}) TO '{folder}/{table}'\n")
        })
        .collect()
}

/// Compares both notes row by row and prints what it found; the number of rows if all are equal.
pub fn compare(stage: &Stage) -> Result<u64> {
    let mut drawn = Table::new();
    drawn.load_style(NOTHING).set_header([
        "table",
        "rows at the moment",
        "rows restored",
        "rows that differ",
    ]);
    let (mut rows, mut wrong) = (0, 0);
    for (table, _) in TABLES {
        let counted =
            Counted::of(lines(stage, "moment", table)?, lines(stage, "restored", table)?)?;
        let Counted { before, after, differ } = counted;
        drawn.add_row([
            table.to_owned(),
            before.to_string(),
            after.to_string(),
            differ.to_string(),
        ]);
        rows += before;
        wrong += differ;
    }
    println!("{drawn}\n");
    if wrong > 0 {
        bail!("{wrong} of {rows} rows are not what they were at the moment");
    }
    Ok(rows)
}

type Notes = Lines<BufReader<File>>;

fn lines(stage: &Stage, folder: &str, table: &str) -> Result<Notes> {
    let path = stage.path(folder).join(table);
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(BufReader::new(file).lines())
}

#[derive(Debug, PartialEq, Eq)]
struct Counted {
    before: u64,
    after: u64,
    differ: u64,
}

impl Counted {
    fn of(
        mut before: impl Iterator<Item = io::Result<String>>,
        mut after: impl Iterator<Item = io::Result<String>>,
    ) -> Result<Self> {
        let mut counted = Self { before: 0, after: 0, differ: 0 };
        loop {
            let (old, new) = (before.next().transpose()?, after.next().transpose()?);
            if old.is_none() && new.is_none() {
                return Ok(counted);
            }
            counted.before += u64::from(old.is_some());
            counted.after += u64::from(new.is_some());
            counted.differ += u64::from(old != new);
        }
    }
}

#[cfg(test)]
mod tests;
