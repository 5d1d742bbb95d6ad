//! Configuration that lies outside the data directory, as Debian's clusters keep it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use lifeboat_cluster::files::{Entry, Kind};
use lifeboat_cluster::settings::{named_lists, plain_path};
use lifeboat_repository::manifest::OutsideFile;
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::source::Source;

/// Files above this size are no configuration.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// As deep as PostgreSQL follows includes.
const DEEPEST: usize = 10;

/// Files of access rules that other files include; only these versions have such includes.
const INCLUDED_RULES: &str = "
    SELECT DISTINCT file_name FROM pg_hba_file_rules WHERE file_name <> ''
    UNION SELECT DISTINCT file_name FROM pg_ident_file_mappings WHERE file_name <> ''";

/// The configuration files outside `data_directory`, with their roles.
pub async fn list(
    source: &Source,
    data_directory: &Path,
) -> Outcome<(Vec<Entry>, Vec<OutsideFile>)> {
    let facts = source.facts();
    let mut files: BTreeMap<PathBuf, &str> = BTreeMap::new();
    let mut rules: Vec<PathBuf> = Vec::new();
    for path in &facts.included_files {
        files.insert(path.clone(), "include");
    }
    if facts.major() >= 16 {
        let rows = source.connection().rows(INCLUDED_RULES, &[]).await;
        for row in rows.unwrap_or_default() {
            let path = PathBuf::from(row.get::<_, String>(0));
            files.insert(path.clone(), "include");
            rules.push(path);
        }
    }
    for (role, path) in &facts.config_files {
        files.insert(path.clone(), role);
        rules.extend((role != "config_file").then(|| path.clone()));
    }
    for path in rules {
        add_lists(&path, &mut files, 0);
    }
    let mut entries = Vec::new();
    let mut outside = Vec::new();
    for (path, role) in files {
        let inside = path.canonicalize().ok().is_some_and(|true_path| {
            data_directory.canonicalize().is_ok_and(|root| true_path.starts_with(root))
        });
        let Some(shown) = path.to_str() else { continue };
        if inside || !path.is_absolute() {
            continue;
        }
        entries.push(entry(&path)?);
        outside.push(OutsideFile { role: role.to_owned(), path: shown.to_owned() });
    }
    Ok((entries, outside))
}

/// Adds the lists of names that a file of rules, or another list, reads in with `@`.
fn add_lists(path: &Path, files: &mut BTreeMap<PathBuf, &str>, depth: usize) {
    // What cannot be read is named when its turn comes to be stored.
    let small = std::fs::metadata(path).is_ok_and(|found| found.len() <= FILE_BYTES_MAX);
    let Some(text) = small.then(|| std::fs::read(path).ok()).flatten() else {
        return;
    };
    let folder = path.parent().unwrap_or(path);
    for line in text.split(|byte| *byte == b'\n') {
        for list in named_lists(line) {
            let list = plain_path(&folder.join(list.file));
            // A missing one is the server's to complain of.
            if depth < DEEPEST && list.is_file() && !files.contains_key(&list) {
                files.insert(list.clone(), "include");
                add_lists(&list, files, depth + 1);
            }
        }
    }
}

fn entry(path: &Path) -> Outcome<Entry> {
    let unreadable = || {
        Failure::new(Code::SourceFileUnreadable, format!("cannot read {}", path.display()))
            .hint("The configuration belongs to the backup: let this user read it.")
    };
    let found = std::fs::metadata(path).map_err(|error| unreadable().because(error))?;
    if !found.is_file() || found.len() > FILE_BYTES_MAX {
        return Err(unreadable().because("it is no configuration file"));
    }
    Ok(Entry {
        path: path.to_owned(),
        kind: Kind::Config,
        size: found.len(),
        mode: found.mode() & 0o7777,
        modified: Timestamp::from_second(found.mtime()).unwrap_or_default(),
    })
}
