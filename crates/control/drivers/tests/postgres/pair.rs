//! A primary, a standby of it, and the driver of each, without agents.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifeboat_drivers::postgres::{PostgresInstance, Settings};
use lifeboat_environment::Environment;
use lifeboat_model::Spec;
use lifeboat_quorum::Timing;
use lifeboat_testkit::postgres::{Builder, Cluster};
use lifeboat_testkit::process::{PATIENCE, run};
use lifeboat_testkit::scratch::{self, Scratch};

/// Times of a lease of 6 s.
pub const TIMING: Timing = Timing {
    lease: Duration::from_millis(6000),
    renew: Duration::from_millis(500),
    probe_timeout: Duration::from_millis(500),
    store_timeout: Duration::from_millis(750),
    fence_deadline: Duration::from_millis(1500),
    margin: Duration::from_millis(500),
};

/// Two servers of one cluster.
pub struct Pair {
    pub east: Cluster,
    pub west: Cluster,
    pub spec: Arc<Spec>,
    pub spec_path: PathBuf,
    pub scratch: Scratch,
}

impl Pair {
    /// Makes both and starts the first one, which is the primary.
    pub fn new(major: u32, change: impl FnOnce(Builder) -> Builder) -> Result<Self> {
        let scratch = Scratch::new()?;
        let builder = Cluster::builder(major).tcp().setting("max_slot_wal_keep_size = 256MB");
        let mut east = change(builder).create()?;
        east.start()?;
        let data = scratch.folder("west")?;
        fs::remove_dir(&data)?;
        let mut copy = east.installation().client_command("pg_basebackup")?;
        copy.args(["-c", "fast", "-X", "stream", "-R", "-d", &east.connection(), "-D"]).arg(&data);
        run(&mut copy)?.success()?;
        let west = Cluster::over(major, &data)?.listening()?;
        let node = |name: &str, region: &str, cluster: &Cluster| {
            format!(
                "          {name}: {{ region: {region}, data_directory: {}, connection: \"{} \
                 sslmode=disable\", address: \"127.0.0.1:{}\", bin_directory: {} }}\n",
                cluster.data().display(),
                cluster.connection(),
                cluster.port(),
                cluster.installation().bin().display(),
            )
        };
        let text = format!(
            "lifeboat: 1\nregions:\n  east: {{ repository: {{ url: \"file://{0}/east-repo\" }} }}\n  \
             west: {{ repository: {{ url: \"file://{0}/west-repo\" }} }}\ntiers: {{ t: {{ rto: 1h, \
             rpo: 1h }} }}\nservices:\n  pay:\n    tier: t\n    home: east\n    databases:\n      \
             ledger:\n        engine: postgres\n        wal: {{ mode: stream, receivers: [east, west] }}\n        nodes:\n{1}{2}",
            scratch.path().display(),
            node("east-1", "east", &east),
            node("west-1", "west", &west),
        );
        let spec_path = scratch.join("lifeboat.yaml");
        scratch::write(&spec_path, &text)?;
        let loaded = Spec::load(&text, &spec_path);
        let spec = loaded.spec.with_context(|| format!("{:#?}", loaded.findings))?;
        Ok(Self { east, west, spec: Arc::new(spec), spec_path, scratch })
    }

    /// The driver of a node.
    pub fn driver(&self, node: &str) -> Result<PostgresInstance> {
        Ok(PostgresInstance::new(self.settings(node)?)?)
    }

    /// What the driver of a node is made with.
    pub fn settings(&self, node: &str) -> Result<Settings> {
        Ok(Settings {
            environment: Environment::system(),
            spec: Arc::clone(&self.spec),
            spec_path: self.spec_path.clone(),
            program: PathBuf::from("/nonexistent/lifeboat"),
            state: self.scratch.join("state"),
            database: "pay/ledger".parse()?,
            node: node.parse()?,
            timing: TIMING,
        })
    }
}

/// Runs on this thread, as an agent does.
pub fn on_one_thread<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work)
}

/// Asks until it is so.
pub async fn until(what: &str, mut done: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    for _ in 0..PATIENCE.as_millis() / 20 {
        if done().await? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ensure!(false, "waited for {what} in vain");
    Ok(())
}
