//! A repository in a directory: what a file system needs beyond `LocalFileSystem`.
//!
//! A disk that is not mounted must never look like an empty repository. So the root has to be
//! there for every operation and has to stay the directory that it was at the first one.

use std::fs::{DirBuilder, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use jiff::Timestamp;
use lifeboat_telemetry::Code;
use object_store::local::LocalFileSystem;

use crate::fault::Fault;
use crate::key::is_part;
use crate::{Key, Stat};

const DIRECTORY_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;
/// Keys have few parts; only a loop of symbolic links is deeper.
const MAX_DEPTH: usize = 32;

/// The root directory of a repository.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    opened: OnceLock<Opened>,
}

#[derive(Debug)]
struct Opened {
    /// Device and inode.
    identity: (u64, u64),
    files: LocalFileSystem,
}

impl Directory {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), opened: OnceLock::new() }
    }

    /// The file system below the root, after a look at the root.
    pub(crate) fn files(&self) -> Result<LocalFileSystem, Fault> {
        let found = match std::fs::metadata(&self.root) {
            Ok(found) if found.is_dir() => found,
            Ok(_) => return Err(Fault::from_io(io::ErrorKind::NotADirectory.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(lost(error)),
            Err(error) => return Err(Fault::from_io(error)),
        };
        let identity = (found.dev(), found.ino());
        if self.opened.get().is_none() {
            let files = LocalFileSystem::new_with_prefix(&self.root)
                .map_err(Fault::from_directory)?
                .with_fsync(true);
            // Another thread may have been faster; it saw the same root or the check below fails.
            let _ = self.opened.set(Opened { identity, files });
        }
        match self.opened.get() {
            Some(opened) if opened.identity == identity => Ok(opened.files.clone()),
            _ => Err(lost("it is another directory than at the start")),
        }
    }

    /// Makes the root and what lies above it.
    pub(crate) fn create_root(&self) -> Result<(), Fault> {
        make_directories(Path::new("/"), &self.root).map_err(Fault::from_io)
    }

    /// Makes the directories above `key`, with our mode instead of the library's.
    pub(crate) fn prepare(&self, key: &Key) -> Result<LocalFileSystem, Fault> {
        let files = self.files()?;
        if let Some(parent) = self.path(key).parent() {
            make_directories(&self.root, parent).map_err(Fault::from_io)?;
        }
        Ok(files)
    }

    /// Takes away what the umask left to others. Rights are never added. What root wrote belongs to
    /// the owner of the repository: PostgreSQL's account must be able to read what an agent stored.
    pub(crate) fn restrict(&self, key: &Key) -> Result<(), Fault> {
        let path = self.path(key);
        give_to_owner_of(&self.root, &path).map_err(Fault::from_io)?;
        let set = |found: Metadata| {
            let mode = found.permissions().mode() & 0o7777;
            match mode & FILE_MODE {
                right if right == mode => Ok(()),
                right => std::fs::set_permissions(&path, Permissions::from_mode(right)),
            }
        };
        std::fs::metadata(&path).and_then(set).map_err(Fault::from_io)
    }

    /// Makes an object durable that another process put there: it may have died before it could.
    pub(crate) fn settle(&self, key: &Key) -> Result<(), Fault> {
        let path = self.path(key);
        let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
        for place in path.ancestors().take_while(|place| place.starts_with(&self.root)) {
            sync(place).map_err(Fault::from_io)?;
        }
        Ok(())
    }

    /// Every object whose key starts with `prefix`. Names that are no keys are left out: they are
    /// staging files or not ours.
    pub(crate) fn list(&self, prefix: &str) -> Result<Vec<(Key, Stat)>, Fault> {
        let folder = prefix.rsplit_once('/').map(|(folder, _)| folder).unwrap_or_default();
        let files = self.walk(folder)?.into_iter();
        let keys = files.filter_map(|(path, stat)| Some((Key::new(path).ok()?, stat)));
        Ok(keys.filter(|(key, _)| key.as_str().starts_with(prefix)).collect())
    }

    /// What the library had not yet put in place: `name#1`.
    pub(crate) fn list_staging(&self) -> Result<Vec<(String, Stat)>, Fault> {
        let mut files = self.walk("")?;
        files.retain(|(path, _)| {
            path.rsplit_once('#').is_some_and(|(_, number)| number.parse::<u64>().is_ok())
        });
        files.sort();
        Ok(files)
    }

    /// Every file below `folder`. Own code, for the library's leaves out what it cannot read.
    fn walk(&self, folder: &str) -> Result<Vec<(String, Stat)>, Fault> {
        self.files()?;
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            self.walk_folder(&folder, &mut folders, &mut found).map_err(Fault::from_io)?;
        }
        // The disk may have gone in between.
        self.files()?;
        Ok(found)
    }

    fn walk_folder(
        &self,
        folder: &str,
        folders: &mut Vec<String>,
        found: &mut Vec<(String, Stat)>,
    ) -> io::Result<()> {
        let Some(entries) = present(std::fs::read_dir(self.root.join(folder)))? else {
            return Ok(());
        };
        if folder.split('/').count() > MAX_DEPTH {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "directories without end"));
        }
        for entry in entries {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            // What was deleted since is absent; what cannot be read is an error.
            let Some(metadata) = present(std::fs::metadata(entry.path()))? else {
                continue;
            };
            // A folder that is no part of a key, such as lost+found, is none of ours.
            let ours = is_part(&name);
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            if metadata.is_dir() && ours {
                folders.push(path);
            } else if metadata.is_file() {
                let modified = Timestamp::try_from(metadata.modified()?).unwrap_or_default();
                found.push((path, Stat { size: metadata.len(), modified }));
            }
        }
        Ok(())
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }
}

fn lost(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::Final {
        code: Code::StoreUnavailable,
        error: error.into(),
        hint: "Mount the disk that holds {store}, or make the repository with \
               `lifeboat repo create`.",
    }
}

fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes `path` and what lacks between `base` and it, each durable before the next. Never `base`:
/// a root that has gone in between is not made again.
fn make_directories(base: &Path, path: &Path) -> io::Result<()> {
    let lacks = |place: &&Path| *place != base && !place.is_dir();
    let missing: Vec<&Path> = path.ancestors().take_while(lacks).collect();
    for place in missing.into_iter().rev() {
        match DirBuilder::new().mode(DIRECTORY_MODE).create(place) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if let Some(parent) = place.parent() {
            give_to_owner_of(parent, place)?;
            File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

/// Only root can give anything away, and only root's own is given.
fn give_to_owner_of(folder: &Path, path: &Path) -> io::Result<()> {
    let owner = std::fs::metadata(folder)?;
    if owner.uid() == 0 || !nix::unistd::Uid::effective().is_root() {
        return Ok(());
    }
    match std::fs::symlink_metadata(path)? {
        found if found.uid() == 0 => lchown(path, Some(owner.uid()), Some(owner.gid())),
        _ => Ok(()),
    }
}
