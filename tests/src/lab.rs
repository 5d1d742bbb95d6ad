//! The lab as a user has it: the commands of the real binary, in a directory of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lifeboat_environment::Environment;
use lifeboat_lab::layout::{Domain, Isolation, Layout};
use lifeboat_lab::process;
use lifeboat_testkit::process::{Account, Finished, Running, wait_until};
use nix::unistd::Uid;
use serde_json::Value;
use tempfile::TempDir;

/// A command of the lab that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(300);

/// A lab. Dropping it takes everything away.
#[derive(Debug)]
pub struct Lab {
    // Made and removed by the lab itself; what it lies in goes last.
    root: PathBuf,
    binary: PathBuf,
    unprivileged: bool,
    _folder: TempDir,
}

impl Lab {
    /// A directory for a lab, in which nothing is yet.
    pub fn nowhere() -> Result<Self> {
        let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/debug/lifeboat");
        let environment = Environment::system();
        let binary = Path::new(environment.variable("LIFEBOAT_BIN").unwrap_or(built));
        let binary = fs::canonicalize(binary)
            .with_context(|| format!("no {}; run `cargo build`", binary.display()))?;
        // Sockets lie below it, and their paths are bounded.
        let folder = tempfile::Builder::new()
            .prefix("lb")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir_in("/tmp")?;
        let root = folder.path().join("lab");
        Ok(Self { root, binary, unprivileged: false, _folder: folder })
    }

    /// A directory for a lab of somebody who is not root.
    pub fn unprivileged() -> Result<Self> {
        let mut lab = Self::nowhere()?;
        lab.unprivileged = true;
        // The account may not be able to look into the build directory.
        let own = lab._folder.path().join("lifeboat");
        fs::copy(&lab.binary, &own)?;
        lab.binary = own;
        let account = Account::of_server()?;
        std::os::unix::fs::chown(
            lab._folder.path(),
            Some(account.uid.as_raw()),
            Some(account.gid.as_raw()),
        )?;
        Ok(lab)
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its names and addresses, once it is up.
    pub fn layout(&self) -> Result<Layout> {
        let state = lifeboat_lab::state::read(&self.root)?;
        Ok(Layout::new(&self.root, state.isolation))
    }

    fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(&self.binary);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
        command.arg("lab").args(words.first());
        command.arg("--directory").arg(&self.root).args(words.get(1..).unwrap_or_default());
        if self.unprivileged {
            Account::of_server()?.apply(&mut command);
        } else if !Uid::effective().is_root() {
            bail!("this scenario needs root, for namespaces");
        }
        Ok(command)
    }

    /// Runs a command of the lab, whatever its exit code.
    pub fn run(&self, words: &[&str]) -> Result<Finished> {
        Running::spawn(&mut self.command(words)?, None)?.wait(LIMIT)
    }

    /// Runs a command of the lab, which must exit 0; what it printed.
    pub fn ok(&self, words: &[&str]) -> Result<String> {
        Ok(self.run(words)?.success()?.stdout)
    }

    /// Starts a command of the lab; dropping the result kills it.
    pub fn start(&self, words: &[&str]) -> Result<Running> {
        Running::spawn(&mut self.command(words)?, None)
    }

    /// The result of a command of the lab.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let finished = self.run(&[words, &["--json"]].concat())?.success()?;
        finished.json()?.get("result").cloned().context("no result")
    }

    /// The state of a part, as `lab status` tells it.
    pub fn state_of(&self, domain: &str, name: &str) -> Result<String> {
        let status = self.json(&["status"])?;
        let parts = status["parts"].as_array().context("no parts")?;
        let part = parts.iter().find(|part| part["domain"] == domain && part["name"] == name);
        let state = part.and_then(|part| part["state"].as_str());
        Ok(state.with_context(|| format!("no {domain}/{name}"))?.to_owned())
    }

    /// Whether a connection comes about from inside a domain.
    pub fn reaches(&self, from: &str, host: &str, port: u16) -> Result<bool> {
        let connect = format!("exec 3<>/dev/tcp/{host}/{port}");
        let words = ["enter", from, "--", "timeout", "2", "bash", "-c", &connect];
        Ok(self.run(&words)?.code == Some(0))
    }

    /// What is left of the lab on this machine, in words; empty if nothing is.
    pub fn traces(&self) -> Vec<String> {
        let mut found = Vec::new();
        let layout = Layout::new(&self.root, Isolation::Namespaces);
        let processes = process::of_lab(&layout);
        found.extend(
            processes.iter().map(|one| format!("process {} {:?}", one.pid, process::words(*one))),
        );
        let mut names = vec![layout.hub()];
        names.extend(Domain::ALL.map(|domain| layout.namespace(domain)));
        let there = names.iter().filter(|name| Path::new("/run/netns").join(name).exists());
        found.extend(there.map(|name| format!("namespace {name}")));
        let mounts = lifeboat_lab::disk::mounts_below(&self.root);
        found.extend(mounts.iter().map(|place| format!("mount {}", place.display())));
        let loops = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        for device in loops {
            let file = device.path().join("loop/backing_file");
            let backing = fs::read_to_string(file).unwrap_or_default();
            if backing.starts_with(&*self.root.to_string_lossy()) {
                found.push(format!("device {}", device.file_name().display()));
            }
        }
        for place in [layout.cgroup(), self.root.clone()] {
            if place.exists() {
                found.push(place.display().to_string());
            }
        }
        found
    }

    /// Waits until `done` says yes.
    pub fn wait_until(&self, what: &str, done: impl FnMut() -> Result<bool>) -> Result<()> {
        if !wait_until(LIMIT, done)? {
            bail!("waited for {what} in vain");
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["down"]).and_then(Finished::success) {
            eprintln!("a lab is left: {error:#}");
        }
    }
}
