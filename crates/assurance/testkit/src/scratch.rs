//! A directory of one test, owned by the account that servers run as.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lifeboat_environment::Environment;
use tempfile::TempDir;

use crate::process::Account;

/// A directory below `/tmp` (socket paths must stay short) that goes away with the value, unless
/// `LIFEBOAT_KEEP=1`.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
}

impl Scratch {
    /// A new empty directory with mode 0700.
    pub fn new() -> Result<Self> {
        let mut directory = tempfile::Builder::new()
            .prefix("lifeboat-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in("/tmp")?;
        if Environment::system().variable("LIFEBOAT_KEEP") == Some("1") {
            directory.disable_cleanup(true);
            eprintln!("kept: {}", directory.path().display());
        }
        give(directory.path())?;
        Ok(Self { directory })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A path below it, which need not exist.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A new folder below it (parents too), mode 0700, owned by the server's account.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let mut path = self.path().to_owned();
        for part in Path::new(name).components() {
            path.push(part);
            if !path.is_dir() {
                fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
                give(&path)?;
            }
        }
        Ok(path)
    }

    /// A new file below it, mode 0600, owned by the server's account.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.join(name);
        write(&path, content)?;
        Ok(path)
    }
}

/// Writes a file with mode 0600 that belongs to the server's account.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    give(path)
}

/// Hands a file or folder, not what is below it, to the server's account.
pub fn give(path: &Path) -> Result<()> {
    let account = Account::of_server()?;
    chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw()))
        .with_context(|| format!("cannot chown {}", path.display()))
}
