//! The process that becomes PostgreSQL: it drops root, takes the grant along and is replaced.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lifeboat_cluster::server::{Running, running};
use lifeboat_cluster::settings::GRANT_DESCRIPTOR;
use lifeboat_telemetry::{Code, Failure, Outcome};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Pid, Uid, User, dup2_stdin, initgroups, setgid, setgroups, setuid};

use super::link::{Become, FromStep};

/// Variables that would lead PostgreSQL elsewhere than its command line says.
const NOT_INHERITED: [&str; 6] =
    ["PGDATA", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGOPTIONS"];

/// Says hello on standard input, which is a socket of init, waits to be told what to become, and
/// becomes it. Returns only if that fails, after it was told to init.
pub fn step() -> Outcome<Infallible> {
    let socket = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let mut socket = socket.map_err(failed)?;
    let error = match talk(&mut socket) {
        Ok(Some(error)) => error,
        // Init is gone, or wants another one.
        Ok(None) => io::ErrorKind::Interrupted.into(),
        Err(error) => error,
    };
    tell(&mut socket, &FromStep::Failed(error.to_string())).map_err(failed)?;
    Err(failed(error))
}

fn talk(socket: &mut UnixStream) -> io::Result<Option<io::Error>> {
    // Standard input stays with PostgreSQL, the copy of it ends with this program.
    dup2_stdin(File::open("/dev/null")?)?;
    let outer = std::fs::read_link("/proc/self")?;
    let outer =
        outer.to_str().and_then(|pid| pid.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    tell(socket, &FromStep::Hello { outer, inner: Pid::this().as_raw() })?;
    let mut line = String::new();
    BufReader::new(&*socket).read_line(&mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    let order: Become = serde_json::from_str(&line)?;
    let context = |error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", order.program.display()))
    };
    let mut command = Command::new(&order.program);
    command.args(&order.arguments).envs(order.variables);
    Ok(Some(context(replace(command, &order.data_directory))))
}

/// Runs a tool that reads the configuration of a managed directory, as pg_rewind does, in the place
/// of this process and as the directory's owner. No server may run there. Returns only on failure.
pub fn borrow(
    data_directory: &Path,
    program: &Path,
    arguments: &[OsString],
) -> Outcome<Infallible> {
    if !matches!(running(data_directory)?, Running::No) {
        let message = format!("a server runs on {}", data_directory.display());
        return Err(Failure::new(Code::GuardRunning, message).hint("Stop it first."));
    }
    let mut command = Command::new(program);
    command.args(arguments);
    let error = replace(command, data_directory);
    Err(Failure::new(Code::GuardStart, format!("{} cannot be run", program.display()))
        .because(error)
        .hint("Name a program that the owner of the data directory may run."))
}

fn replace(mut command: Command, data_directory: &Path) -> io::Error {
    for name in NOT_INHERITED {
        command.env_remove(name);
    }
    if let Err(error) = grant(data_directory) {
        return error;
    }
    if forgo_protection() {
        // Sessions may be killed when memory is short, the postmaster last.
        command.env("PG_OOM_ADJUST_FILE", "/proc/self/oom_score_adj");
        command.env("PG_OOM_ADJUST_VALUE", "0");
    }
    if let Err(error) = drop_root(data_directory) {
        return error;
    }
    umask(Mode::from_bits_truncate(0o077));
    command.current_dir("/").exec()
}

/// The descriptor by which `postgresql.conf` includes what only a guard's children can open.
fn grant(data_directory: &Path) -> io::Result<()> {
    let directory = File::open(data_directory)?;
    if !directory.metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    // Not closed by exec, on purpose, and never closed here.
    match fcntl(&directory, FcntlArg::F_DUPFD(GRANT_DESCRIPTOR))? {
        GRANT_DESCRIPTOR => Ok(()),
        _ => Err(io::Error::other(format!("descriptor {GRANT_DESCRIPTOR} is in use"))),
    }
}

/// The guard's own immunity is not PostgreSQL's. Whether there was one.
fn forgo_protection() -> bool {
    let path = "/proc/self/oom_score_adj";
    let immune = std::fs::read_to_string(path).is_ok_and(|score| score.trim() == "-1000");
    immune && std::fs::write(path, "-900").is_ok()
}

/// Becomes the owner of the data directory, with all groups: a key for TLS may belong to one.
fn drop_root(data_directory: &Path) -> io::Result<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let found = std::fs::metadata(data_directory)?;
    let (uid, gid) = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
    if uid.is_root() {
        return Err(io::Error::other("the data directory belongs to root"));
    }
    let user = User::from_uid(uid).ok().flatten();
    match user {
        Some(user) => {
            let name = CString::new(user.name)?;
            initgroups(&name, user.gid)?;
            setgid(user.gid)?;
        }
        None => {
            setgroups(&[gid])?;
            setgid(gid)?;
        }
    }
    setuid(uid)?;
    Ok(())
}

fn tell(socket: &mut UnixStream, what: &FromStep) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    socket.write_all(&line)
}

fn failed(error: io::Error) -> Failure {
    Failure::new(Code::GuardStart, "PostgreSQL could not be started").because(error)
}

/// The command line of PostgreSQL.
pub(super) fn arguments(
    data_directory: &Path,
    config_file: Option<&PathBuf>,
    settings: impl IntoIterator<Item = (String, String)>,
) -> Vec<String> {
    let mut arguments = vec!["-D".to_owned(), data_directory.display().to_string()];
    let file = config_file.map(|file| ("config_file".to_owned(), file.display().to_string()));
    for (name, value) in file.into_iter().chain(settings) {
        arguments.push("-c".to_owned());
        arguments.push(format!("{name}={value}"));
    }
    arguments
}
