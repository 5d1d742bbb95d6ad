//! From a process of the machine to one of a domain: what `lifeboat lab enter` does before it
//! becomes the command that it was given.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use lifeboat_telemetry::{Cancel, Code, Failure, Outcome};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{User, getpid, setgid, setgroups, setsid, setuid};

use crate::kernel;
use crate::layout::{Domain, Layout};
use crate::process::usual_variables;

/// The account that PostgreSQL and everything beside it runs as where the lab has root's rights.
pub const ACCOUNT: &str = "postgres";

/// What to become.
#[derive(Debug)]
pub struct Entrance<'a> {
    /// The lab.
    pub layout: &'a Layout,
    /// Where.
    pub domain: Domain,
    /// Whether to keep root's rights.
    pub privileged: bool,
    /// Program and arguments.
    pub command: &'a [OsString],
    /// Whether it leaves the terminal of whoever starts it.
    pub detached: bool,
    /// Set when somebody wants it to end.
    pub cancel: &'a Cancel,
}

/// Becomes the command; returns only why it could not.
pub fn enter(entrance: &Entrance<'_>) -> Failure {
    let Some((program, arguments)) = entrance.command.split_first() else {
        return Failure::new(Code::Usage, "no command was given");
    };
    // A signal that came until now was meant for what this is about to become, which would not hear of
    // it; the next one ends either.
    let prepared = prepare(entrance).and_then(|()| kernel::stop_listening());
    if let Err(failure) = prepared.and_then(|()| entrance.cancel.check()) {
        return failure;
    }
    let mut command = Command::new(program);
    command.args(arguments).envs(usual_variables(entrance.layout, entrance.domain));
    // The search for the program uses the variables that it gets.
    let error = command.exec();
    Failure::new(Code::LabPart, format!("cannot start {}", program.to_string_lossy()))
        .because(error)
}

fn prepare(entrance: &Entrance<'_>) -> Outcome<()> {
    let Entrance { layout, domain, .. } = *entrance;
    if entrance.detached {
        // Fails only for the leader of a group, which has a session of its own then.
        let _ = setsid();
    }
    if !layout.has_namespaces() {
        return Ok(());
    }
    let step = |what: &str, error: nix::Error| {
        Failure::new(Code::LabPart, format!("cannot {what} of {domain}"))
            .because(error)
            .hint("A lab with namespaces needs root; `lifeboat lab status` says whether it is up.")
    };
    join_cgroup(layout, domain)?;
    join_network(layout, domain)?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| step("leave the mounts", error))?;
    mounts(layout, domain).map_err(|error| step("make the mounts", error))?;
    if entrance.privileged {
        return Ok(());
    }
    let account = User::from_name(ACCOUNT).ok().flatten().ok_or_else(no_account)?;
    setgroups(&[account.gid])
        .and_then(|()| setgid(account.gid))
        .and_then(|()| setuid(account.uid))
        .map_err(|error| step("take the account", error))
}

/// There is nobody to run PostgreSQL as.
pub fn no_account() -> Failure {
    Failure::new(Code::LabPart, format!("there is no user `{ACCOUNT}`"))
        .hint("`cargo xtask install`, or `apt-get install postgresql-15`.")
}

fn join_cgroup(layout: &Layout, domain: Domain) -> Outcome<()> {
    let path = layout.cgroup().join(domain.name()).join("cgroup.procs");
    // Without freezer cgroups the lab has fewer faults, and is told so when one is asked for.
    if !path.exists() {
        return Ok(());
    }
    fs::write(&path, getpid().to_string())
        .map_err(|error| crate::state::local("cannot write", &path).because(error))
}

/// Moves this thread into the network of a domain.
pub fn join_network(layout: &Layout, domain: Domain) -> Outcome<()> {
    join_namespace(&layout.namespace(domain))
}

/// Moves this thread into a network namespace.
pub(crate) fn join_namespace(name: &str) -> Outcome<()> {
    let path = Path::new("/run/netns").join(name);
    let file = fs::File::open(&path)
        .map_err(|error| crate::state::local("cannot open", &path).because(error))?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|error| {
        Failure::new(Code::LabNetwork, format!("cannot enter {}", path.display())).because(error)
    })
}

/// The domain's own disk only, of this lab and of any other, so that the end of a disk is in nobody's
/// way; and its own resolver.
fn mounts(layout: &Layout, domain: Domain) -> nix::Result<()> {
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_PRIVATE | MsFlags::MS_REC, nothing)?;
    let own = layout.disk(domain);
    for place in crate::disk::of_all_labs().into_iter().filter(|place| *place != own) {
        // Gone already, with the lab that it belonged to.
        let _ = umount2(&place, MntFlags::MNT_DETACH);
    }
    let resolver = layout.settings().join(format!("resolv-{domain}.conf"));
    mount(Some(&resolver), "/etc/resolv.conf", nothing, MsFlags::MS_BIND, nothing)
}
