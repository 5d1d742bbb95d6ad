//! The walk itself: one directory at a time, names in byte order.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::relation::{Fork, Home, is_temporary, number};
use super::skip::{is_emptied, is_skipped};
use super::{Entry, Kind, Listing, Tablespace};
use crate::Release;
use crate::control;

/// A data directory has four levels, six with tablespaces. Deeper ones are somebody's own; this
/// ends loops over several links before the kernel does.
const DEEPEST: usize = 32;

pub(super) struct Walk<'a> {
    root: &'a Path,
    /// The root without links, to see what lies inside it.
    true_root: PathBuf,
    release: &'a Release,
    /// Tablespaces that lie inside the data directory: listed through their link only.
    inside: BTreeSet<PathBuf>,
    control: Option<Entry>,
    listing: Listing,
}

impl<'a> Walk<'a> {
    pub(super) fn new(root: &'a Path, release: &'a Release) -> Outcome<Self> {
        let true_root = fs::canonicalize(root).map_err(|error| unreadable(root, error))?;
        let listing = Listing { entries: Vec::new(), tablespaces: Vec::new(), notes: Vec::new() };
        let mut walk =
            Self { root, true_root, release, inside: BTreeSet::new(), control: None, listing };
        walk.find_tablespaces()?;
        Ok(walk)
    }

    pub(super) fn run(mut self) -> Outcome<Listing> {
        self.directory(Path::new(""), 0)?;
        let Some(control) = self.control else {
            return Err(unreadable(&self.root.join(control::PATH), ErrorKind::NotFound.into()));
        };
        self.listing.entries.push(control);
        Ok(self.listing)
    }

    /// Looks at the links first: the walk must know which directories are tablespaces.
    fn find_tablespaces(&mut self) -> Outcome<()> {
        let mut versions = BTreeSet::new();
        for name in self.names(Path::new("pg_tblspc"))?.unwrap_or_default() {
            let path = Path::new("pg_tblspc").join(std::ffi::OsStr::from_bytes(&name));
            let full = self.root.join(&path);
            let Some(location) = self.link_target(&full)? else {
                continue;
            };
            let Some(oid) = number(&name) else {
                self.note(format!("{} is no tablespace: its link is not listed", full.display()));
                continue;
            };
            // A tablespace that is not mounted is a hole in the backup, not an empty place.
            let place = fs::canonicalize(&full).map_err(|error| unreadable(&full, error))?;
            let version = place.join(self.release.tablespace_directory());
            if self.true_root.starts_with(&version) {
                let message = format!("{} holds the data directory itself", full.display());
                return Err(Failure::new(Code::DataDirectoryInvalid, message)
                    .hint("Move the tablespace to a directory of its own."));
            }
            if let Ok(inside) = place.strip_prefix(&self.true_root) {
                self.note(format!("tablespace {oid} lies inside the data directory"));
                self.inside.insert(inside.to_owned());
            }
            if !versions.insert(version) {
                let message = format!("{} is the place of another tablespace too", full.display());
                return Err(Failure::new(Code::DataDirectoryInvalid, message)
                    .hint("Two tablespaces cannot share a directory; check the links."));
            }
            self.listing.tablespaces.push(Tablespace { oid, location });
        }
        self.listing.tablespaces.sort_by_key(|tablespace| tablespace.oid);
        Ok(())
    }

    fn directory(&mut self, path: &Path, depth: usize) -> Outcome<()> {
        if depth > DEEPEST {
            let message = format!("{} lies too deep", self.root.join(path).display());
            return Err(Failure::new(Code::DataDirectoryInvalid, message)
                .hint("Look for a link that leads back to one of its parents."));
        }
        let home = Home::of(&names_of(path), self.release);
        // A directory that vanished was a database that was dropped.
        let names = self.names(path)?.unwrap_or_default();
        let unlogged = home.filter(|home| home.is_database()).map(|home| unlogged(home, &names));
        for name in names {
            let relation = home.and_then(|home| home.relation(&name));
            if let Some(unlogged) = &unlogged {
                let reset = relation.is_some_and(|relation| {
                    relation.fork != Fork::Init && unlogged.contains(&relation.filenode)
                });
                if reset || is_temporary(&name) {
                    continue;
                }
            }
            let path = path.join(std::ffi::OsString::from_vec(name));
            if !is_skipped(&names_of(&path)) {
                self.entry(path, relation.map(Kind::Relation), depth)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: PathBuf, relation: Option<Kind>, depth: usize) -> Outcome<()> {
        let full = self.root.join(&path);
        let Some(found) = present(&full, fs::symlink_metadata(&full))? else {
            return Ok(());
        };
        let names = names_of(&path);
        if found.is_symlink() {
            if let [b"pg_tblspc", name] = names.as_slice() {
                let oid = number(name);
                return if oid.is_some_and(|oid| self.knows(oid)) {
                    self.tablespace(path, &found, depth)
                } else {
                    // Made after the first look: WAL creates it again.
                    Ok(())
                };
            }
            return self.link(path, &full, relation, depth);
        }
        self.plain(path, &found, relation, depth)
    }

    fn plain(
        &mut self,
        path: PathBuf,
        found: &Metadata,
        relation: Option<Kind>,
        depth: usize,
    ) -> Outcome<()> {
        if found.is_dir() {
            self.push(path.clone(), Kind::Directory, found);
            if is_emptied(&names_of(&path)) {
                self.wal_directories(&path, found);
                return Ok(());
            }
            if self.inside.contains(&path) {
                return Ok(());
            }
            return self.directory(&path, depth + 1);
        }
        if !found.is_file() {
            self.note(format!(
                "skipped {}: it is {}",
                self.root.join(&path).display(),
                special_name(found)
            ));
            return Ok(());
        }
        let kind = relation.unwrap_or_else(|| kind_of(&names_of(&path)));
        self.push(path, kind, found);
        Ok(())
    }

    /// A link outside of `pg_tblspc`. PostgreSQL's base backup would leave it out with a warning;
    /// here its content counts as content of the data directory.
    fn link(
        &mut self,
        path: PathBuf,
        full: &Path,
        relation: Option<Kind>,
        depth: usize,
    ) -> Outcome<()> {
        let found = match fs::metadata(full) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.note(format!("skipped {}: the link leads nowhere", full.display()));
                return Ok(());
            }
            found => found.map_err(|error| unreadable(full, error))?,
        };
        if found.is_dir() && leads_back(full)? {
            self.note(format!("skipped {}: the link leads to one of its parents", full.display()));
            return Ok(());
        }
        if !is_emptied(&names_of(&path)) {
            self.note(format!("{} is a link: its content is backed up in place", full.display()));
        }
        self.plain(path, &found, relation, depth)
    }

    fn tablespace(&mut self, path: PathBuf, link: &Metadata, depth: usize) -> Outcome<()> {
        self.push(path.clone(), Kind::TablespaceLink, link);
        // Other versions' directories lie here too while an upgrade with links is going on.
        let version = path.join(self.release.tablespace_directory());
        self.entry(version, None, depth + 1)
    }

    /// The server expects these in `pg_wal`, whose content is left out.
    fn wal_directories(&mut self, path: &Path, found: &Metadata) {
        if path == Path::new("pg_wal") {
            self.push(path.join("archive_status"), Kind::Directory, found);
            if self.release.wal_summaries {
                self.push(path.join("summaries"), Kind::Directory, found);
            }
        }
    }

    fn push(&mut self, path: PathBuf, kind: Kind, found: &Metadata) {
        let size = if found.is_file() { found.len() } else { 0 };
        let nanoseconds = i32::try_from(found.mtime_nsec()).unwrap_or_default();
        let modified = Timestamp::new(found.mtime(), nanoseconds).unwrap_or_default();
        let entry = Entry { path, kind, size, mode: found.mode() & 0o7777, modified };
        if kind == Kind::Control {
            self.control = Some(entry);
        } else {
            self.listing.entries.push(entry);
        }
    }

    fn knows(&self, oid: u32) -> bool {
        self.listing.tablespaces.iter().any(|tablespace| tablespace.oid == oid)
    }

    fn note(&mut self, note: String) {
        self.listing.notes.push(note);
    }

    /// Names in a directory, sorted; `None` if it vanished.
    fn names(&self, path: &Path) -> Outcome<Option<Vec<Vec<u8>>>> {
        let full = self.root.join(path);
        let Some(directory) = present(&full, fs::read_dir(&full))? else {
            return Ok(None);
        };
        let mut names = Vec::new();
        for entry in directory {
            let entry = entry.map_err(|error| unreadable(&full, error))?;
            names.push(entry.file_name().into_vec());
        }
        names.sort_unstable();
        Ok(Some(names))
    }

    /// Where a link leads; `None` if it vanished or is no link.
    fn link_target(&self, full: &Path) -> Outcome<Option<PathBuf>> {
        match present(full, fs::symlink_metadata(full))? {
            Some(found) if found.is_symlink() => present(full, fs::read_link(full)),
            _ => Ok(None),
        }
    }
}

/// Whether a link leads to a directory that holds the link: following it would never end.
fn leads_back(full: &Path) -> Outcome<bool> {
    let canonical = |path: &Path| fs::canonicalize(path).map_err(|error| unreadable(path, error));
    let parent = full.parent().map_or_else(|| Ok(PathBuf::new()), canonical)?;
    Ok(parent.starts_with(canonical(full)?))
}

/// File numbers of unlogged relations: those with an init fork.
fn unlogged(home: Home, names: &[Vec<u8>]) -> BTreeSet<u32> {
    let relations = names.iter().filter_map(|name| home.relation(name));
    relations.filter(|it| it.fork == Fork::Init).map(|relation| relation.filenode).collect()
}

fn kind_of(names: &[&[u8]]) -> Kind {
    match names {
        [b"global", b"pg_control"] => Kind::Control,
        [b"pg_xact" | b"pg_commit_ts", _] | [b"pg_multixact", b"members" | b"offsets", _] => {
            Kind::Slru
        }
        [name] if name.ends_with(b".conf") => Kind::Config,
        _ => Kind::Other,
    }
}

fn special_name(found: &Metadata) -> &'static str {
    let file_type = found.file_type();
    if file_type.is_fifo() {
        "a pipe"
    } else if file_type.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

fn names_of(path: &Path) -> Vec<&[u8]> {
    path.iter().map(OsStrExt::as_bytes).collect()
}

/// What vanished between listing and looking is no error.
fn present<T>(path: &Path, found: io::Result<T>) -> Outcome<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, error)),
    }
}

fn unreadable(path: &Path, error: io::Error) -> Failure {
    Failure::new(Code::SourceFileUnreadable, format!("cannot read {}", path.display()))
        .because(error)
        .hint("Run as the user that owns the data directory, and check disk and mounts.")
}
