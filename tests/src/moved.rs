//! Two nodes of one database below their guards, each with its driver, and no agent: the test is.

use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lifeboat_drivers::postgres::{PostgresInstance, Settings};
use lifeboat_drivers::{InstanceDriver, StartAs};
use lifeboat_environment::{Clock, Environment, SystemClock};
use lifeboat_model::{Lsn, Spec};
use lifeboat_quorum::{Instance, Timing};
use lifeboat_testkit::postgres::{Builder, Installation};
use lifeboat_testkit::process::{Finished, PATIENCE, Running};

use crate::world::{DATABASE, Setup, World};

/// No deadline falls into a test: nobody renews here.
const TIMING: Timing = Timing {
    lease: Duration::from_secs(1800),
    renew: Duration::from_secs(1),
    probe_timeout: Duration::from_secs(1),
    store_timeout: Duration::from_secs(1),
    fence_deadline: Duration::from_secs(2),
    margin: Duration::from_secs(100),
};

/// Both regions.
pub struct Regions {
    /// The driver of east-1.
    pub east: Node,
    /// The driver of west-1.
    pub west: Node,
    /// The spec and the repositories; its server is never started.
    pub world: World,
}

/// A node and its driver.
pub struct Node {
    /// What it is called in the spec.
    pub name: &'static str,
    /// Its driver.
    pub driver: PostgresInstance,
    /// Where it listens.
    connection: String,
}

impl Node {
    /// Runs SQL on it.
    pub fn psql(&self, world: &World, sql: &str) -> Result<String> {
        let mut command = world.source.installation().client_command("psql")?;
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d"]);
        command.arg(&self.connection);
        let said = Running::spawn(&mut command, Some(sql))?.wait(PATIENCE)?.success()?;
        Ok(said.stdout.trim_end().to_owned())
    }

    /// Runs pgbench against it, to its end or until it is dropped.
    pub fn pgbench(&self, world: &World, arguments: &[&str]) -> Result<Running> {
        let mut command = world.source.installation().client_command("pgbench")?;
        command.args(arguments).arg(&self.connection);
        Running::spawn(&mut command, None)
    }

    /// What it is doing.
    pub async fn instance(&self) -> Result<Instance> {
        Ok(self.driver.inspect().await?)
    }

    /// Waits until it is so.
    pub async fn until(&self, what: &str, done: impl Fn(&Instance) -> bool) -> Result<Instance> {
        let end = SystemClock.elapsed() + PATIENCE;
        loop {
            let found = self.instance().await?;
            if done(&found) {
                return Ok(found);
            }
            if SystemClock.elapsed() > end {
                let data = self.driver.settings().data()?.display().to_string();
                bail!("{}: waited for {what} in vain: {found:?}, {data}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it streams.
    pub async fn streams(&self) -> Result<Instance> {
        self.until("the stream", |found| matches!(found, Instance::Standby { streaming: true, .. }))
            .await
    }

    /// Waits until it has replayed up to there.
    pub async fn replays(&self, wanted: Lsn) -> Result<Instance> {
        self.until("replay", |found| match found {
            Instance::Standby { replayed, .. } => *replayed >= wanted,
            _ => false,
        })
        .await
    }

    /// Waits until it takes writes.
    pub async fn writes(&self) -> Result<Instance> {
        self.until("writes", Instance::is_primary).await
    }

    /// A moment at which no guard of this test kills.
    pub fn far(&self) -> Duration {
        SystemClock.elapsed() + Duration::from_secs(1200)
    }

    /// Starts it as a standby of another node.
    pub async fn follow(&self, upstream: &str) -> Result<()> {
        Ok(self.driver.start(StartAs::Standby { upstream: Some(upstream.parse()?) }).await?)
    }

    /// Promotes it and waits for its first write.
    pub async fn takes_over(&self) -> Result<()> {
        self.driver.synchronize(String::new(), 2).await?;
        self.driver.promote(self.far()).await?;
        self.writes().await?;
        Ok(self.driver.probe().await?)
    }
}

impl Regions {
    /// East writes below its guard, archives, and was backed up once; west is not there yet.
    pub async fn start(major: u32, change: impl FnOnce(Builder) -> Builder) -> Result<Self> {
        let (east_port, west_port) = (free_port()?, free_port()?);
        let setup = Setup::new(major)?;
        let sockets = setup.scratch().folder("sockets")?;
        let west_data = setup.scratch().join("west-data");
        let bin = Installation::find(major)?.bin().display().to_string();
        let connection = |port: u16| {
            format!("host={} port={port} user=postgres dbname=postgres", sockets.display())
        };
        let west = format!(
            "west-1: {{ region: west, data_directory: {}, connection: \"{} sslmode=disable\", \
             address: \"127.0.0.1:{west_port}\", bin_directory: {bin} }}",
            west_data.display(),
            connection(west_port),
        );
        let world = setup
            .cluster(|cluster| {
                change(cluster)
                    .setting(format!("port = {east_port}"))
                    .setting(format!("unix_socket_directories = '{}'", sockets.display()))
                    .setting("listen_addresses = '127.0.0.1'")
                    .setting("max_slot_wal_keep_size = 512MB")
            })
            .node(west)
            .prepare()?;
        let own = format!("connection: \"{}\"", world.source.connection());
        let real = format!(
            "connection: \"{} sslmode=disable\", address: \"127.0.0.1:{east_port}\"",
            connection(east_port)
        );
        world.edit_spec(|text| text.replace(&own, &real))?;
        world.ok(&["repo", "create"])?;
        let spec = Spec::load(&fs::read_to_string(world.spec())?, world.spec());
        let spec = Arc::new(spec.spec.with_context(|| format!("{:#?}", spec.findings))?);
        let node = |name: &'static str, port: u16| -> Result<Node> {
            let settings = Settings {
                environment: Environment::system(),
                spec: Arc::clone(&spec),
                spec_path: world.spec().to_owned(),
                program: world.lifeboat.program().to_owned(),
                state: world.scratch.join("state"),
                database: DATABASE.parse()?,
                node: name.parse()?,
                timing: TIMING,
            };
            let driver = PostgresInstance::new(settings)?;
            Ok(Node { name, driver, connection: connection(port) })
        };
        let (east, west) = (node("east-1", east_port)?, node("west-1", west_port)?);
        let regions = Self { east, west, world };
        let deadline = regions.east.far();
        regions.east.driver.start(StartAs::Primary { deadline }).await?;
        regions.east.writes().await?;
        regions.world.backup()?;
        Ok(regions)
    }

    /// Makes the standby in the west and lets it stream from the east.
    pub async fn standby(&self) -> Result<Finished> {
        let words = self.world.arguments("west", &["standby", "create", DATABASE]);
        let made = self.world.lifeboat.run(words)?.success()?;
        self.west.follow("east-1").await?;
        self.west.streams().await?;
        Ok(made)
    }

    /// Where the east has written to.
    pub fn position(&self) -> Result<Lsn> {
        Ok(self.east.psql(&self.world, "SELECT pg_current_wal_flush_lsn()")?.parse()?)
    }

    /// What a log of the west or the east says.
    pub fn log(&self, node: &str) -> String {
        let folder = self.world.scratch.join("state").join("guard");
        let path = folder.join(format!("shop_main_{node}")).join("guard.log");
        fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Regions {
    fn drop(&mut self) {
        for node in [&self.east, &self.west] {
            let folder = self.world.scratch.join("state").join("guard");
            let socket = folder.join(format!("shop_main_{}", node.name)).join("guard.sock");
            if let Ok(Some(guard)) = lifeboat_drivers::guard::connect(&socket) {
                let _ = guard.fence();
                let _ = guard.end();
            }
        }
    }
}

/// Runs on one thread, as an agent does.
pub fn on_one_thread<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The rows that both have, as one text each.
pub fn same(regions: &Regions, sql: &str) -> Result<String> {
    let east = regions.east.psql(&regions.world, sql)?;
    let west = regions.west.psql(&regions.world, sql)?;
    ensure!(east == west, "{sql}: {east} in the east, {west} in the west");
    Ok(west)
}
