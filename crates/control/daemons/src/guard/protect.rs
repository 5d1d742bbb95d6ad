//! What keeps a guard alive and awake on a host in trouble.

use std::ffi::CStr;

use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::unistd::{Pid, Uid, getpgrp, setsid};

use lifeboat_drivers::guard::processes;

/// Names this process, for `ps`, and takes it out of its parent's session: an agent that is
/// stopped with its process group leaves the guard alone.
pub(super) fn detach(name: &CStr) {
    let _ = nix::sys::prctl::set_name(name);
    // A leader of a group has a session of its own, or is run by a person who sees it.
    if getpgrp() != Pid::this() {
        let _ = setsid();
    }
}

/// Locks what the kill needs into memory, and asks the kernel to kill others first when memory is
/// short. Returns whether memory is locked.
pub(super) fn stay() -> bool {
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    // The way of a kill, once, so that its pages are there; only used ones are locked, for the
    // binary is large and a guard is small.
    let _ = processes::living_below(Pid::this());
    let on_fault = MlockAllFlags::from_bits_retain(nix::libc::MCL_ONFAULT);
    // What comes later only for root: others have a limit, and an allocation beyond it would fail.
    let future = match Uid::effective().is_root() {
        true => MlockAllFlags::MCL_FUTURE,
        false => MlockAllFlags::empty(),
    };
    mlockall(MlockAllFlags::MCL_CURRENT | future | on_fault) == Ok::<(), Errno>(())
}
