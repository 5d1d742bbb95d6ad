//! The process table, as `/proc` shows it.

use std::collections::BTreeMap;
use std::io;

use nix::unistd::Pid;

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: Pid,
    /// Its parent's.
    pub parent: Pid,
    /// Whether it has ended and only waits to be asked for its exit code.
    pub ended: bool,
}

/// All processes that this one may see. One that ends meanwhile may be missing.
pub fn table() -> io::Result<Vec<Process>> {
    let mut found = Vec::with_capacity(256);
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Ok(stat) = std::fs::read(format!("/proc/{pid}/stat")) {
            found.extend(parse(pid, &stat));
        }
    }
    Ok(found)
}

/// The processes below `root` that have not ended, nearest first. Who belongs there but was born
/// while the table was read may be missing: look again until none is left.
pub fn living_below(root: Pid) -> io::Result<Vec<Pid>> {
    let mut children: BTreeMap<Pid, Vec<Process>> = BTreeMap::new();
    for process in table()? {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = vec![Process { pid: root, parent: root, ended: false }];
    let mut next = 0;
    while let Some(process) = found.get(next) {
        let below = children.remove(&process.pid).unwrap_or_default();
        found.extend(below.into_iter().filter(|process| process.pid != root));
        next += 1;
    }
    Ok(found.into_iter().skip(1).filter(|process| !process.ended).map(|it| it.pid).collect())
}

/// The fields of `/proc/PID/stat` that matter. A name may hold anything: they are counted from its
/// last parenthesis.
fn parse(pid: i32, stat: &[u8]) -> Option<Process> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(stat.get(end + 1..)?).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let ended = matches!(state, "Z" | "X" | "x");
    Some(Process { pid: Pid::from_raw(pid), parent: Pid::from_raw(parent), ended })
}

#[cfg(test)]
mod tests;
