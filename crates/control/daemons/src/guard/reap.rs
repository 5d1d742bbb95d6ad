//! Children that have ended.

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A child that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub pid: Pid,
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
}

/// What is known of the children after a look.
#[derive(Debug, Default)]
pub(super) struct Children {
    /// Those that have ended since the last look.
    pub ended: Vec<Ended>,
    /// Whether there is none left. Orphans below come to this process: so there is none at all.
    pub none_left: bool,
}

/// Looks, without waiting.
pub(super) fn children() -> Children {
    let mut children = Children::default();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => {
                children.ended.push(Ended { pid, code: Some(code) });
            }
            Ok(WaitStatus::Signaled(pid, _, _)) => children.ended.push(Ended { pid, code: None }),
            Ok(WaitStatus::StillAlive) => return children,
            Err(Errno::ECHILD) => {
                children.none_left = true;
                return children;
            }
            Err(Errno::EINTR) | Ok(_) => {}
            Err(_) => return children,
        }
    }
}
