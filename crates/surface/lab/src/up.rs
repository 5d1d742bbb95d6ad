//! `lifeboat lab up`: from an empty directory to a service with clients.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use lifeboat_environment::Environment;
use lifeboat_telemetry::{Cancel, Code, Failure, Outcome, Reporter};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::disk::{self, make_folder};
use crate::host::Host;
use crate::layout::{DATABASE, Domain, ENDPOINT, ETCD_PORT, Isolation, Layout, SERVICE};
use crate::ledger::{History, Way};
use crate::parts;
use crate::state::{self, Held, local};
use crate::{network, programs};

/// What to build.
#[derive(Debug)]
pub struct Wish {
    /// The directory, an absolute path.
    pub root: PathBuf,
    /// The binary whose daemons and commands are used.
    pub binary: PathBuf,
    /// Addresses of the loopback instead of namespaces, also for root.
    pub loopback: bool,
    /// Only what is not Lifeboat's: no daemons, no clients.
    pub bare: bool,
    /// Daemons whose wall clock can be moved.
    pub fake_time: bool,
}

/// Builds a lab and starts everything in it.
pub fn up<'a>(
    wish: &Wish,
    environment: &'a Environment,
    reporter: &'a Reporter,
    cancel: &'a Cancel,
) -> Outcome<Host<'a>> {
    programs::check()?;
    if wish.fake_time && parts::fake_time().is_none() {
        return Err(Failure::new(Code::LabPart, "this machine lacks libfaketime")
            .hint("`cargo xtask install`, or `apt-get install libfaketime`."));
    }
    let isolation = isolation(wish, environment)?;
    let layout = Layout::new(&wish.root, isolation);
    let held = claim(layout)?;
    let mut host = Host { held, environment, reporter, cancel };
    folders(&host, &wish.binary)?;
    if host.layout().has_namespaces() {
        reporter.note("Networks, disks and cgroups of east, west, north and clients.");
        network::build(host.layout())?;
        cgroups(host.layout())?;
    }
    for domain in Domain::ALL {
        disk::build(host.layout(), domain)?;
    }
    settings(&mut host, wish.fake_time)?;
    others(&mut host)?;
    if !wish.bare {
        lifeboat(&mut host)?;
        clients(&mut host)?;
    }
    for domain in Domain::REGIONS {
        disk::settle(host.layout(), domain)?;
    }
    host.held.state.complete = true;
    host.held.save()?;
    Ok(host)
}

/// Namespaces for root; else, or if asked for, addresses of the loopback that nobody uses.
fn isolation(wish: &Wish, environment: &Environment) -> Outcome<Isolation> {
    if Uid::effective().is_root() && !wish.loopback {
        return Ok(Isolation::Namespaces);
    }
    if Uid::effective().is_root() {
        let message = "PostgreSQL does not run as root, and without namespaces nobody else does";
        return Err(Failure::new(Code::LabPart, message)
            .hint("Leave --loopback away, or start the lab as another user."));
    }
    let first = environment.random().next_u64();
    let candidates =
        (0..100_u64).filter_map(|step| u8::try_from(64 + first.wrapping_add(step) % 190).ok());
    let free = |net: &u8| {
        let layout = Layout::new(&wish.root, Isolation::Loopback { net: *net });
        let address = (layout.host(Domain::East), ETCD_PORT);
        std::net::TcpListener::bind(address).is_ok()
            && std::net::TcpListener::bind(layout.dns(Domain::East)).is_ok()
    };
    let net = { candidates }.find(free).ok_or_else(|| {
        Failure::new(Code::LabNetwork, "no network of the loopback is free")
            .hint("Which labs are up? `pgrep -a etcd` shows their members.")
    })?;
    Ok(Isolation::Loopback { net })
}

/// Takes the directory: it must be empty, or not be there.
fn claim(layout: Layout) -> Outcome<Held> {
    let root = layout.root().to_owned();
    if state::is_lab(&root) {
        let message = format!("there is a lab in {} already", root.display());
        return Err(Failure::new(Code::LabInTheWay, message)
            .hint("`lifeboat lab status` shows it, `lifeboat lab down` takes it away."));
    }
    fs::create_dir_all(&root).map_err(|error| local("cannot make", &root).because(error))?;
    let mut entries =
        fs::read_dir(&root).map_err(|error| local("cannot read", &root).because(error))?;
    if entries.next().is_some() {
        let message = format!("{} is not empty, and no lab", root.display());
        return Err(Failure::new(Code::LabInTheWay, message)
            .hint("Name an empty directory with --directory or LIFEBOAT_LAB."));
    }
    Held::create(layout)
}

fn folders(host: &Host<'_>, binary: &Path) -> Outcome<()> {
    let layout = host.layout();
    let open = |path: &Path| {
        let mode = fs::Permissions::from_mode(0o755);
        fs::create_dir_all(path)
            .and_then(|()| fs::set_permissions(path, mode))
            .map_err(|error| local("cannot make", path).because(error))
    };
    open(layout.root())?;
    for folder in ["bin", "run", "log"] {
        open(&layout.root().join(folder))?;
    }
    // A copy: the servers' account may not be able to look into the folder of the build, and a new
    // build must not change a lab that runs.
    let own = layout.binary();
    fs::copy(binary, &own)
        .and_then(|_| fs::set_permissions(&own, fs::Permissions::from_mode(0o755)))
        .map_err(|error| local("cannot copy the binary to", &own).because(error))?;
    make_folder(layout, &layout.root().join("ledger"))?;
    make_folder(layout, &layout.root().join("repository"))?;
    for domain in Domain::ALL {
        make_folder(layout, &layout.runtime(domain))?;
        make_folder(layout, &layout.logs(domain))?;
    }
    Ok(())
}

fn cgroups(layout: &Layout) -> Outcome<()> {
    if !Path::new("/sys/fs/cgroup/freezer/cgroup.procs").exists() {
        return Ok(());
    }
    for domain in Domain::ALL {
        let path = layout.cgroup().join(domain.name());
        fs::create_dir_all(&path).map_err(|error| local("cannot make", &path).because(error))?;
    }
    Ok(())
}

fn settings(host: &mut Host<'_>, fake_time: bool) -> Outcome<()> {
    parts::write_settings(host.layout(), host.environment)?;
    let spec = parts::spec_text(host.layout());
    disk::write(host.layout(), &host.layout().spec(), &spec)?;
    for domain in Domain::VOTERS {
        make_folder(host.layout(), &host.layout().state(domain))?;
    }
    host.held.state.units = parts::units(host.layout(), fake_time)?;
    host.held.save()
}

/// What is not Lifeboat's: etcd, DNS, load balancers, and an empty database in the east.
fn others(host: &mut Host<'_>) -> Outcome<()> {
    host.reporter.note("Three members of etcd, DNS in both regions and for clients, HAProxy.");
    for domain in Domain::VOTERS {
        host.start(domain, parts::ETCD)?;
    }
    for domain in [Domain::East, Domain::West, Domain::Clients] {
        host.start(domain, parts::DNS)?;
    }
    for domain in host.layout().balanced() {
        host.start(domain, parts::BALANCER)?;
    }
    host.wait_for("a majority of etcd", |host| Ok(host.etcd_answers(Domain::North)))?;
    for domain in [Domain::East, Domain::West] {
        host.wait_for("an answer of DNS", |host| {
            let (server, port) = host.layout().dns(domain);
            let (server, port) = (format!("@{server}"), port.to_string());
            let words = ["dig", &server, "-p", &port, "+time=1", "+tries=1", "+short", "SOA"];
            let said = host.quietly(domain, &[&words[..], &[crate::layout::ZONE]].concat());
            Ok(said.is_ok_and(|said| !said.trim().is_empty()))
        })?;
    }
    initialise(host)
}

fn initialise(host: &Host<'_>) -> Outcome<()> {
    let (layout, east) = (host.layout(), Domain::East);
    let data = layout.data(east).to_string_lossy().into_owned();
    let words = ["initdb", "--pgdata", &data, "--username", "postgres", "--auth", "trust"];
    let more = ["--data-checksums", "--encoding", "UTF8", "--locale", "C.UTF-8"];
    host.program(east, &[&words[..], &more[..]].concat())?;
    let settings = layout.data(east).join("postgresql.conf");
    let defaults = fs::read_to_string(&settings)
        .map_err(|error| local("cannot read", &settings).because(error))?;
    let text = format!("{defaults}\n# The lab's.\n{}", parts::database(layout));
    disk::write(layout, &settings, &text)?;
    disk::write(layout, &layout.data(east).join("pg_hba.conf"), &parts::access(layout))
}

/// Lifeboat, as its users set it up: a database that is there gets repositories, a backup and a
/// standby, and then changes hands.
fn lifeboat(host: &mut Host<'_>) -> Outcome<()> {
    use Domain::{East, West};
    let data = host.layout().data(East).to_string_lossy().into_owned();
    let log = host.layout().logs(East).join("postgres.log").to_string_lossy().into_owned();
    host.program(East, &["pg_ctl", "start", "-w", "-s", "-D", &data, "-l", &log])?;
    host.sql(East, "postgres", "CREATE DATABASE books")?;
    host.sql(East, "books", crate::ledger::SCHEMA)?;
    host.lifeboat(East, &["repo", "create"])?;
    for domain in [West, Domain::North] {
        host.lifeboat(domain, &["key", "enroll"])?;
    }
    let receivers = Domain::REGIONS.map(|region| receive(host, region));
    host.lifeboat(East, &["backup", DATABASE])?;
    host.lifeboat(West, &["standby", "create", DATABASE])?;
    for receiver in receivers {
        end(receiver?)?;
    }
    host.program(East, &["pg_ctl", "stop", "-w", "-s", "-m", "fast", "-D", &data])?;
    for domain in Domain::REGIONS {
        host.daemon(domain, parts::AGENT)?;
    }
    for domain in Domain::VOTERS {
        host.daemon(domain, parts::CONTROLLER)?;
    }
    host.lifeboat(East, &["apply"])?;
    host.wait_for("a primary in the east", |host| Ok(host.is_primary(East)))?;
    let streams = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'";
    host.wait_for("a standby that streams", |host| {
        Ok(host.sql(West, "postgres", streams).is_ok_and(|said| said == "1"))
    })
}

/// A receiver until there are agents, which run them.
fn receive(host: &Host<'_>, region: Domain) -> Outcome<Child> {
    host.reporter.note(format!("[{region}] $ lifeboat wal receive {DATABASE} &"));
    let log = host.layout().logs(region).join("receive.log");
    let failed = |error| local("cannot start a receiver; its log is", &log).because(error);
    let file = fs::File::create(&log).map_err(failed)?;
    let mut command = host.command(region, &["lifeboat", "wal", "receive", DATABASE]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().map_err(failed)
}

fn end(mut receiver: Child) -> Outcome<()> {
    let pid = Pid::from_raw(receiver.id().cast_signed());
    let ended = kill(pid, Signal::SIGTERM).map_err(std::io::Error::from);
    ended
        .and_then(|()| receiver.wait())
        .map(drop)
        .map_err(|error| Failure::new(Code::LabPart, "a receiver does not end").because(error))
}

fn clients(host: &mut Host<'_>) -> Outcome<()> {
    host.reporter.note(format!("Clients of {SERVICE}, through {ENDPOINT} and straight."));
    host.start(Domain::Clients, parts::LEDGER)?;
    host.wait_for("a write through the endpoint", |host| {
        let written = History::read(&host.layout().history());
        Ok(written
            .is_ok_and(|history| history.acknowledged().any(|entry| entry.way == Way::Endpoint)))
    })
}
