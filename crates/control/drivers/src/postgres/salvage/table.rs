//! A table on both sides.

use std::path::PathBuf;

/// What became of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// So many rows were inserted, updated and deleted since the fork.
    Differs {
        /// Only the old primary has them.
        inserted: u64,
        /// The old primary has other values.
        updated: u64,
        /// Only the state at the fork has them.
        deleted: u64,
    },
    /// It has no primary key, and its rows differ in number or content.
    WithoutKey,
    /// It could not be compared.
    Failed(String),
}

/// A table that differs, or could not be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SalvagedTable {
    /// The database.
    pub database: String,
    /// `schema.table`.
    pub name: String,
    /// What became of it.
    pub kind: Kind,
    /// The files with its rows.
    pub files: Vec<PathBuf>,
}

impl SalvagedTable {
    /// In words.
    pub fn text(&self) -> String {
        let Self { database, name, kind, .. } = self;
        match kind {
            Kind::Differs { inserted, updated, deleted } => format!(
                "{database} {name}: {inserted} rows inserted, {updated} updated, {deleted} deleted"
            ),
            Kind::WithoutKey => format!(
                "{database} {name}: differs, and has no primary key to tell its rows apart by"
            ),
            Kind::Failed(why) => format!("{database} {name}: could not be compared: {why}"),
        }
    }
}
