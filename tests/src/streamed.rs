//! A database that writes in the east, a host with a receiver in each region, and clients.
//!
//! The east's repository is a directory, the west's is a store that can be killed. Commits wait for
//! the west.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_testkit::postgres::Cluster;
use lifeboat_testkit::process::{Finished, PATIENCE, Running, run, tree, wait_until};
use lifeboat_testkit::run::Lifeboat;
use lifeboat_testkit::scratch;
use lifeboat_testkit::store::{FaultProxy, Profile, S3Server};
use nix::sys::signal::{Signal, kill};

use crate::restored::promote;
use crate::told::{Clients, Comparison};
use crate::world::{DATABASE, Setup, World};

const CLIENTS: usize = 4;

/// Where WAL must lie to be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// On the disk of the receiver's host.
    Spool,
    /// In the region's repository.
    Repository,
}

/// A host in a region: its state, and the receiver that runs on it.
#[derive(Debug)]
pub struct Host {
    region: &'static str,
    lifeboat: Lifeboat,
    state: PathBuf,
    receiver: Option<Running>,
    /// What its receivers said, one after the other.
    said: String,
}

/// All of it.
#[derive(Debug)]
pub struct Streamed {
    /// Clients, which remember.
    pub clients: Clients,
    /// The host beside the server.
    pub east: Host,
    /// The host for which commits wait.
    pub west: Host,
    /// The west's store.
    pub store: S3Server,
    /// What stands before it.
    pub proxy: FaultProxy,
    durable: Durable,
    copies: usize,
    /// The server in the east, the spec, and everything else; goes last.
    pub world: World,
}

impl Host {
    fn new(world: &World, region: &'static str, name: &str) -> Result<Self> {
        let state = world.scratch.folder(name)?;
        let mut lifeboat = Lifeboat::new()?;
        for (name, value) in variables(&state) {
            lifeboat = lifeboat.variable(name, value);
        }
        Ok(Self { region, lifeboat, state, receiver: None, said: String::new() })
    }

    fn run(&self, world: &World, words: &[&str]) -> Result<Finished> {
        self.lifeboat.run(world.arguments(self.region, words))
    }

    /// Starts its receiver, unless it runs.
    fn receive(&mut self, world: &World) -> Result<()> {
        if let Some(receiver) = &mut self.receiver {
            if receiver.is_running()? {
                return Ok(());
            }
            self.is_gone()?;
        }
        let words = world.arguments(self.region, &["-v", "wal", "receive", DATABASE]);
        self.receiver = Some(self.lifeboat.spawn(words)?);
        Ok(())
    }

    /// Sends a signal to its receiver, if there is one; SIGKILL ends it.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let Some(receiver) = &self.receiver else { return Ok(()) };
        receiver.signal(signal)?;
        if signal == Signal::SIGKILL { self.is_gone() } else { Ok(()) }
    }

    /// Waits until its receiver has ended, and keeps what it said.
    fn is_gone(&mut self) -> Result<()> {
        let Some(receiver) = self.receiver.take() else { return Ok(()) };
        let finished = receiver.wait(PATIENCE)?;
        self.said.push_str(&format!("{finished}\n"));
        // Nothing that happens here is a reason to give up by itself.
        ensure!(finished.signal.is_some(), "the receiver has ended by itself: {finished}");
        Ok(())
    }
}

impl Streamed {
    /// Commits wait, clients write.
    pub fn start(durable: Durable) -> Result<Self> {
        let store = S3Server::start()?;
        let proxy = FaultProxy::start(store.endpoint(), Profile::CALM, 7)?;
        let mut world = prepare(durable, proxy.endpoint())?;
        let (mut east, mut west) =
            (Host::new(&world, "east", "east-1")?, Host::new(&world, "west", "west-1")?);
        east.run(&world, &["repo", "create"])?.success()?;
        west.run(&world, &["key", "enroll"])?.success()?;
        world.source.start()?;
        east.receive(&world)?;
        west.receive(&world)?;
        world.source.wait_for(STREAMING, "2")?;
        east.run(&world, &["backup", DATABASE])?.success()?;
        east.run(&world, &["wal", "acknowledge", DATABASE])?.success()?;
        let clients = Clients::start(&world.source, CLIENTS)?;
        Ok(Self { clients, east, west, store, proxy, durable, copies: 0, world })
    }

    /// Commits wait for nobody any more.
    pub fn wait_for_nobody(&self) -> Result<()> {
        self.east.run(&self.world, &["wal", "acknowledge", DATABASE, "--undo"])?.success()?;
        Ok(())
    }

    /// Sends a signal to the server and everything below it; nobody survives SIGKILL.
    pub fn signal_server(&mut self, signal: Signal) -> Result<()> {
        let server = &mut self.world.source;
        let Some(postmaster) = server.pid() else { return Ok(()) };
        if signal == Signal::SIGKILL {
            return server.kill9();
        }
        for process in tree(postmaster) {
            let _ = kill(process, signal);
        }
        Ok(())
    }

    /// Starts what does not run, and waits for nothing.
    pub fn revive(&mut self) -> Result<()> {
        if self.world.source.pid().is_none() {
            self.world.source.launch()?;
        }
        self.east.receive(&self.world)?;
        self.west.receive(&self.world)
    }

    /// Starts what does not run, and waits until commits are told again.
    pub fn repair(&mut self) -> Result<()> {
        let before = self.clients.told();
        let whole = wait_until(PATIENCE, || {
            self.revive()?;
            SystemClock.sleep(Duration::from_millis(50));
            let streams = self.world.source.psql(SYNCHRONOUS);
            Ok(streams.is_ok_and(|found| found == "2|1") && self.clients.told() > before)
        })?;
        if !whole {
            let found = self.world.source.psql("SELECT * FROM pg_stat_replication")?;
            bail!("no commit is told: {found}");
        }
        Ok(())
    }

    /// The server dies, and with it its disk and everything that the region has.
    pub fn lose_east(&mut self) -> Result<()> {
        self.signal_server(Signal::SIGKILL)?;
        self.east.signal(Signal::SIGKILL)?;
        for gone in [self.world.source.data(), &self.world.repository("east"), &self.east.state] {
            fs::remove_dir_all(gone)?;
        }
        Ok(())
    }

    /// Kills the west's receiver, restores from the west alone, and compares. What the host still
    /// has is shipped only where commits did not wait for the repository itself.
    pub fn restore_from_west(&mut self) -> Result<Comparison> {
        self.west.signal(Signal::SIGKILL)?;
        if self.durable == Durable::Spool {
            let drained = self.west.run(&self.world, &["wal", "receive", DATABASE, "--drain"])?;
            self.west.said.push_str(&format!("{drained}\n"));
            drained.success()?;
        }
        self.copies += 1;
        let to = self.world.target(&self.copies.to_string());
        let (spec, place) = (self.spec_of_west()?, to.display().to_string());
        // Another host, as the disk of the first may be lost too.
        let host = Host::new(&self.world, "west", &format!("west-copy-{}", self.copies))?;
        let words = ["--spec", &spec, "--here", "west"];
        let words = words.into_iter().chain(["restore", DATABASE, "--to", &place, "--latest"]);
        host.lifeboat.ok(words)?;
        let mut copy = Cluster::over(self.world.major(), &to)?;
        let automatic = copy.data().join("postgresql.auto.conf");
        let settings =
            variables(&host.state).map(|(name, value)| format!("{name}={value} ")).concat();
        let command = fs::read_to_string(&automatic)?
            .replace("restore_command = '", &format!("restore_command = '{settings}"));
        scratch::write(&automatic, command)?;
        promote(&mut copy)?;
        let compared = self.clients.compare(&copy).with_context(|| copy.log())?;
        drop(copy);
        fs::remove_dir_all(&to)?;
        Ok(compared)
    }

    /// A spec whose east is nowhere.
    fn spec_of_west(&self) -> Result<String> {
        let spec = fs::read_to_string(self.world.spec())?;
        let east = self.world.repository("east").display().to_string();
        let nowhere = self.world.scratch.join("nowhere").display().to_string();
        ensure!(spec.contains(&east), "no repository of the east in {spec}");
        let file = self.world.scratch.file("west.yaml", spec.replace(&east, &nowhere))?;
        Ok(file.display().to_string())
    }

    /// Keeps what may tell what has happened.
    pub fn keep_evidence(&mut self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("server.log"), self.world.source.log())?;
        for host in [&mut self.east, &mut self.west] {
            // That it ended by itself is known already, or beside the point now.
            let _ = host.signal(Signal::SIGKILL);
            fs::write(folder.join(format!("{}.log", host.region)), &host.said)?;
        }
        for (key, bytes) in self.store.objects() {
            let path = folder.join("west").join(key);
            fs::create_dir_all(path.parent().context("no folder")?)?;
            fs::write(path, bytes)?;
        }
        // The server's disk, both hosts' spools, the east's repository.
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(self.world.scratch.path()).arg(self.world.source.data()).arg(folder);
        run(&mut copy)?;
        Ok(())
    }
}

const STREAMING: &str = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";

const SYNCHRONOUS: &str = "SELECT count(*) FILTER (WHERE state = 'streaming'),
    count(*) FILTER (WHERE state = 'streaming' AND sync_state = 'quorum')
    FROM pg_stat_replication";

fn variables(state: &Path) -> [(&'static str, String); 3] {
    [
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ("LIFEBOAT_STATE", state.display().to_string()),
    ]
}

/// A server and a spec; state and keys lie where each host says.
fn prepare(durable: Durable, store: &str) -> Result<World> {
    let durable = match durable {
        Durable::Spool => "spool",
        Durable::Repository => "repository",
    };
    let repository = format!(
        "url: \"s3://{}/lifeboat\", endpoint: \"{store}\", region: west, path_style: true",
        S3Server::BUCKET
    );
    let world = Setup::new(15)?
        .archive_command("/bin/true")
        // Small segments: their boundaries are where it is difficult.
        .cluster(|cluster| cluster.tcp().wal_segment_size_mb(1).setting("fsync = on"))
        .region("west", repository)
        .wal(&format!(
            "mode: stream, receivers: [east, west], flush_every: 100ms, \
             acknowledge: {{ remote: 1, durable: {durable} }}"
        ))
        .prepare()?;
    let connection = format!("connection: \"{}\"", world.source.connection());
    let address = format!(
        "connection: \"{} sslmode=disable\", address: \"127.0.0.1:{}\"",
        world.source.connection(),
        world.source.port()
    );
    world.edit_spec(|text| {
        let own = |line: &&str| !line.starts_with("state:") && !line.starts_with("  writer:");
        let kept: Vec<_> = text.lines().filter(own).collect();
        kept.join("\n").replace(&connection, &address) + "\n"
    })?;
    Ok(world)
}
