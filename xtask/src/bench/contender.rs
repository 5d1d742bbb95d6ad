//! The tools, each with its own folder, configured alike.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use lifeboat_testkit::process::{Account, run};
use lifeboat_testkit::run::Lifeboat;
use lifeboat_testkit::scratch;
use walkdir::WalkDir;

use super::ground::Ground;

/// How pgBackRest archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One segment a call. Lifeboat has only one mode, this.
    Synchronous,
    /// A process in the background works ahead.
    Asynchronous,
}

/// A tool that is ready to run.
pub struct Contender {
    name: &'static str,
    mode: Mode,
    folder: PathBuf,
    /// The data directory of the source, in which WAL commands run.
    data: PathBuf,
    program: Program,
}

enum Program {
    Lifeboat(Lifeboat),
    PgBackRest,
}

impl Contender {
    /// Builds Lifeboat for release and writes its spec: one region, encryption on.
    pub fn lifeboat(root: &Path, ground: &Ground) -> Result<Self> {
        let mut build = Command::new("cargo");
        let status = build.args(["build", "--release", "--locked"]).current_dir(root).status()?;
        if !status.success() {
            bail!("the release build ended with {status}");
        }
        let program = Program::Lifeboat(Lifeboat::of(&root.join("target/release/lifeboat"))?);
        let name = "lifeboat";
        let folder = ground.scratch().folder(name)?;
        let data = ground.data();
        let (sockets, port, programs) = ground.server_address();
        let (folder_text, data_text) = (folder.display(), data.display());
        let (sockets, programs) = (sockets.display(), programs.display());
        scratch::write(&folder.join("passphrase"), "a passphrase for the bench\n")?;
        scratch::write(
            &folder.join("lifeboat.yaml"),
            format!(
                "lifeboat: 1
state: {folder_text}/state
regions:
  east: {{ repository: {{ url: \"file://{folder_text}/repository\" }} }}
encryption:
  slots:
    - passphrase: \"file:{folder_text}/passphrase\"
tiers:
  bench: {{ rto: 1h, rpo: 1h }}
services:
  bench:
    tier: bench
    home: east
    databases:
      main:
        engine: postgres
        nodes:
          one:
            region: east
            data_directory: {data_text}
            connection: \"host={sockets} port={port} user=postgres dbname=postgres\"
            bin_directory: {programs}
        backup: {{ compression: zstd-1, workers: 2 }}
        wal: {{ mode: archive }}
"
            ),
        )?;
        Ok(Self { name, mode: Mode::Synchronous, folder, data, program })
    }

    /// Configures pgBackRest as its users do who want it fast.
    pub fn pgbackrest(ground: &Ground, mode: Mode) -> Result<Self> {
        let (name, asynchronous) = match mode {
            Mode::Synchronous => ("pgbackrest", "n"),
            Mode::Asynchronous => ("pgbackrest-async", "y"),
        };
        let folder = ground.scratch().folder(name)?;
        let data = ground.data();
        let (sockets, port, _) = ground.server_address();
        let (folder_text, data_text) = (folder.display(), data.display());
        let sockets = sockets.display();
        scratch::write(
            &folder.join("pgbackrest.conf"),
            format!(
                "[global]
repo1-path={folder_text}/repository
repo1-bundle=y
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=a-passphrase-for-the-bench
compress-type=zst
compress-level=3
process-max=2
start-fast=y
repo1-retention-full=9
archive-async={asynchronous}
spool-path={folder_text}/state
lock-path={folder_text}/lock
log-level-file=off
log-level-console=warn
[bench]
pg1-path={data_text}
pg1-socket-path={sockets}
pg1-port={port}
pg1-user=postgres
"
            ),
        )?;
        Ok(Self { name, mode, folder, data, program: Program::PgBackRest })
    }

    /// How tables call it.
    pub fn name(&self) -> &str {
        self.name
    }

    /// How it archives.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Makes a new empty repository and forgets all local state.
    pub fn reset(&self) -> Result<()> {
        for name in ["repository", "state", "lock"] {
            remove(&self.folder.join(name))?;
        }
        let steps: &[&[&str]] = match self.program {
            Program::Lifeboat(_) => &[&["repo", "create"], &["key", "enroll"]],
            Program::PgBackRest => &[&["stanza-create", "--no-online"]],
        };
        for step in steps {
            run(&mut self.command(step)?)?.success()?;
        }
        Ok(())
    }

    /// A full backup.
    pub fn backup(&self) -> Result<Command> {
        match self.program {
            Program::Lifeboat(_) => self.command(&["backup", "bench/main", "--full"]),
            Program::PgBackRest => self.command(&["backup", "--type=full"]),
        }
    }

    /// A restore of the latest backup.
    pub fn restore(&self, target: &Path, delta: bool) -> Result<Command> {
        let mut command = match self.program {
            Program::Lifeboat(_) => {
                let mut command = self.command(&["restore", "bench/main", "--latest"])?;
                command.arg("--to").arg(target);
                command
            }
            Program::PgBackRest => {
                let mut command = self.command(&["restore"])?;
                command.arg(format!("--pg1-path={}", target.display()));
                command
            }
        };
        if delta {
            command.arg("--delta");
        }
        Ok(command)
    }

    /// What PostgreSQL's archiver would run for a segment.
    pub fn push(&self, name: &str) -> Result<Command> {
        let path = format!("pg_wal/{name}");
        match self.program {
            Program::Lifeboat(_) => self.command(&["wal", "push", &path]),
            Program::PgBackRest => self.command(&["archive-push", &path]),
        }
    }

    /// What PostgreSQL's recovery would run for a segment.
    pub fn fetch(&self, name: &str, target: &Path) -> Result<Command> {
        let mut command = match self.program {
            Program::Lifeboat(_) => self.command(&["wal", "fetch", name])?,
            Program::PgBackRest => self.command(&["archive-get", name])?,
        };
        command.arg(target);
        Ok(command)
    }

    /// The same push as a line of shell, with the path as `$1`.
    pub fn archive_command(&self) -> Result<String> {
        let push = match self.program {
            Program::Lifeboat(_) => self.command(&["wal", "push"])?,
            Program::PgBackRest => self.command(&["archive-push"])?,
        };
        let words = std::iter::once(push.get_program()).chain(push.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.display())).collect();
        Ok(format!("{} \"$1\"", words.join(" ")))
    }

    fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = match &self.program {
            Program::Lifeboat(lifeboat) => {
                let mut command = Command::new(lifeboat.program());
                command.arg("--spec").arg(self.folder.join("lifeboat.yaml")).arg("--here=east");
                command
            }
            Program::PgBackRest => {
                let mut command = Command::new("/usr/bin/pgbackrest");
                let configuration = self.folder.join("pgbackrest.conf");
                command.arg(format!("--config={}", configuration.display())).arg("--stanza=bench");
                command
            }
        };
        command.args(words).env_clear().env("PATH", "/usr/bin:/bin").current_dir(&self.data);
        Account::of_server()?.apply(&mut command);
        Ok(command)
    }

    /// Is there something to restore?
    pub fn has_backup(&self) -> bool {
        let folder = match self.program {
            Program::Lifeboat(_) => "streams",
            Program::PgBackRest => "backup/bench/latest",
        };
        self.folder.join("repository").join(folder).exists()
    }

    /// The size of all files of the repository.
    pub fn stored_bytes(&self) -> Result<u64> {
        let mut sum = 0;
        for entry in WalkDir::new(self.folder.join("repository")) {
            let entry = entry?;
            if entry.file_type().is_file() {
                sum += entry.metadata()?.len();
            }
        }
        Ok(sum)
    }

    /// Where it restores to.
    pub fn target(&self) -> PathBuf {
        self.folder.join("restored")
    }

    /// Makes that an empty directory. What was there gives its blocks back and keeps its inodes until
    /// the end: ext4 without a journal looks at every inode that was deleted within minutes each
    /// time it makes a file, which would be counted as the next restore's work.
    pub fn empty_target(&self) -> Result<()> {
        let target = self.target();
        if target.exists() {
            for entry in WalkDir::new(&target) {
                let entry = entry?;
                if entry.file_type().is_file() {
                    File::options().write(true).open(entry.path())?.set_len(0)?;
                }
            }
            let emptied = self.folder.join("emptied");
            fs::create_dir_all(&emptied)?;
            let number = fs::read_dir(&emptied)?.count();
            fs::rename(&target, emptied.join(number.to_string()))?;
        }
        fs::create_dir(&target)?;
        fs::set_permissions(&target, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        scratch::give(&target)
    }

    /// Keeps the local state, in which segments may wait that were fetched ahead.
    pub fn save_state(&self) -> Result<()> {
        self.copy_state("state", "saved")
    }

    /// Puts the local state back.
    pub fn restore_state(&self) -> Result<()> {
        self.copy_state("saved", "state")
    }

    fn copy_state(&self, from: &str, to: &str) -> Result<()> {
        remove(&self.folder.join(to))?;
        let from = self.folder.join(from);
        if from.exists() {
            run(Command::new("cp").arg("-a").arg(from).arg(self.folder.join(to)))?.success()?;
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
