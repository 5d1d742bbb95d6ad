//! A small disk that can be filled and emptied again.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use lifeboat_testkit::process::{Account, run};
use lifeboat_testkit::scratch;

/// A file system in memory, mounted on a folder; mounting needs root.
#[derive(Debug)]
pub struct Volume {
    path: PathBuf,
}

impl Volume {
    /// Mounts so many MiB on a folder, which the server's account owns.
    pub fn mount(path: &Path, mebibytes: u32) -> Result<Self> {
        let account = Account::of_server()?;
        let options =
            format!("size={mebibytes}M,mode=0700,uid={},gid={}", account.uid, account.gid);
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "lifeboat-test"]).arg(path);
        run(&mut command)?.success().context("disks are filled by root only")?;
        Ok(Self { path: path.to_owned() })
    }

    /// Another size, with everything still there.
    pub fn resize(&self, mebibytes: u32) -> Result<()> {
        let options = format!("remount,size={mebibytes}M");
        run(Command::new("mount").args(["-o", &options]).arg(&self.path))?.success()?;
        Ok(())
    }

    /// Takes all the room that is left, but for so many bytes.
    pub fn fill(&self, leave: u64) -> Result<()> {
        let path = self.filler();
        let mut file = File::create(&path)?;
        // First in large steps, then to the last byte.
        for step in [1 << 20, 4096, 1] {
            let zeros = vec![0; step];
            loop {
                match file.write_all(&zeros) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => bail!("cannot fill {}: {error}", path.display()),
                }
            }
        }
        file.set_len(file.metadata()?.len().saturating_sub(leave))?;
        scratch::give(&path)
    }

    /// Gives the room back.
    pub fn empty(&self) -> Result<()> {
        fs::remove_file(self.filler())?;
        Ok(())
    }

    /// A name that no repository takes for an object.
    fn filler(&self) -> PathBuf {
        self.path.join("filler#1")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a process that is just being killed may still hold it.
        let _ = run(Command::new("umount").arg("-l").arg(&self.path));
    }
}
