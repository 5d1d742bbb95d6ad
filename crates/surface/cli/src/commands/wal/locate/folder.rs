//! A private directory for one segment at a time and the key that opens it.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::context::Context;

/// Goes with all that is in it when the search ends.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes a new one below the state directory.
    pub fn make(state: &Path, context: &Context) -> Outcome<Self> {
        let name = format!("locate-{:016x}", context.environment.random().next_u64());
        let path = state.join(name);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|error| {
            let message = format!("cannot make {}", path.display());
            Failure::new(Code::LocalState, message).because(error)
        })?;
        Ok(Self(path))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
