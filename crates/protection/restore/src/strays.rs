//! Removing what an old cluster or an interrupted restore left and the backup does not hold.

use std::os::fd::OwnedFd;

use lifeboat_telemetry::Outcome;
use nix::dir::{Dir, Type};
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::claim::MARKER;
use crate::local;
use crate::survey::Survey;
use crate::target::Target;

const DIRECTORY: OFlag =
    OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_RDONLY).union(OFlag::O_CLOEXEC);

/// Removes every stray; the number of files that went.
pub(crate) fn remove(target: &Target, survey: &Survey) -> Outcome<u64> {
    let mut sweep = Sweep { target, survey, removed: 0 };
    for mount in target.mounts() {
        let again = mount.directory().try_clone();
        let directory = again.map_err(|error| local::failure("open", &mount.place, error))?;
        sweep.directory(directory, &mount.prefix)?;
    }
    Ok(sweep.removed)
}

struct Sweep<'a> {
    target: &'a Target,
    survey: &'a Survey,
    removed: u64,
}

impl Sweep<'_> {
    fn directory(&mut self, directory: OwnedFd, path: &[u8]) -> Outcome<()> {
        let failure = |error| local::failure("read", &self.target.shown(path), error);
        for name in names(&directory).map_err(failure)? {
            let below = join(path, &name);
            if self.stays(path, &name, &below) {
                continue;
            }
            let is_directory = kind(&directory, &name).map_err(failure)? == Type::Directory;
            if is_directory && self.survey.directories.contains_key(&below) {
                let inner = openat(&directory, name.as_slice(), DIRECTORY, Mode::empty());
                self.directory(inner.map_err(failure)?, &below)?;
            } else if is_directory {
                self.tree(&directory, &name, &below)?;
            } else if !self.survey.knows_file(&below)
                || kind(&directory, &name).map_err(failure)? != Type::File
            {
                unlinkat(&directory, name.as_slice(), UnlinkatFlags::NoRemoveDir)
                    .map_err(failure)?;
                self.removed += 1;
            }
        }
        Ok(())
    }

    fn stays(&self, path: &[u8], name: &[u8], below: &[u8]) -> bool {
        let is_top = self.target.mounts().iter().any(|mount| mount.prefix == path);
        let is_mount = |mount: &crate::target::Mount| {
            // The link of a tablespace goes, and is made again as the last step.
            let link = mount.prefix == below && !below.starts_with(b"pg_tblspc/");
            // A tablespace inside the data directory is swept through its own mount.
            link || (mount.prefix.starts_with(b"pg_tblspc/")
                && mount.place == self.target.path().join(os(below)))
        };
        below == MARKER.as_bytes()
            || (is_top && name == b"lost+found")
            || self.target.mounts().iter().any(is_mount)
    }

    /// A directory that the backup does not know, with everything in it.
    fn tree(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Outcome<()> {
        let failure = |error| local::failure("remove", &self.target.shown(path), error);
        let directory = openat(parent, name, DIRECTORY, Mode::empty()).map_err(failure)?;
        for name in names(&directory).map_err(failure)? {
            let below = join(path, &name);
            if kind(&directory, &name).map_err(failure)? == Type::Directory {
                self.tree(&directory, &name, &below)?;
            } else {
                unlinkat(&directory, name.as_slice(), UnlinkatFlags::NoRemoveDir)
                    .map_err(failure)?;
                self.removed += 1;
            }
        }
        unlinkat(parent, name, UnlinkatFlags::RemoveDir).map_err(failure)
    }
}

/// What a directory holds.
pub(crate) fn names(directory: &OwnedFd) -> nix::Result<Vec<Vec<u8>>> {
    // A handle of its own: reading moves its position.
    let mut listing = Dir::openat(directory, ".", DIRECTORY, Mode::empty())?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn kind(directory: &OwnedFd, name: &[u8]) -> nix::Result<Type> {
    let found = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => Type::Directory,
        SFlag::S_IFREG => Type::File,
        _ => Type::Symlink,
    })
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

fn os(path: &[u8]) -> &std::path::Path {
    std::path::Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path))
}
