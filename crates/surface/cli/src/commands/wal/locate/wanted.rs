//! What a person looks for, in the words of SQL.

use lifeboat_model::spec::Database;
use lifeboat_repository::access::Access;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::changes::{Loss, LossKind};
use lifeboat_wal::connect::connect;

use crate::context::Context;

/// Kinds of losses, and perhaps one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    kinds: Vec<LossKind>,
    table: Option<Name>,
}

/// Which table.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Text(String),
    /// OIDs or file numbers.
    Numbers(Vec<u32>),
}

const ALL: [LossKind; 5] = [
    LossKind::Dropped,
    LossKind::Truncated,
    LossKind::Rewritten,
    LossKind::Deleted,
    LossKind::DatabaseDropped,
];

impl Wanted {
    /// Reads `drop table orders`, `delete`, `truncate 16402` and the like.
    pub fn parse(text: &str) -> Outcome<Self> {
        let text = text.trim().trim_end_matches(';').to_owned();
        let mut words = text.split_whitespace();
        let first = words.next().unwrap_or_default().to_lowercase();
        let mut kinds = match first.as_str() {
            "drop" => vec![LossKind::Dropped],
            "truncate" => vec![LossKind::Truncated],
            "delete" => vec![LossKind::Deleted],
            "rewrite" => vec![LossKind::Rewritten],
            "any" => ALL.to_vec(),
            _ => return Err(unknown(&text)),
        };
        let mut table = None;
        for word in words {
            match word.to_lowercase().as_str() {
                "database" => kinds = vec![LossKind::DatabaseDropped],
                "table" | "index" | "schema" | "view" | "from" | "only" | "if" | "exists" => {}
                folded if table.is_none() => {
                    // As SQL does, except where the name is quoted.
                    let quoted = word.contains('"').then(|| word.replace('"', ""));
                    table = Some(quoted.unwrap_or_else(|| folded.to_owned()));
                }
                // `where`, `cascade` and what else may follow the name.
                _ => break,
            }
        }
        let table = table.map(|name| match name.parse() {
            Ok(number) => Name::Numbers(vec![number]),
            Err(_) => Name::Text(name),
        });
        Ok(Self { kinds, table })
    }

    /// Asks the server for the numbers of a table that it still has. Without an answer every table
    /// is wanted.
    pub fn resolve(
        self,
        access: &Access<'_>,
        database: &Database,
        context: &Context,
    ) -> Outcome<Self> {
        let Some(Name::Text(name)) = &self.table else { return Ok(self) };
        let mut why = "no server of it could be asked".to_owned();
        for node in database.nodes.values() {
            let Ok(settings) = node.connection.resolve(access.environment) else { continue };
            match access.blocking.run(numbers(&settings, name)) {
                Ok(numbers) if !numbers.is_empty() => {
                    return Ok(Self { table: Some(Name::Numbers(numbers)), ..self });
                }
                Ok(_) => why = "the server does not know it any more".to_owned(),
                Err(failure) => why = failure.message().to_owned(),
            }
        }
        context.reporter.note(format!(
            "{name} cannot be told from other tables ({why}): all are listed; its OID, which a \
             restored copy knows, would tell it"
        ));
        Ok(Self { table: None, ..self })
    }

    /// Whether a loss is what is looked for.
    pub fn takes(&self, loss: &Loss) -> bool {
        let named = match &self.table {
            Some(Name::Numbers(numbers)) => {
                let files = loss.files.iter().map(|file| file.filenode);
                let tables = loss.tables.iter().flat_map(|(database, table)| match table {
                    0 => [*database, 0],
                    table => [*table, 0],
                });
                files.chain(tables).any(|number| numbers.contains(&number))
            }
            _ => true,
        };
        named && self.kinds.contains(&loss.kind)
    }
}

/// OIDs and file numbers of the tables of this name, in the database that the connection names.
async fn numbers(settings: &str, name: &str) -> Outcome<Vec<u32>> {
    const QUERY: &str = "SELECT c.oid, coalesce(pg_relation_filenode(c.oid), 0)::oid
                         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                         WHERE c.relname = $1::text AND $2::text IN ('', n.nspname)";
    let (schema, table) = name.rsplit_once('.').unwrap_or(("", name));
    let connection = connect(settings).await?;
    let rows = connection.patiently(connection.client().query(QUERY, &[&table, &schema])).await?;
    let rows = rows.map_err(|error| connection.failure_as(Code::ClusterUnreachable, &error))?;
    let numbers = rows.iter().flat_map(|row| [row.try_get(0), row.try_get(1)]);
    Ok(numbers.filter_map(Result::ok).filter(|number| *number > 0).collect())
}

fn unknown(text: &str) -> Failure {
    Failure::new(Code::Usage, format!("`{text}` is nothing that can be looked for"))
        .hint("Say drop, truncate, delete, rewrite, drop database or any; a table may follow.")
}

#[cfg(test)]
mod tests;
