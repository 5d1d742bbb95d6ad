//! The directory that a restore fills. Every path from the repository is hostile: each part is
//! opened by itself, below the part before, and never through a link.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lifeboat_telemetry::{Code, Failure, Outcome};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, symlinkat, unlinkat};

use crate::local;

const DIRECTORY: OFlag =
    OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_RDONLY).union(OFlag::O_CLOEXEC);

/// An open target directory, its tablespaces, and who shall own what is written.
#[derive(Debug)]
pub(crate) struct Target {
    /// The target itself first, then what is reached through links: tablespaces.
    mounts: Vec<Mount>,
    owner: Option<Owner>,
}

/// A directory that stands for a path below the target.
#[derive(Debug)]
pub(crate) struct Mount {
    /// The path below the target; empty for the target itself.
    pub prefix: Vec<u8>,
    /// Where the directory is.
    pub place: PathBuf,
    directory: OwnedFd,
}

/// A user and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub user: Uid,
    pub group: Gid,
}

impl Target {
    /// Opens an existing directory, which the operator named: links in its path are the
    /// operator's.
    pub(crate) fn open(path: &Path, owner: Option<Owner>) -> Outcome<Self> {
        let mut target = Self { mounts: Vec::new(), owner };
        target.mount(b"", path)?;
        Ok(target)
    }

    /// Lets `place` stand for `prefix` and everything below it.
    pub(crate) fn mount(&mut self, prefix: &[u8], place: &Path) -> Outcome<()> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let directory = nix::fcntl::open(place, flags, Mode::empty())
            .map_err(|error| local::failure("open", place, error))?;
        self.mounts.push(Mount { prefix: prefix.to_vec(), place: place.to_owned(), directory });
        Ok(())
    }

    /// Where the target is.
    pub(crate) fn path(&self) -> &Path {
        self.mounts.first().map_or_else(|| Path::new(""), |root| &root.place)
    }

    /// The target and its tablespaces.
    pub(crate) fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// Where a stored path comes to lie, for messages.
    pub(crate) fn shown(&self, path: &[u8]) -> PathBuf {
        let (mount, rest) = self.resolve(path);
        mount.place.join(std::ffi::OsStr::from_bytes(rest))
    }

    /// Opens a file for reading and writing, making it where it is not there.
    pub(crate) fn file(&self, path: &[u8], flags: OFlag) -> Outcome<File> {
        let flags = flags | OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let (parent, name) = self.parent(path)?;
        openat(&parent, name, flags, Mode::from_bits_truncate(0o600))
            .map(File::from)
            .map_err(|error| self.failure("write", path, error))
    }

    /// Gives a file its permissions and its owner.
    pub(crate) fn hand_over(&self, path: &[u8], file: &File, mode: u32) -> Outcome<()> {
        let failure = |error| local::failure("set the owner of", &self.shown(path), error);
        file.set_permissions(Permissions::from_mode(file_mode(mode))).map_err(failure)?;
        match self.owner {
            None => Ok(()),
            Some(Owner { user, group }) => fchown(file, Some(user), Some(group))
                .map_err(|error| failure(std::io::Error::from(error))),
        }
    }

    /// Writes a whole small file, durably.
    pub(crate) fn write(&self, path: &[u8], bytes: &[u8], mode: u32) -> Outcome<()> {
        let mut file = self.file(path, OFlag::O_TRUNC)?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(|error| local::failure("write", &self.shown(path), error))?;
        self.hand_over(path, &file, mode)
    }

    /// Reads a whole small file; `None` if it is not there.
    pub(crate) fn read(&self, path: &[u8], limit: u64) -> Outcome<Option<Vec<u8>>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let (parent, name) = self.parent(path)?;
        let file = match openat(&parent, name, flags, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(None),
            opened => opened.map_err(|error| self.failure("read", path, error))?,
        };
        let mut bytes = Vec::new();
        let read = File::from(file).take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|error| local::failure("read", &self.shown(path), error))?;
        if bytes.len() as u64 > limit {
            let message = format!("{} is too large", self.shown(path).display());
            return Err(Failure::new(Code::LimitExceeded, message));
        }
        Ok(Some(bytes))
    }

    /// What lies at a path; `None` if nothing does.
    pub(crate) fn stat(&self, path: &[u8]) -> Outcome<Option<FileStat>> {
        let (parent, name) = self.parent(path)?;
        match fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(self.failure("look at", path, error)),
        }
    }

    /// Removes a file or a link; one that is gone already is fine.
    pub(crate) fn remove(&self, path: &[u8]) -> Outcome<()> {
        let (parent, name) = self.parent(path)?;
        match unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(self.failure("remove", path, error)),
        }
    }

    /// Gives a file its final name, durably.
    pub(crate) fn rename(&self, from: &[u8], to: &[u8]) -> Outcome<()> {
        let (old, old_name) = self.parent(from)?;
        let (new, new_name) = self.parent(to)?;
        renameat(&old, old_name, &new, new_name)
            .map_err(|error| self.failure("rename", from, error))?;
        sync(&new).map_err(|error| local::failure("sync", &self.shown(to), error))
    }

    /// Makes a link of its own to `place`, in the target itself and not behind a link.
    pub(crate) fn link(&self, path: &[u8], place: &Path) -> Outcome<()> {
        let root = self.mounts.first().ok_or_else(closed)?;
        let (parent, name) = self.walk(root, path)?;
        let failure = |error| local::failure("link", &root.place.join(shown_name(path)), error);
        match unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(failure(error)),
        }
        symlinkat(place, &parent, name).map_err(failure)?;
        if let Some(Owner { user, group }) = self.owner {
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
            nix::unistd::fchownat(&parent, name, Some(user), Some(group), flags)
                .map_err(failure)?;
        }
        Ok(())
    }

    /// Makes a directory with these permissions, or gives them to one that is there.
    pub(crate) fn make_directory(&self, path: &[u8], mode: u32) -> Outcome<()> {
        if !self.resolve(path).1.is_empty() {
            let (parent, name) = self.parent(path)?;
            match mkdirat(&parent, name, Mode::from_bits_truncate(0o700)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(self.failure("make", path, error)),
            }
        }
        let directory = File::from(self.directory(path)?);
        let failure = |error| local::failure("set the owner of", &self.shown(path), error);
        directory.set_permissions(Permissions::from_mode(directory_mode(mode))).map_err(failure)?;
        if let Some(Owner { user, group }) = self.owner {
            fchown(&directory, Some(user), Some(group))
                .map_err(|error| failure(std::io::Error::from(error)))?;
        }
        Ok(())
    }

    /// Makes the entries of a directory durable.
    pub(crate) fn sync_directory(&self, path: &[u8]) -> Outcome<()> {
        sync(&self.directory(path)?)
            .map_err(|error| local::failure("sync", &self.shown(path), error))
    }

    /// Opens a directory below the target; the empty path is the target.
    pub(crate) fn directory(&self, path: &[u8]) -> Outcome<OwnedFd> {
        let (mount, rest) = self.resolve(path);
        if rest.is_empty() {
            let again = mount.directory.try_clone();
            return again.map_err(|error| local::failure("open", &mount.place, error));
        }
        let (parent, name) = self.walk(mount, rest)?;
        openat(&parent, name, DIRECTORY, Mode::empty())
            .map_err(|error| self.failure("open", path, error))
    }

    fn parent<'p>(&self, path: &'p [u8]) -> Outcome<(OwnedFd, &'p [u8])> {
        let (mount, rest) = self.resolve(path);
        self.walk(mount, rest)
    }

    /// Opens the directories of a path, each below the one before; hands back the last and the
    /// name in it.
    fn walk<'p>(&self, mount: &Mount, path: &'p [u8]) -> Outcome<(OwnedFd, &'p [u8])> {
        let failure = |error: std::io::Error| {
            local::failure("open", &mount.place.join(shown_name(path)), error)
        };
        let mut directory = mount.directory.try_clone().map_err(failure)?;
        let mut parts = path.split(|byte| *byte == b'/').peekable();
        while let Some(part) = parts.next() {
            if matches!(part, b"" | b"." | b"..") {
                let path = mount.place.join(shown_name(path));
                let message = format!("{} is no path below the target", path.display());
                return Err(Failure::new(Code::PathUnsafe, message));
            }
            if parts.peek().is_none() {
                return Ok((directory, part));
            }
            directory = match openat(&directory, part, DIRECTORY, Mode::empty()) {
                Err(Errno::ELOOP | Errno::ENOTDIR) => {
                    return Err(local::link_in_the_way(&mount.place.join(shown_name(path))));
                }
                opened => opened.map_err(|error| failure(error.into()))?,
            };
        }
        Err(closed())
    }

    fn resolve<'p>(&self, path: &'p [u8]) -> (&Mount, &'p [u8]) {
        let below = |mount: &Mount| match path.strip_prefix(mount.prefix.as_slice())? {
            rest if mount.prefix.is_empty() || rest.is_empty() => Some(rest),
            rest => rest.strip_prefix(b"/"),
        };
        // The target itself stands first and takes every path that no other one takes.
        let mut found = self.mounts.iter().rev().filter_map(|mount| Some((mount, below(mount)?)));
        found.next().unwrap_or((&self.mounts[0], path))
    }

    fn failure(&self, doing: &str, path: &[u8], error: Errno) -> Failure {
        match error {
            Errno::ELOOP | Errno::ENOTDIR => local::link_in_the_way(&self.shown(path)),
            error => local::failure(doing, &self.shown(path), error),
        }
    }
}

impl Mount {
    /// The open directory.
    pub(crate) fn directory(&self) -> &OwnedFd {
        &self.directory
    }
}

/// Permissions come from a table of four: nothing is ever readable by others, or executable.
fn file_mode(mode: u32) -> u32 {
    0o600 | (mode & 0o040)
}

fn directory_mode(mode: u32) -> u32 {
    if mode & 0o040 == 0 { 0o700 } else { 0o750 }
}

fn sync(directory: &OwnedFd) -> std::io::Result<()> {
    nix::unistd::fsync(directory).map_err(std::io::Error::from)
}

fn shown_name(path: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path))
}

fn closed() -> Failure {
    Failure::new(Code::Internal, "a path below the target is empty")
}
