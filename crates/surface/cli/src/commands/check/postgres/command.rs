//! What an archive_command says: whether it archives this database, and by which program and spec.

use std::path::Path;

use lifeboat_model::DatabaseId;
use lifeboat_model::spec::PostgresNode;

use crate::site::Site;

/// The call of `lifeboat … wal push` in an archive_command.
#[derive(Debug, PartialEq, Eq)]
pub struct PushCommand {
    program: String,
    spec: Option<String>,
    here: Option<String>,
    database: Option<String>,
}

impl PushCommand {
    /// Finds the call, also through a wrapper or beside another archiver.
    pub fn find(command: &str) -> Option<Self> {
        let words = shlex::split(command)?;
        let calls = words.split(|word| matches!(word.as_str(), "&&" | "||" | ";" | "|"));
        calls.into_iter().find_map(Self::of_call)
    }

    fn of_call(words: &[String]) -> Option<Self> {
        let is_program = |word: &String| {
            let name = word.rsplit('/').next().unwrap_or_default();
            name.contains("lifeboat") && !word.contains('=')
        };
        let start = words.iter().position(is_program)?;
        let (program, rest) = words.get(start..)?.split_first()?;
        rest.windows(2).find(|pair| pair[0] == "wal" && pair[1] == "push")?;
        let option = |name: &str| {
            let joined = format!("{name}=");
            let pairs = rest.iter().zip(rest.iter().skip(1).map(Some).chain([None]));
            pairs.into_iter().find_map(|(word, next)| match word.strip_prefix(&joined) {
                Some(value) => Some(value.to_owned()),
                None if word == name => next.cloned(),
                None => None,
            })
        };
        Some(Self {
            program: program.clone(),
            spec: option("--spec"),
            here: option("--here"),
            database: option("--db"),
        })
    }

    /// Why it does not archive this database's node, if it does not.
    pub fn trouble(&self, site: &Site<'_>, id: &DatabaseId, node: &PostgresNode) -> Option<String> {
        // PostgreSQL runs it in the data directory.
        let place = |path: &str| node.data_directory.join(path);
        // A bare name is found by the server's PATH, which nobody else knows.
        if self.program.contains('/') && !place(&self.program).exists() {
            return Some(format!("there is no program {}", self.program));
        }
        if let Some(spec) = &self.spec
            && !is_same(&place(spec), &site.origin)
        {
            return Some(format!("its spec is {spec}, this one is {}", site.origin.display()));
        }
        let other = |said: &Option<String>, wanted: &str| {
            said.as_ref().filter(|said| *said != wanted).cloned()
        };
        if let Some(database) = other(&self.database, &id.to_string()) {
            return Some(format!("it archives {database}, not {id}"));
        }
        other(&self.here, node.region.as_str())
            .map(|here| format!("it says region {here}, the node is in {}", node.region))
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    one.canonicalize().is_ok_and(|one| one == other)
}

#[cfg(test)]
mod tests;
