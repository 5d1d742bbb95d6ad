//! What was there before: so that it can be put back exactly, and nobody else's value is lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lifeboat_model::DatabaseId;
use lifeboat_telemetry::{Code, Failure, Outcome};
use serde::{Deserialize, Serialize};

use super::survey::Setting;
use crate::durable;

/// The setting as it was before the first `wal acknowledge`, and what was set since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// The cluster.
    pub system_identifier: String,
    /// The value that was found.
    pub before: String,
    /// Whether ALTER SYSTEM had set it; else it comes back when its line is taken out.
    pub by_alter_system: bool,
    /// Every value that was set since, in this order.
    pub set: Vec<String>,
}

impl Memory {
    /// Begins with what is there now.
    pub fn new(system_identifier: &str, now: &Setting) -> Self {
        Self {
            system_identifier: system_identifier.to_owned(),
            before: now.value.clone(),
            by_alter_system: now.by_alter_system,
            set: Vec::new(),
        }
    }

    /// Whether a value is Lifeboat's own, or still what it found.
    pub fn knows(&self, value: &str) -> bool {
        self.before == value || self.set.iter().any(|own| own == value)
    }

    /// Reads what this host remembers of a database.
    pub fn load(state: &Path, id: &DatabaseId) -> Outcome<Option<Self>> {
        let path = path(state, id);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(&path).because(error)),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| unusable(&path).because(error))
    }

    /// Keeps it, before the server is changed.
    pub fn save(&self, state: &Path, id: &DatabaseId) -> Outcome<()> {
        let path = path(state, id);
        let failure = |error: std::io::Error| unusable(&path).because(error);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failure)?;
        }
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Failure::new(Code::Internal, "cannot be kept").because(error))?;
        durable::write(&path, &bytes)
    }

    /// Forgets it, once what was before is back.
    pub fn forget(state: &Path, id: &DatabaseId) -> Outcome<()> {
        let path = path(state, id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(unusable(&path).because(error))
            }
            _ => Ok(()),
        }
    }

    /// Puts it together from the facts of audited acts, oldest first: for a host that never set
    /// it, or lost its state.
    pub fn of_acts<'a>(acts: impl Iterator<Item = &'a BTreeMap<String, String>>) -> Option<Self> {
        let mut memory: Option<Self> = None;
        for facts in acts {
            let fact = |name: &str| facts.get(name).cloned().unwrap_or_default();
            if facts.contains_key("undone") {
                memory = None;
                continue;
            }
            let known = memory.get_or_insert_with(|| Self {
                system_identifier: fact("system"),
                before: fact("before"),
                by_alter_system: fact("by_alter_system") == "true",
                set: Vec::new(),
            });
            known
                .set
                .extend(["between", "after"].iter().filter_map(|name| facts.get(*name).cloned()));
        }
        memory
    }
}

fn path(state: &Path, id: &DatabaseId) -> PathBuf {
    state.join("acknowledge").join(id.service.as_str()).join(format!("{}.json", id.database))
}

fn unusable(path: &Path) -> Failure {
    Failure::new(Code::LocalState, format!("cannot use {}", path.display()))
        .hint("It holds what synchronous_standby_names was before; the audit log has it too.")
}

#[cfg(test)]
mod tests;
