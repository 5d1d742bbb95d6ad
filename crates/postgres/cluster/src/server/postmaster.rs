//! `postmaster.pid` and `postmaster.opts`: whether a server runs on a directory, and how it was
//! started.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lifeboat_telemetry::{Code, Failure, Outcome};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// What a server writes about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postmaster {
    /// The process.
    pub pid: i32,
    /// Its data directory.
    pub data_directory: PathBuf,
    /// Its port, once it listens.
    pub port: Option<u16>,
    /// The directory of its socket, once it listens.
    pub socket_directory: Option<PathBuf>,
    /// Whether it accepts connections.
    pub ready: bool,
}

/// Who works on a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Running {
    /// Nobody; a `postmaster.pid` may be left over from a crash.
    No,
    /// A server.
    Server(Postmaster),
    /// Processes of a server that is gone itself; they can still write.
    Orphans(Vec<i32>),
}

impl Postmaster {
    /// Reads the file; `None` if it is not one.
    pub fn parse(content: &str) -> Option<Self> {
        let lines: Vec<_> = content.lines().map(str::trim).collect();
        let line = |at: usize| lines.get(at).copied().filter(|line| !line.is_empty());
        // A single-user server writes its number negative.
        let pid = line(0)?.parse::<i32>().ok()?.checked_abs().filter(|pid| *pid > 0)?;
        Some(Self {
            pid,
            data_directory: PathBuf::from(line(1)?),
            port: line(3).and_then(|port| port.parse().ok()),
            socket_directory: line(4).map(PathBuf::from),
            ready: matches!(line(7), Some("ready" | "standby")),
        })
    }
}

/// Looks whether a server, or what is left of one, works on the directory.
pub fn running(data_directory: &Path) -> Outcome<Running> {
    let path = data_directory.join("postmaster.pid");
    let content = match std::fs::read_to_string(&path) {
        Ok(content) => Some(content),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(Failure::new(
                Code::SourceFileUnreadable,
                format!("cannot read {}", path.display()),
            )
            .because(error)
            .hint("Run as the user that owns the data directory."));
        }
    };
    if let Some(postmaster) = content.as_deref().and_then(Postmaster::parse)
        && is_server_of(postmaster.pid, data_directory)
    {
        return Ok(Running::Server(postmaster));
    }
    let orphans = processes_in(data_directory);
    Ok(if orphans.is_empty() { Running::No } else { Running::Orphans(orphans) })
}

/// PostgreSQL takes a `postmaster.pid` for valid if a process of that number and its user lives, also one
/// that has ended and was not collected yet. After a crash the number may be another's: for callers who
/// have just seen that nobody works on the directory.
pub fn forget_number(data_directory: &Path) {
    let path = data_directory.join("postmaster.pid");
    let content = std::fs::read_to_string(&path).unwrap_or_default();
    let lives = |pid: i32| kill(Pid::from_raw(pid), None).is_ok();
    if Postmaster::parse(&content).is_some_and(|postmaster| lives(postmaster.pid)) {
        let _ = std::fs::remove_file(path);
    }
}

/// Whether the process lives and can be that server: after a crash its number may be another's.
fn is_server_of(pid: i32, data_directory: &Path) -> bool {
    let lives = matches!(kill(Pid::from_raw(pid), None), Ok(()) | Err(Errno::EPERM));
    // A server works in its data directory. Who may not see that must assume the worst.
    lives && works_in(pid, data_directory).unwrap_or(true)
}

/// `None` if this user may not know.
fn works_in(pid: i32, directory: &Path) -> Option<bool> {
    match std::fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(place) => Some(place == std::fs::canonicalize(directory).ok()?),
        // It has ended, whether its parent has asked for the exit code or not.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(false),
        // After a reboot the number may be anybody's. A server is called so and runs as the owner.
        Err(_) => (!is_postgres(pid) || is_another_users(pid, directory)).then_some(false),
    }
}

fn is_postgres(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|name| name.starts_with("postgres") || name.starts_with("postmaster"))
}

/// What hides its memory belongs to root here, and may be anybody's.
fn is_another_users(pid: i32, directory: &Path) -> bool {
    let user = |path: &Path| std::fs::metadata(path).map(|found| found.uid()).ok();
    match (user(Path::new(&format!("/proc/{pid}"))), user(directory)) {
        (Some(process), Some(owner)) => process != owner && process != 0,
        _ => false,
    }
}

/// Processes of PostgreSQL that work in the directory.
fn processes_in(directory: &Path) -> Vec<i32> {
    let numbers = std::fs::read_dir("/proc").into_iter().flatten();
    let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|pid| is_postgres(*pid))
        .filter(|pid| works_in(*pid, directory) == Some(true))
        .collect()
}

/// The `config_file` that a server was last started with, as `postmaster.opts` tells; Debian's
/// lies outside of the data directory. `None` if it was the usual one or was never started.
pub fn started_with(data_directory: &Path) -> Option<PathBuf> {
    let content = std::fs::read_to_string(data_directory.join("postmaster.opts")).ok()?;
    // The program's path stands first; each argument follows in quotes.
    let arguments = content.split('"').skip(1).step_by(2);
    let values = arguments.filter_map(|argument| {
        let option = argument.strip_prefix("--").unwrap_or(argument);
        let (name, value) = option.split_once('=')?;
        matches!(name, "config_file" | "config-file").then_some(value)
    });
    values.last().map(PathBuf::from)
}
