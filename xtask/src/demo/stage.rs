//! Where the story happens: one directory, commands that are shown before they run, and a curtain
//! that falls over everything at the end, also after a failure or Ctrl-C.

use std::fs;
use std::io::{IsTerminal, stdout};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lifeboat_environment::{Clock, Environment, SystemClock};
use lifeboat_testkit::postgres::{DEBIAN_MAJOR, Installation};
use lifeboat_testkit::process::{Account, Finished, Running, kill_tree, tree, wait_until};
use lifeboat_testkit::scratch;
use nix::sys::prctl::set_child_subreaper;
use nix::unistd::{Uid, getpid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tempfile::TempDir;

use super::ledger::{self, EAST, WEST};

/// No single command of the story takes that long.
const LIMIT: Duration = Duration::from_secs(900);

/// The directory and everything that runs in it.
pub struct Stage {
    directory: TempDir,
    programs: PathBuf,
    keep: bool,
    colour: bool,
    interrupted: Arc<AtomicBool>,
}

impl Stage {
    /// A new directory below `/tmp`, which keeps the paths of sockets short.
    pub fn new(binary: &Path, keep: bool) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("lifeboat-demo-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in("/tmp")?;
        scratch::give(directory.path())?;
        let mut stage = Self {
            directory,
            programs: Installation::find(DEBIAN_MAJOR)?.bin().to_owned(),
            keep,
            colour: stdout().is_terminal(),
            interrupted: Arc::default(),
        };
        stage.directory.disable_cleanup(keep);
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stage.interrupted))?;
        }
        // Servers detach from who starts them. As our children they cannot get lost.
        set_child_subreaper(true)?;
        for folder in ["bin", "run", "east", "west"] {
            stage.folder(folder)?;
        }
        // PostgreSQL's account may not be able to look into the build directory.
        fs::copy(binary, stage.path("bin/lifeboat"))
            .with_context(|| format!("cannot copy {}", binary.display()))?;
        scratch::give(&stage.path("bin/lifeboat"))?;
        Ok(stage)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A path below the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a folder that belongs to PostgreSQL's account.
    pub fn folder(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        scratch::give(&path)
    }

    /// Writes a file that belongs to PostgreSQL's account.
    pub fn file(&self, name: &str, content: &str) -> Result<()> {
        scratch::write(&self.path(name), content)
    }

    /// Begins a chapter.
    pub fn heading(&self, number: usize, title: &str) {
        println!("\n{}\n", self.paint("1;36", &format!("{number}. {title}")));
    }

    /// Explains what happens.
    pub fn note(&self, text: &str) {
        println!("{text}");
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Shows a line that somebody could have typed.
    pub fn echo(&self, line: &str) {
        println!("{}", self.paint("1", &format!("$ {line}")));
    }

    /// Shows a command and runs it with its output in sight; how long it took.
    pub fn show(&self, words: &[&str]) -> Result<Duration> {
        self.show_ending(words, 0)
    }

    /// As `show`, for a command that must end with `code`.
    pub fn show_ending(&self, words: &[&str], code: i32) -> Result<Duration> {
        self.echo(&quoted(words));
        self.watch(self.command(words)?, code)
    }

    /// As `show_ending`, in another directory.
    pub fn show_in(&self, folder: &str, words: &[&str], code: i32) -> Result<Duration> {
        self.echo(&format!("(cd {folder} && {})", quoted(words)));
        let mut command = self.command(words)?;
        command.current_dir(self.path(folder));
        self.watch(command, code)
    }

    /// Shows a command whose output would only be noise; it is printed if the command fails.
    pub fn brief(&self, words: &[&str]) -> Result<()> {
        self.echo(&quoted(words));
        self.quiet(words)?.success()?;
        println!();
        Ok(())
    }

    fn watch(&self, mut command: Command, code: i32) -> Result<Duration> {
        let start = SystemClock.elapsed();
        let mut child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        let ended = wait_until(LIMIT, || Ok(child.try_wait()?.is_some() || self.check().is_err()))?;
        if !ended || self.check().is_err() {
            kill_tree(pid);
        }
        let status = child.wait()?;
        self.check()?;
        let took = SystemClock.elapsed().saturating_sub(start);
        if code != 0 && status.code() == Some(code) {
            println!("(exit code {code})");
        }
        println!();
        if status.code() != Some(code) {
            let program = command.get_program().display();
            bail!("{program} ended with {status}, expected was exit code {code}");
        }
        Ok(took)
    }

    /// Runs a command out of sight; what it said.
    pub fn quiet(&self, words: &[&str]) -> Result<Finished> {
        self.background(words)?.wait(LIMIT)
    }

    /// Starts a command and goes on; dropping the result ends it.
    pub fn background(&self, words: &[&str]) -> Result<Running> {
        Running::spawn(&mut self.command(words)?, None)
    }

    /// The answer of the server at a port.
    pub fn ask(&self, port: &str, sql: &str) -> Result<String> {
        let finished = self
            .quiet(&["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-p", port, "ledger", "-c", sql])?
            .success()?;
        Ok(finished.stdout.trim_end().to_owned())
    }

    /// A command in the directory, as PostgreSQL's account, with nothing of our environment but
    /// what terminals need.
    fn command(&self, words: &[&str]) -> Result<Command> {
        let (program, arguments) = words.split_first().context("no words")?;
        let mut command = Command::new(program);
        let own = self.path("bin");
        let path = format!("{}:{}:/usr/bin:/bin", own.display(), self.programs.display());
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", path)
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("PGHOST", self.path("run"))
            .env("PGPORT", EAST)
            .env("PGUSER", "postgres");
        let environment = Environment::system();
        for name in ["TERM", "COLORTERM", "NO_COLOR", "COLUMNS"] {
            if let Some(value) = environment.variable(name) {
                command.env(name, value);
            }
        }
        Account::of_server()?.apply(&mut command);
        Ok(command)
    }

    /// An error once somebody has pressed Ctrl-C.
    pub fn check(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Waits until `done` says yes.
    pub fn wait_until(&self, what: &str, done: impl Fn() -> Result<bool>) -> Result<()> {
        let patience = Duration::from_secs(120);
        let reached = wait_until(patience, || {
            self.check()?;
            SystemClock.sleep(Duration::from_millis(100));
            done()
        })?;
        if !reached {
            bail!("{what} did not happen within {} s", patience.as_secs());
        }
        Ok(())
    }

    /// Says how to look at what was kept, and how to get rid of it.
    fn tell_what_is_left(&self) {
        let directory = self.directory.path().display();
        let root = Uid::effective().is_root();
        let account = if root { "runuser -u postgres -- " } else { "" };
        println!("\nEverything is left in {directory}. To look:");
        println!("  cd {directory}");
        println!("  {account}psql -h {directory}/run -p {WEST} -U postgres ledger");
        println!(
            "  {account}bin/lifeboat --spec lifeboat.yaml --here west wal status payments/ledger"
        );
        println!("To end it:");
        let programs = self.programs.display();
        println!("  {account}{programs}/pg_ctl -D {directory}/west/data -m immediate stop");
        println!("  rm -r {directory}");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.keep {
            self.tell_what_is_left();
            return;
        }
        for data in ["east/data", "west/data"] {
            ledger::stop(self, data);
        }
        // Whatever else there is, it is a child of ours.
        for pid in tree(getpid()).into_iter().skip(1) {
            kill_tree(pid);
        }
    }
}

/// Words as a shell would take them.
fn quoted(words: &[&str]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,%@".contains(c);
    let quote = |word: &&str| {
        if !word.is_empty() && word.chars().all(plain) {
            (*word).to_owned()
        } else if word.contains('\'') {
            let escaped = word.replace('\\', r"\\").replace('"', r#"\""#).replace('$', r"\$");
            format!("\"{escaped}\"")
        } else {
            format!("'{word}'")
        }
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
