//! A world whose regions are object stores that fail on purpose.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lifeboat_testkit::process::{Finished, run};
use lifeboat_testkit::scratch;
use lifeboat_testkit::store::{FaultProxy, Objects, Profile, S3Server};

use crate::ledger::{self, Point};
use crate::restored::{promote, restore};
use crate::world::{Setup, World};

/// A world whose regions are S3 stores behind a proxy each.
#[derive(Debug)]
pub struct Clouds {
    /// The server and its spec.
    pub world: World,
    /// What stands before the stores of east and west.
    pub proxies: [FaultProxy; 2],
    /// The stores themselves.
    pub stores: [S3Server; 2],
}

/// What the stores and this host held at a moment.
#[derive(Debug)]
pub struct Kept {
    stores: [Objects; 2],
    local: PathBuf,
}

/// What a host holds besides its cluster, in the world's scratch directory: its state, its key,
/// and what commands of a test have [`Clouds::made`].
const LOCAL: [&str; 3] = ["state", "writer.key", "made"];

impl Clouds {
    /// Repositories made, server running, a ledger begun; the stores are calm.
    pub fn start(archive_command: &str) -> Result<Self> {
        let mut clouds = Self::prepare(archive_command)?;
        clouds.world.ok(&["repo", "create"])?;
        clouds.world.source.start()?;
        ledger::create(&clouds.world.source)?;
        Ok(clouds)
    }

    /// Nothing runs and no repository is made; the stores are calm.
    pub fn prepare(archive_command: &str) -> Result<Self> {
        let stores = [S3Server::start()?, S3Server::start()?];
        let proxy = |store: &S3Server| FaultProxy::start(store.endpoint(), Profile::CALM, 7);
        let proxies = [proxy(&stores[0])?, proxy(&stores[1])?];
        let mut setup = Setup::new(15)?
            .archive_command(archive_command)
            .variable("AWS_ACCESS_KEY_ID", "test")
            .variable("AWS_SECRET_ACCESS_KEY", "test");
        for (name, proxy) in ["east", "west"].iter().zip(&proxies) {
            let repository = format!(
                "url: \"s3://{}/lifeboat\", endpoint: \"{}\", region: {name}, path_style: true",
                S3Server::BUCKET,
                proxy.endpoint()
            );
            setup = setup.region(name, repository);
        }
        Ok(Self { world: setup.prepare()?, proxies, stores })
    }

    /// The archiver goes to the stores themselves from its next start on: whatever fails is then
    /// the command's that a test runs.
    pub fn spare_archiver(&self) -> Result<()> {
        let mut spec = fs::read_to_string(self.world.spec())?;
        for (proxy, store) in self.proxies.iter().zip(&self.stores) {
            spec = spec.replace(proxy.endpoint(), store.endpoint());
        }
        let calm = self.world.scratch.file("calm.yaml", spec)?;
        let configuration = self.world.source.configuration();
        let text = fs::read_to_string(configuration)?;
        let (own, calm) = (self.world.spec().display().to_string(), calm.display().to_string());
        scratch::write(configuration, text.replace(&own, &calm))
    }

    /// A path for what a command makes.
    pub fn made(&self, name: &str) -> Result<PathBuf> {
        Ok(self.world.scratch.folder("made")?.join(name))
    }

    /// Remembers what the stores and this host hold.
    pub fn keep(&self, name: &str) -> Result<Kept> {
        let local = self.world.scratch.folder(name)?;
        for part in LOCAL.map(|part| self.world.scratch.join(part)) {
            if part.exists() {
                run(Command::new("cp").arg("-a").arg(part).arg(&local))?.success()?;
            }
        }
        let stores = [self.stores[0].objects(), self.stores[1].objects()];
        Ok(Kept { stores, local })
    }

    /// Makes it so again, with calm stores. Objects whose key `stays` are left where they are.
    pub fn rewind(&self, kept: &Kept, stays: impl Fn(&str) -> bool) -> Result<()> {
        self.calm();
        for part in LOCAL.map(|part| self.world.scratch.join(part)) {
            // What fetches ahead may be writing there for a moment.
            self.world.wait_until("an empty folder", || {
                Ok(run(Command::new("rm").arg("-rf").arg(&part))?.code == Some(0))
            })?;
        }
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(kept.local.join(".")).arg(self.world.scratch.path());
        run(&mut copy)?.success()?;
        for (store, objects) in self.stores.iter().zip(&kept.stores) {
            store.put_back(objects, &stays);
        }
        Ok(())
    }

    /// Another profile for both stores.
    pub fn both(&self, profile: Profile) {
        for proxy in &self.proxies {
            proxy.set_profile(profile);
        }
    }

    /// Whatever was to fail is forgotten.
    pub fn calm(&self) {
        for proxy in &self.proxies {
            proxy.reset();
        }
    }

    /// Closes a segment with something in it; its name.
    pub fn close(&self) -> Result<String> {
        let source = &self.world.source;
        let name = source.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
        source.psql("SELECT pg_create_restore_point('here'), pg_switch_wal()")?;
        Ok(name)
    }

    /// Whether a store really holds a segment.
    pub fn holds(&self, store: usize, name: &str) -> bool {
        self.stores[store].objects().keys().any(|key| key.ends_with(&format!("/{name}")))
    }

    /// With calm stores everything is well, and the newest state comes back.
    pub fn is_well(&mut self) -> Result<()> {
        self.calm();
        self.world.backup()?;
        let point = ledger::append(&self.world.source)?;
        self.world.archive()?;
        self.backups_are_whole()?;
        self.comes_back("after", &point)
    }

    /// Every listed backup is whole. WAL that one region missed is named, and lies in the other.
    pub fn backups_are_whole(&self) -> Result<()> {
        let checked = self.world.run(&["repo", "check", "--read-data", "--json"])?.json()?;
        for region in checked["result"]["regions"].as_array().context("no regions")? {
            for damage in region["damage"].as_array().context("no list")? {
                ensure!(damage["backups"] == serde_json::json!([]), "{damage} in {checked}");
            }
        }
        Ok(())
    }

    /// The newest state comes back, from the second region.
    pub fn comes_back(&self, name: &str, point: &Point) -> Result<()> {
        let mut copy = restore(&self.world, "west", name, &["--latest"])?;
        // The server's environment holds the credentials, as `restore` says.
        let command = fs::read_to_string(copy.data().join("postgresql.auto.conf"))?;
        let variables = "AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test ";
        let command =
            command.replace("restore_command = '", &format!("restore_command = '{variables}"));
        scratch::write(&copy.data().join("postgresql.auto.conf"), command)?;
        promote(&mut copy)?;
        ledger::is_at(&copy, point)
    }
}

/// It said why it failed, with a code and a hint.
pub fn is_clear(finished: &Finished) -> Result<()> {
    ensure!(finished.stderr.contains("error[LB"), "no code in {finished}");
    ensure!(finished.stderr.contains("hint:"), "no hint in {finished}");
    ensure!(!finished.stderr.contains("LB1099"), "an internal error: {finished}");
    Ok(())
}
