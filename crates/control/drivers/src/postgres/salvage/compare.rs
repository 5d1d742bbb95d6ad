//! Two servers, table by table: both give their rows in the order of the primary key, and whoever
//! is behind is asked for the next one. Memory is that of some rows.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use lifeboat_objects::Blocking;
use lifeboat_telemetry::Outcome;
use lifeboat_wal::connect::Connection;
use tokio_postgres::SimpleQueryRow;

use super::super::session::{self, text};
use super::Salvaging;
use super::csv::Rows;
use super::sandbox::Sandbox;
use super::table::{Kind, SalvagedTable};

/// Rows that are asked for at once.
const AT_ONCE: usize = 500;

const DATABASES: &str = "
    SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname";

/// Permanent tables with rows of their own. Lifeboat's own table says nothing of the service.
const TABLES: &str = r#"
    SELECT n.nspname::text, c.relname::text,
      (SELECT string_agg(quote_ident(a.attname), chr(1) ORDER BY k.place)
       FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (number, place)
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
       WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts),
      (SELECT string_agg(quote_ident(a.attname), chr(1) ORDER BY a.attnum) FROM pg_attribute a
       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
      quote_ident(n.nspname) || '.' || quote_ident(c.relname),
      pg_encoding_to_char((SELECT encoding FROM pg_database WHERE datname = current_database()))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence = 'p'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'lifeboat')
      AND n.nspname !~ '^pg_toast'
    ORDER BY 1, 2"#;

/// A table as one side has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table {
    name: String,
    quoted: String,
    key: Vec<String>,
    columns: Vec<String>,
    utf8: bool,
}

/// Compares everything. What differs, and how many tables do not.
pub(super) fn all(
    salvaging: &Salvaging<'_>,
    before: &mut Sandbox,
    after: &mut Sandbox,
    folder: &Path,
) -> Outcome<(Vec<SalvagedTable>, usize)> {
    let blocking = salvaging.access.blocking;
    let list = |sandbox: &mut Sandbox| -> Outcome<BTreeSet<String>> {
        let session = sandbox.session(salvaging, "template1")?;
        let rows = blocking.run(session::rows(&session, DATABASES))?;
        Ok(rows.iter().filter_map(|row| text(row, 0).map(str::to_owned)).collect())
    };
    let (old, new) = (list(before)?, list(after)?);
    let (mut differ, mut same) = (Vec::new(), 0);
    for database in old.union(&new) {
        if !(old.contains(database) && new.contains(database)) {
            let why = match new.contains(database) {
                true => "the database was made after the fork",
                false => "the database was dropped after the fork",
            };
            let (name, kind) = ("*".to_owned(), Kind::Failed(why.to_owned()));
            differ.push(SalvagedTable {
                database: database.clone(),
                name,
                kind,
                files: Vec::new(),
            });
            continue;
        }
        salvaging.reporter.note(format!("comparing database {database}"));
        let sessions = (before.session(salvaging, database)?, after.session(salvaging, database)?);
        let side = Sides { blocking, before: &sessions.0, after: &sessions.1 };
        same += side.database(salvaging, database, folder, &mut differ)?;
    }
    Ok((differ, same))
}

struct Sides<'a> {
    blocking: &'a Blocking,
    before: &'a Connection,
    after: &'a Connection,
}

impl Sides<'_> {
    fn database(
        &self,
        salvaging: &Salvaging<'_>,
        database: &str,
        folder: &Path,
        differ: &mut Vec<SalvagedTable>,
    ) -> Outcome<usize> {
        let (old, new) = (self.tables(self.before)?, self.tables(self.after)?);
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let mut same = 0;
        for name in names {
            salvaging.cancel.check()?;
            let compared = self.table(old.get(name), new.get(name), database, folder);
            let (kind, files) = match compared {
                Ok(None) => {
                    same += 1;
                    continue;
                }
                Ok(Some(found)) => found,
                // One table must not hide the others.
                Err(failure) => (Kind::Failed(failure.full_message()), Vec::new()),
            };
            let (database, name) = (database.to_owned(), name.clone());
            differ.push(SalvagedTable { database, name, kind, files });
        }
        Ok(same)
    }

    fn tables(&self, session: &Connection) -> Outcome<BTreeMap<String, Table>> {
        let rows = self.blocking.run(session::rows(session, TABLES))?;
        let words = |row: &SimpleQueryRow, column: usize| -> Vec<String> {
            let list = text(row, column).unwrap_or_default();
            list.split('\u{1}').filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        let table = |row: &SimpleQueryRow| {
            let name = format!("{}.{}", text(row, 0)?, text(row, 1)?);
            let quoted = text(row, 4)?.to_owned();
            let (key, columns) = (words(row, 2), words(row, 3));
            let utf8 = text(row, 5) == Some("UTF8");
            Some((name.clone(), Table { name, quoted, key, columns, utf8 }))
        };
        Ok(rows.iter().filter_map(table).collect())
    }

    fn table(
        &self,
        old: Option<&Table>,
        new: Option<&Table>,
        database: &str,
        folder: &Path,
    ) -> Outcome<Option<(Kind, Vec<std::path::PathBuf>)>> {
        let Some(one) = new.or(old) else { return Ok(None) };
        if one.key.is_empty() || old.is_some_and(|old| old.key.is_empty()) {
            return Ok(self.keyless(old, new)?.then(|| (Kind::WithoutKey, Vec::new())));
        }
        if let (Some(old), Some(new)) = (old, new)
            && old.key != new.key
        {
            let why = "its primary key was changed after the fork".to_owned();
            return Ok(Some((Kind::Failed(why), Vec::new())));
        }
        let path = |what: &str| {
            let name = format!("{database}.{}.{what}.csv", one.name);
            folder.join(name.replace(['/', '\0'], "_"))
        };
        let rows = |what: &str| Rows::new(path(what), &plain(&one.columns));
        let mut inserted = rows("inserted");
        let mut updated = rows("updated");
        let mut deleted = Rows::new(path("deleted"), &plain(&old.unwrap_or(one).columns));
        let mut left = Reader::open(self.blocking, self.before, old)?;
        let mut right = Reader::open(self.blocking, self.after, new)?;
        loop {
            let order = match (left.peek()?, right.peek()?) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.key().cmp(new.key()),
            };
            match order {
                Ordering::Less => deleted.push(left.take()?.values())?,
                Ordering::Greater => inserted.push(right.take()?.values())?,
                Ordering::Equal => {
                    let (old, new) = (left.take()?, right.take()?);
                    if !old.values().eq(new.values()) {
                        updated.push(new.values())?;
                    }
                }
            }
        }
        left.close()?;
        right.close()?;
        let kind = Kind::Differs {
            inserted: inserted.count,
            updated: updated.count,
            deleted: deleted.count,
        };
        let nothing = Kind::Differs { inserted: 0, updated: 0, deleted: 0 };
        let mut files = Vec::new();
        for rows in [inserted, updated, deleted] {
            files.extend(rows.finish()?);
        }
        Ok((kind != nothing).then_some((kind, files)))
    }

    /// Whether a table without a primary key differs: by the number of its rows and the sum of
    /// what they hold, in whatever order.
    fn keyless(&self, old: Option<&Table>, new: Option<&Table>) -> Outcome<bool> {
        let sum = |session: &Connection, table: &Table| -> Outcome<Option<String>> {
            let sql = format!(
                "SELECT count(*) || ' ' || coalesce(sum(hashtextextended(it::text, 0)::numeric), 0)
                 FROM {} it",
                table.quoted
            );
            let rows = self.blocking.run(session::rows(session, &sql))?;
            Ok(rows.first().and_then(|row| text(row, 0)).map(str::to_owned))
        };
        match (old, new) {
            (Some(old), Some(new)) => Ok(sum(self.before, old)? != sum(self.after, new)?),
            _ => Ok(true),
        }
    }
}

/// Names without the quotes that SQL needs.
fn plain(columns: &[String]) -> Vec<String> {
    let bare = |name: &String| match name.strip_prefix('"').and_then(|it| it.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => name.clone(),
    };
    columns.iter().map(bare).collect()
}

/// The rows of a table, in the order of its key as text.
struct Reader<'a> {
    blocking: &'a Blocking,
    session: &'a Connection,
    keys: usize,
    /// The next row is the last one.
    waiting: Vec<Row>,
    open: bool,
}

/// A row: first its key, then its columns.
struct Row {
    values: Vec<Option<String>>,
    keys: usize,
}

impl Row {
    fn key(&self) -> &[Option<String>] {
        self.values.get(..self.keys).unwrap_or_default()
    }

    fn values(&self) -> impl Iterator<Item = Option<&str>> {
        self.values.iter().skip(self.keys).map(Option::as_deref)
    }
}

impl<'a> Reader<'a> {
    fn open(
        blocking: &'a Blocking,
        session: &'a Connection,
        table: Option<&Table>,
    ) -> Outcome<Self> {
        let keys = table.map_or(0, |table| table.key.len());
        let reader = Self { blocking, session, keys, waiting: Vec::new(), open: table.is_some() };
        let Some(table) = table else { return Ok(reader) };
        let texts = |names: &[String]| -> Vec<String> {
            names.iter().map(|name| format!("{name}::text")).collect()
        };
        // Bytes of UTF-8, as they are compared here.
        let order = table.key.iter().map(|name| match table.utf8 {
            true => format!("{name}::text COLLATE \"C\""),
            false => format!("convert_to({name}::text, 'UTF8')"),
        });
        let order: Vec<String> = order.collect();
        let columns = [texts(&table.key), texts(&table.columns)].concat().join(", ");
        let sql = format!(
            "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;
             DECLARE salvage NO SCROLL CURSOR FOR SELECT {columns} FROM ONLY {} ORDER BY {}",
            table.quoted,
            order.join(", ")
        );
        reader.blocking.run(session::rows(session, &sql))?;
        Ok(reader)
    }

    fn peek(&mut self) -> Outcome<Option<&Row>> {
        if self.waiting.is_empty() && self.open {
            let fetch = format!("FETCH {AT_ONCE} FROM salvage");
            let rows = self.blocking.run(session::rows(self.session, &fetch))?;
            let row = |row: &SimpleQueryRow| {
                let values = (0..row.len()).map(|column| text(row, column).map(str::to_owned));
                Row { values: values.collect(), keys: self.keys }
            };
            self.waiting = rows.iter().rev().map(row).collect();
            self.open = !rows.is_empty();
        }
        Ok(self.waiting.last())
    }

    fn take(&mut self) -> Outcome<Row> {
        self.peek()?;
        Ok(self.waiting.pop().unwrap_or(Row { values: Vec::new(), keys: 0 }))
    }

    fn close(self) -> Outcome<()> {
        match self.keys {
            0 => Ok(()),
            _ => self.blocking.run(session::rows(self.session, "ROLLBACK")).map(drop),
        }
    }
}
