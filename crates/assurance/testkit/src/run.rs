//! The real `lifeboat` binary, as tests drive it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lifeboat_environment::Environment;
use nix::sys::signal::Signal;

use crate::process::{Account, Finished, PATIENCE, Running};
use crate::scratch::Scratch;

/// How to call the binary. It runs as the server's account, with a clean environment.
#[derive(Debug)]
pub struct Lifeboat {
    program: PathBuf,
    variables: BTreeMap<String, String>,
    directory: PathBuf,
    limit: Duration,
    // Holds the program; goes last.
    _scratch: Scratch,
}

impl Lifeboat {
    /// The binary that `LIFEBOAT_BIN` names, else the workspace's debug build.
    pub fn new() -> Result<Self> {
        let environment = Environment::system();
        let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../target/debug/lifeboat");
        Self::of(Path::new(environment.variable("LIFEBOAT_BIN").unwrap_or(built)))
    }

    /// A given binary.
    pub fn of(binary: &Path) -> Result<Self> {
        let binary = fs::canonicalize(binary)
            .with_context(|| format!("no {}; run `cargo build`", binary.display()))?;
        let scratch = Scratch::new()?;
        // The server's account may not be able to look into the build directory. A link of our
        // own also keeps this version while another one is being built.
        let program = scratch.join("lifeboat");
        if fs::hard_link(&binary, &program).is_err() {
            fs::copy(&binary, &program)?;
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self {
            program,
            variables: BTreeMap::new(),
            directory: PathBuf::from("/"),
            limit: PATIENCE,
            _scratch: scratch,
        })
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    /// Runs in this directory; `/` unless said otherwise.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// How long a run may take before it is held for hung.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The path of the binary, for `archive_command`.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Runs to the end, whatever the exit code is.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Finished> {
        self.spawn(args)?.wait(self.limit)
    }

    /// Runs to the end; an exit code other than 0 is an error with all output.
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Finished> {
        self.run(args)?.success()
    }

    /// Starts it and returns; dropping the result kills it.
    pub fn spawn<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Running> {
        Running::spawn(self.command(args)?.envs(&self.variables), None)
    }

    /// Runs until it kills itself at a failpoint; anything else is an error.
    pub fn killed_at<S: AsRef<OsStr>>(
        &self,
        failpoint: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Finished> {
        let finished = self.with_failpoints(&format!("{failpoint}=kill"), args)?;
        if finished.signal != Some(Signal::SIGKILL as i32) {
            bail!("{finished}\ndid not die at failpoint {failpoint}");
        }
        Ok(finished)
    }

    /// Runs to the end under a list of failpoints, as in `push.stored=error*2`.
    pub fn with_failpoints<S: AsRef<OsStr>>(
        &self,
        list: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Finished> {
        let mut command = self.command(args)?;
        command.envs(&self.variables).env("LIFEBOAT_FAILPOINTS", list);
        Running::spawn(&mut command, None)?.wait(self.limit)
    }

    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Command> {
        let mut command = Command::new(&self.program);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
        command.args(args).current_dir(&self.directory);
        Account::of_server()?.apply(&mut command);
        Ok(command)
    }
}

#[cfg(test)]
mod tests;
