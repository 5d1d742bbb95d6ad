//! Where local state lies (FORMAT, "Keys").

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};
use nix::unistd::{AccessFlags, access};

use crate::Spec;

const SYSTEM: &str = "/var/lib/lifeboat";

impl Spec {
    /// The state directory, made if missing: the spec's `state:`, else LIFEBOAT_STATE, else
    /// /var/lib/lifeboat if this user can write it, else `.lifeboat` beside the spec.
    pub fn state_directory(&self, origin: &Path, environment: &Environment) -> Outcome<PathBuf> {
        let named = self.state.clone();
        let named = named.or_else(|| environment.variable("LIFEBOAT_STATE").map(PathBuf::from));
        let system = || access(SYSTEM, AccessFlags::W_OK).is_ok().then(|| PathBuf::from(SYSTEM));
        // PostgreSQL runs archive_command in its data directory: the path must not depend on it.
        let beside = || std::path::absolute(origin.with_file_name(".lifeboat"));
        let directory = match named.or_else(system) {
            Some(directory) => directory,
            None => beside().map_err(|error| {
                Failure::new(Code::LocalState, "the working directory is gone").because(error)
            })?,
        };
        prepare(&directory)?;
        Ok(directory)
    }
}

/// Makes a directory that only this user can read.
fn prepare(directory: &Path) -> Outcome<()> {
    let unusable = |message: &str| {
        Failure::new(Code::LocalState, format!("{message} {}", directory.display()))
            .hint("Set `state:` in the spec, or LIFEBOAT_STATE, to a directory of this user.")
    };
    match fs::metadata(directory) {
        Ok(found) if !found.is_dir() => return Err(unusable("this is no directory:")),
        Ok(found) if found.permissions().mode() & 0o002 != 0 => {
            return Err(unusable("everybody can write the state directory"));
        }
        Ok(_) => return Ok(()),
        Err(_) => {}
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| unusable("cannot make the state directory").because(error))
}
