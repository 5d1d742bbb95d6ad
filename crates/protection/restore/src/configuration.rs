//! Configuration: what lay outside the data directory comes to lie in the target, and nothing in
//! it points back to the old place. The machine's own files are never touched.
//!
//! The originals lie under `lifeboat.configuration/` with their old absolute paths, so that
//! includes between them keep working; `postgresql.conf`, `pg_hba.conf` and `pg_ident.conf` are
//! copied to where a server looks for them by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lifeboat_cluster::settings;
use lifeboat_repository::manifest::Description;
use lifeboat_telemetry::Outcome;

use crate::table::CONFIGURATION;
use crate::target::Target;
use crate::{local, strays};

/// Configuration is read whole.
pub(crate) const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// As deep as PostgreSQL follows includes.
const DEEPEST: usize = 10;

/// Settings that would lead a server away from the target.
const PLACES: [&str; 5] =
    ["data_directory", "config_file", "hba_file", "ident_file", "external_pid_file"];
/// Settings of an earlier time as a standby.
const STANDBY: [&str; 5] = [
    "primary_conninfo",
    "primary_slot_name",
    "recovery_min_apply_delay",
    "promote_trigger_file",
    "trigger_file",
];

/// Files whose content is not that of the backup.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// Length and CRC-32C, by path below the target.
    pub files: BTreeMap<Vec<u8>, (u64, u32)>,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl Changed {
    /// Writes a file and remembers what it holds.
    pub(crate) fn write(&mut self, target: &Target, path: &str, bytes: &[u8]) -> Outcome<()> {
        target.write(path.as_bytes(), bytes, 0o600)?;
        self.remember(path, bytes);
        Ok(())
    }

    /// Remembers what a file holds that somebody else wrote.
    pub(crate) fn remember(&mut self, path: &str, bytes: &[u8]) {
        self.files.insert(path.into(), (bytes.len() as u64, crc32c::crc32c(bytes)));
    }
}

/// Settings of earlier recoveries and standbys: PostgreSQL refuses two recovery targets.
pub(crate) fn leftovers() -> Vec<&'static str> {
    [settings::recovery_names(), &STANDBY].concat()
}

/// Brings the configuration into the target.
pub(crate) fn bring(target: &Target, description: &Description) -> Outcome<Changed> {
    let outside = |role: &str| {
        description.outside.iter().find(|file| file.role == role).map(|file| Path::new(&file.path))
    };
    let mut rewrite = Rewrite {
        target,
        old_data: PathBuf::from(&description.cluster.data_directory),
        seen: BTreeSet::new(),
        changed: Changed::default(),
    };
    let old_main = match outside("config_file") {
        Some(path) => {
            rewrite.copy(path, "postgresql.conf")?;
            path.to_owned()
        }
        None => rewrite.old_data.join("postgresql.conf"),
    };
    rewrite.file(Syntax::Settings, "postgresql.conf", &old_main, 0)?;
    for (role, name) in [("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")] {
        let old = match outside(role) {
            Some(path) => {
                rewrite.copy(path, name)?;
                path.to_owned()
            }
            None => rewrite.old_data.join(name),
        };
        rewrite.file(Syntax::Rules, name, &old, 0)?;
    }
    Ok(rewrite.changed)
}

/// Which syntax a file has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Syntax {
    /// `postgresql.conf`.
    Settings,
    /// `pg_hba.conf`, `pg_ident.conf`; from 16 on with includes.
    Rules,
}

struct Rewrite<'a> {
    target: &'a Target,
    old_data: PathBuf,
    seen: BTreeSet<String>,
    changed: Changed,
}

impl Rewrite<'_> {
    /// Copies a stored file to where the server looks for it.
    fn copy(&mut self, old: &Path, name: &str) -> Outcome<()> {
        match self.read(&self.place_of(old))? {
            Some(bytes) => self.changed.write(self.target, name, &bytes),
            None => {
                self.note(format!("{} is not in the backup; write {name} anew", old.display()));
                Ok(())
            }
        }
    }

    /// Rewrites a file, which was at `old`, and those that it includes.
    fn file(&mut self, syntax: Syntax, path: &str, old: &Path, depth: usize) -> Outcome<()> {
        if depth > DEEPEST || !self.seen.insert(path.to_owned()) {
            return Ok(());
        }
        let Some(before) = self.read(path)? else {
            return Ok(());
        };
        let commented = match syntax {
            Syntax::Settings => {
                let names = [leftovers().as_slice(), &PLACES].concat();
                if settings::is_guarded(&before) {
                    self.note(format!(
                        "{} could be started below a guard only; the copy can be started by \
                         everybody until `lifeboat guard manage` is run",
                        old.display()
                    ));
                }
                settings::comment_out(&settings::unguarded(&before), &names)
            }
            Syntax::Rules => before.clone(),
        };
        let mut after = Vec::with_capacity(commented.len());
        for line in commented.split_inclusive(|byte| *byte == b'\n') {
            match include_in(syntax, line) {
                Some((name, value)) => {
                    let line = self.include(syntax, (&name, &value), (path, old), depth, line)?;
                    after.extend_from_slice(&line);
                }
                None if syntax == Syntax::Rules => {
                    after.extend_from_slice(&self.lists((path, old), depth, line)?);
                }
                None => after.extend_from_slice(line),
            }
        }
        if after == before { Ok(()) } else { self.changed.write(self.target, path, &after) }
    }

    /// Follows an include and gives the line that stands for it in the target.
    fn include(
        &mut self,
        syntax: Syntax,
        (name, value): (&str, &str),
        (path, old): (&str, &Path),
        depth: usize,
        line: &[u8],
    ) -> Outcome<Vec<u8>> {
        let was = settings::plain_path(&old.parent().unwrap_or_else(|| Path::new("/")).join(value));
        let place = self.place_of(&was);
        if name == "include_dir" {
            // A server refuses to start without the directory; an empty one will do.
            self.make_directories(&place)?;
            for file in self.configuration_files(&place)? {
                self.file(syntax, &format!("{place}/{file}"), &was.join(&file), depth + 1)?;
            }
        } else if self.exists(&place)? {
            self.file(syntax, &place, &was, depth + 1)?;
        } else if name == "include" {
            self.note(format!("{} is not in the backup: its include is left out", was.display()));
            return Ok([b"#", line].concat());
        }
        Ok(match (self.new_name(path, value, place), syntax) {
            (None, _) => line.to_vec(),
            (Some(new), Syntax::Settings) => {
                format!("{name} {}\n", settings::quote(&new)).into_bytes()
            }
            (Some(new), Syntax::Rules) => format!("{name} \"{new}\"\n").into_bytes(),
        })
    }

    /// Follows the lists of names that a rule reads in, and gives the line with their new places.
    fn lists(&mut self, (path, old): (&str, &Path), depth: usize, line: &[u8]) -> Outcome<Vec<u8>> {
        let mut after = line.to_vec();
        let folder = old.parent().unwrap_or_else(|| Path::new("/"));
        // From the last one on, so that the places of the others stay right.
        for list in settings::named_lists(line).into_iter().rev() {
            let was = settings::plain_path(&folder.join(&list.file));
            let place = self.place_of(&was);
            if !self.exists(&place)? {
                self.note(format!("{} is not in the backup: write it anew", was.display()));
                continue;
            }
            self.file(Syntax::Rules, &place, &was, depth + 1)?;
            if let Some(new) = self.new_name(path, &list.file, place) {
                after.splice(list.place, format!("@\"{new}\"").into_bytes());
            }
        }
        Ok(after)
    }

    /// What a file that is named `value` in `path` is called from there now, if that changed.
    /// Relative names count from the file that they stand in, and only two kinds moved: the main
    /// files, and absolute names.
    fn new_name(&self, path: &str, value: &str, place: String) -> Option<String> {
        let new = match (path.contains('/'), Path::new(value).is_absolute()) {
            (false, _) => place,
            (true, true) => self.target.path().join(&place).to_string_lossy().into_owned(),
            (true, false) => return None,
        };
        (new != value).then_some(new)
    }

    /// Where a file that was at `old` lies in the target.
    fn place_of(&self, old: &Path) -> String {
        let place = match old.strip_prefix(&self.old_data) {
            Ok(inside) => inside.to_owned(),
            Err(_) => Path::new(CONFIGURATION).join(old.strip_prefix("/").unwrap_or(old)),
        };
        place.to_string_lossy().into_owned()
    }

    fn exists(&self, path: &str) -> Outcome<bool> {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let missing = !parent.is_empty() && !self.exists(parent)?;
        Ok(!missing && self.target.stat(path.as_bytes())?.is_some())
    }

    fn read(&self, path: &str) -> Outcome<Option<Vec<u8>>> {
        if self.exists(path)? {
            return self.target.read(path.as_bytes(), FILE_BYTES_MAX);
        }
        Ok(None)
    }

    /// What PostgreSQL takes from an `include_dir`, in its order.
    fn configuration_files(&self, path: &str) -> Outcome<Vec<String>> {
        let names = strays::names(&self.target.directory(path.as_bytes())?)
            .map_err(|error| local::failure("read", &self.target.shown(path.as_bytes()), error))?;
        let mut files: Vec<String> = names
            .into_iter()
            .filter_map(|name| String::from_utf8(name).ok())
            .filter(|name| name.ends_with(".conf") && !name.starts_with('.'))
            .collect();
        files.sort();
        Ok(files)
    }

    fn make_directories(&self, path: &str) -> Outcome<()> {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        ends.map(|end| &path.as_bytes()[..end])
            .filter(|part| !part.is_empty())
            .try_for_each(|part| self.target.make_directory(part, 0o700))
    }

    fn note(&mut self, note: String) {
        self.changed.notes.push(note);
    }
}

/// The include directive in a line, and what it names.
fn include_in(syntax: Syntax, line: &[u8]) -> Option<(String, String)> {
    let (name, value) = match syntax {
        Syntax::Settings => {
            let setting = settings::parse(line).ok()?.pop()?;
            (setting.name, setting.value)
        }
        Syntax::Rules => {
            let text = String::from_utf8_lossy(line);
            let (name, value) = text.trim().split_once([' ', '\t'])?;
            (name.to_owned(), value.trim().trim_matches('"').to_owned())
        }
    };
    matches!(name.as_str(), "include" | "include_if_exists" | "include_dir")
        .then_some((name, value))
}
