//! Taking possession of the target: empty, or a restore of ours that was interrupted, or a
//! stopped cluster that `--delta` may bring to another state.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lifeboat_cluster::control;
use lifeboat_cluster::server::{Running, running};
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};
use nix::fcntl::OFlag;
use nix::unistd::{Gid, Uid};
use serde::{Deserialize, Serialize};

use crate::local;
use crate::table::CONTROL;
use crate::target::{Owner, Target};

/// Says that this directory is a restore of ours that is not finished.
pub(crate) const MARKER: &str = "lifeboat.restore";
const MARKER_BYTES_MAX: u64 = 1024 * 1024;

/// The content of the marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    /// Version of this file.
    pub lifeboat_restore: u32,
    /// `SERVICE/DATABASE`.
    pub database: String,
    /// The cluster.
    pub system_identifier: u64,
    /// The backup that is restored.
    pub backup: String,
    /// Where its tablespaces go, by OID: these directories were empty when they were taken.
    pub tablespaces: BTreeMap<u32, PathBuf>,
}

/// What a target directory is before a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// Nothing is there.
    Absent,
    /// An empty directory.
    Empty,
    /// A restore that did not finish: what is right is kept.
    Interrupted(Marker),
    /// A stopped cluster: pages that differ are replaced.
    Cluster,
}

/// Looks at a target and refuses what a restore may not touch.
pub(crate) fn look(path: &Path, delta: bool) -> Outcome<Found> {
    let shown = path.display();
    let names = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Absent),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            return Err(refused(format!("{shown} is no directory"))
                .hint("Choose a directory that is empty or does not exist yet."));
        }
        listed => listed
            .and_then(|names| names.map(|name| Ok(name?.file_name())).collect())
            .map_err(|error| local::failure("read", path, error))?,
    };
    let names: Vec<std::ffi::OsString> = names;
    if names.iter().all(|name| name == MARKER) {
        return Ok(Found::Empty);
    }
    refuse_running(path)?;
    if let Some(marker) = read_marker(path) {
        return Ok(Found::Interrupted(marker));
    }
    match (delta, path.join("PG_VERSION").is_file()) {
        (true, true) => Ok(Found::Cluster),
        (true, false) => Err(refused(format!("{shown} is neither empty nor a data directory"))
            .hint("--delta goes over a stopped cluster; otherwise choose an empty directory.")),
        (false, _) => Err(refused(format!("{shown} is not empty"))
            .hint("Choose an empty directory, or add --delta to replace what differs.")),
    }
}

fn refuse_running(path: &Path) -> Outcome<()> {
    let shown = path.display();
    let message = match running(path)? {
        Running::No => return Ok(()),
        Running::Server(server) => {
            format!("a PostgreSQL server runs in {shown} (process {})", server.pid)
        }
        Running::Orphans(processes) => {
            format!("processes of a PostgreSQL server still work in {shown}: {processes:?}")
        }
    };
    Err(refused(message).hint("Stop it first, or choose another directory."))
}

fn read_marker(path: &Path) -> Option<Marker> {
    let path = path.join(MARKER);
    let small = fs::symlink_metadata(&path)
        .is_ok_and(|found| found.is_file() && found.len() <= MARKER_BYTES_MAX);
    let marker: Marker =
        small.then(|| serde_json::from_slice(&fs::read(&path).ok()?).ok()).flatten()?;
    (marker.lifeboat_restore == 1).then_some(marker)
}

/// Whether what is there belongs to the cluster that will be restored.
pub(crate) fn refuse_stranger(
    found: &Found,
    path: &Path,
    marker: &Marker,
    environment: &Environment,
) -> Outcome<()> {
    let shown = path.display();
    let stranger = |what: &str| {
        Err(refused(format!("{shown} holds {what}"))
            .hint("Choose another directory, or empty this one if nothing in it is needed."))
    };
    match found {
        Found::Absent | Found::Empty => Ok(()),
        Found::Interrupted(theirs) if theirs.database != marker.database => {
            stranger(&format!("an unfinished restore of {}", theirs.database))
        }
        Found::Interrupted(_) => Ok(()),
        Found::Cluster => match control::read(path, environment) {
            Ok(theirs) if theirs.system.0 != marker.system_identifier => {
                stranger(&format!("another cluster, with system identifier {}", theirs.system))
            }
            // A cluster with a damaged control file is one that a restore shall mend.
            _ => Ok(()),
        },
    }
}

/// A tablespace's place must be absent or empty, or hold this very tablespace already.
pub(crate) fn check_tablespace(
    found: &Found,
    target: &Path,
    oid: u32,
    place: &Path,
) -> Outcome<()> {
    let own = match found {
        Found::Interrupted(marker) => {
            marker.tablespaces.get(&oid).is_some_and(|known| known == place)
        }
        Found::Cluster => {
            let link = fs::canonicalize(target.join(format!("pg_tblspc/{oid}")));
            link.is_ok_and(|link| fs::canonicalize(place).is_ok_and(|place| place == link))
        }
        Found::Absent | Found::Empty => false,
    };
    if own {
        return Ok(());
    }
    let listed = match fs::read_dir(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        listed => listed.map_err(|error| local::failure("read", place, error))?,
    };
    for name in listed {
        let name = name.map_err(|error| local::failure("read", place, error))?.file_name();
        // Every ext4 file system has it at its top.
        if name != "lost+found" {
            let message = format!("{}, for tablespace {oid}, is not empty", place.display());
            return Err(
                refused(message).hint("Map it to an empty directory with --tablespace OLD=NEW.")
            );
        }
    }
    Ok(())
}

/// The target, taken: nobody else restores into it while this value lives.
pub(crate) struct Claim {
    pub target: Target,
    /// Whether files may be there whose pages are to be compared.
    pub compare: bool,
    _lock: File,
}

impl Claim {
    /// Makes the directory where needed, locks it, and writes the marker.
    pub(crate) fn take(
        path: &Path,
        found: &Found,
        marker: &Marker,
        owner: Option<Owner>,
    ) -> Outcome<Self> {
        if *found == Found::Absent {
            fs::create_dir_all(path).map_err(|error| local::failure("make", path, error))?;
        }
        let mut target = Target::open(path, owner)?;
        let mut lock = target.file(MARKER.as_bytes(), OFlag::empty())?;
        if lock.try_lock().is_err() {
            return Err(refused(format!("another restore into {} is running", path.display()))
                .hint("Wait for it, or choose another directory."));
        }
        // Somebody may have been here between the look and the lock.
        let compare = !matches!(found, Found::Absent | Found::Empty);
        if !compare && look(path, false)? != Found::Empty {
            let _ = target.remove(MARKER.as_bytes());
            return Err(refused(format!("{} is not empty any more", path.display()))
                .hint("Run the same command again, to see what is there now."));
        }
        let text = serde_json::to_vec_pretty(marker).map_err(|error| {
            Failure::new(Code::Internal, "the marker cannot be encoded").because(error)
        })?;
        let written = lock.set_len(0).and_then(|()| {
            std::os::unix::fs::FileExt::write_all_at(&lock, &text, 0)?;
            lock.flush()?;
            lock.sync_all()
        });
        written.map_err(|error| local::failure("write", &path.join(MARKER), error))?;
        target.hand_over(MARKER.as_bytes(), &lock, 0o600)?;
        target.sync_directory(b"")?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(|error| local::failure("sync", parent, error))?;
        }
        mount_links(&mut target, marker)?;
        Ok(Self { target, compare, _lock: lock })
    }

    /// Takes away what would let a server start, before anything else changes.
    pub(crate) fn disarm(&self, delta: bool) -> Outcome<()> {
        let control = CONTROL.as_bytes();
        if !self.compare || self.target.stat(b"global")?.is_none() {
            return Ok(());
        }
        // A server leaves its options where it ran. A restore that ended a moment too early to
        // take its marker away must not be taken for one that never was a cluster.
        let ran = self.target.stat(b"postmaster.opts")?.is_some();
        if ran && !delta && self.target.stat(control)?.is_some() {
            let shown = self.target.path().display();
            return Err(refused(format!("a server has run in {shown} since it was restored"))
                .hint("Add --delta to go over it, or choose another directory."));
        }
        self.target.remove(control)?;
        self.target.sync_directory(b"global")
    }
}

/// Opens the tablespaces, and `pg_wal` where an old cluster has it on another disk.
fn mount_links(target: &mut Target, marker: &Marker) -> Outcome<()> {
    for (oid, place) in &marker.tablespaces {
        fs::create_dir_all(place).map_err(|error| local::failure("make", place, error))?;
        target.mount(format!("pg_tblspc/{oid}").as_bytes(), place)?;
    }
    let wal = target.path().join("pg_wal");
    if wal.is_symlink() && wal.is_dir() {
        target.mount(b"pg_wal", &wal)?;
    }
    Ok(())
}

/// Who shall own what is written: only root can give files away, and then it is the owner of the
/// directory around the target.
pub(crate) fn owner_of(target: &Path, wish: Option<&str>) -> Outcome<Option<Owner>> {
    if let Some(name) = wish {
        let found = nix::unistd::User::from_name(name).ok().flatten();
        return match found {
            Some(user) => Ok(Some(Owner { user: user.uid, group: user.gid })),
            None => Err(Failure::new(Code::Usage, format!("there is no user {name:?}"))
                .hint("--owner takes the name of a user of this machine.")),
        };
    }
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let around = target.ancestors().skip(1).find_map(|parent| {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        fs::metadata(parent).ok()
    });
    Ok(around
        .map(|found| Owner { user: Uid::from_raw(found.uid()), group: Gid::from_raw(found.gid()) }))
}

fn refused(message: String) -> Failure {
    Failure::new(Code::TargetDirectory, message)
}
