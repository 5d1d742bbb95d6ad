//! One database with its repositories, as an engineer would set them up.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lifeboat_testkit::postgres::{Builder, Cluster};
use lifeboat_testkit::process::{Finished, PATIENCE, Running, wait_until};
use lifeboat_testkit::run::Lifeboat;
use lifeboat_testkit::scratch::{self, Scratch};
use serde_json::Value;

/// The database of every scenario.
pub const DATABASE: &str = "shop/main";

/// What a world shall be like.
#[derive(Debug)]
pub struct Setup {
    major: u32,
    cluster: Builder,
    slots: String,
    regions: Vec<(String, String)>,
    nodes: Vec<String>,
    variables: Vec<(String, String)>,
    archive_command: String,
    wal: String,
    database: String,
    scratch: Scratch,
}

impl Setup {
    /// Two regions in directories, opened by a key file, around a server of this version.
    pub fn new(major: u32) -> Result<Self> {
        let scratch = Scratch::new()?;
        let region = |name: &str| {
            let url = scratch.join(name);
            (name.to_owned(), format!("url: \"file://{}\"", url.display()))
        };
        let regions = vec![region("east"), region("west")];
        let key =
            scratch.file("vault.key", "a key file of more than thirty-two bytes, for tests")?;
        let slots = format!("{{ key_file: \"file:{}\" }}", key.display());
        Ok(Self {
            major,
            cluster: Cluster::builder(major),
            slots,
            regions,
            nodes: Vec::new(),
            variables: Vec::new(),
            archive_command: "{push}".to_owned(),
            wal: "mode: archive, every: 5m".to_owned(),
            database: String::new(),
            scratch,
        })
    }

    /// Changes the cluster.
    #[must_use]
    pub fn cluster(mut self, change: impl FnOnce(Builder) -> Builder) -> Self {
        self.cluster = change(self.cluster);
        self
    }

    /// The slots, as YAML between brackets.
    #[must_use]
    pub fn slots(mut self, slots: impl Into<String>) -> Self {
        self.slots = slots.into();
        self
    }

    /// Another repository for a region, as YAML between braces.
    #[must_use]
    pub fn region(mut self, name: &str, repository: impl Into<String>) -> Self {
        self.regions.retain(|(known, _)| known != name);
        self.regions.push((name.to_owned(), repository.into()));
        self.regions.sort();
        self
    }

    /// One more node, as a line of YAML.
    #[must_use]
    pub fn node(mut self, line: impl Into<String>) -> Self {
        self.nodes.push(line.into());
        self
    }

    /// How WAL is archived, as YAML between braces.
    #[must_use]
    pub fn wal(mut self, settings: &str) -> Self {
        settings.clone_into(&mut self.wal);
        self
    }

    /// One more line for the database, as in `backup: { workers: 1 }`.
    #[must_use]
    pub fn database(mut self, line: &str) -> Self {
        self.database.push_str(&format!("        {line}\n"));
        self
    }

    /// A variable that both the server and every command get.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// The archive_command; `{push}` stands for the whole call of `lifeboat wal push`.
    #[must_use]
    pub fn archive_command(mut self, command: &str) -> Self {
        command.clone_into(&mut self.archive_command);
        self
    }

    /// The folder in which the world will lie.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Makes the cluster and the spec; nothing runs, and no repository is made.
    pub fn prepare(self) -> Result<World> {
        let mut lifeboat = Lifeboat::new()?;
        for (name, value) in &self.variables {
            lifeboat = lifeboat.variable(name, value);
        }
        let spec = self.scratch.join("lifeboat.yaml");
        let variables = self.variables.iter().map(|(name, value)| format!("{name}={value} "));
        let push = push_command(&variables.collect::<String>(), &lifeboat, &spec);
        let command = self.archive_command.replace("{push}", &push).replace('\'', "''");
        let cluster = self
            .cluster
            .setting("archive_mode = on")
            .setting(format!("archive_command = '{command}'"))
            .create()?;
        let world = World {
            major: self.major,
            lifeboat,
            source: cluster,
            spec,
            variables: self.variables,
            scratch: self.scratch,
        };
        let node = world.node("east-1", "east", &world.source);
        let nodes = std::iter::once(node).chain(self.nodes);
        let nodes: String = nodes.map(|node| format!("          {node}\n")).collect();
        let regions: String = self
            .regions
            .iter()
            .map(|(name, repository)| format!("  {name}: {{ repository: {{ {repository} }} }}\n"))
            .collect();
        let text = format!(
            "lifeboat: 1\nstate: {state}\nregions:\n{regions}encryption:\n  slots: [{slots}]\n  \
             writer: \"file:{writer}\"\ntiers:\n  standard: {{ rto: 4h, rpo: 1h }}\n\
             services:\n  shop:\n    tier: standard\n    home: east\n    databases:\n      main:\n        \
             engine: postgres\n        nodes:\n{nodes}        wal: {{ {wal} }}\n{database}",
            state = world.scratch.folder("state")?.display(),
            slots = self.slots,
            wal = self.wal,
            writer = world.writer_key().display(),
            database = self.database,
        );
        scratch::write(&world.spec, text)?;
        Ok(world)
    }

    /// Makes the repositories too, and starts the server.
    pub fn start(self) -> Result<World> {
        let mut world = self.prepare()?;
        world.ok(&["repo", "create"])?;
        world.source.start()?;
        Ok(world)
    }
}

/// A server, its spec and its repositories.
#[derive(Debug)]
pub struct World {
    major: u32,
    /// The binary.
    pub lifeboat: Lifeboat,
    /// The server that is protected.
    pub source: Cluster,
    spec: PathBuf,
    variables: Vec<(String, String)>,
    /// Everything but the server's own directory; goes last.
    pub scratch: Scratch,
}

impl World {
    /// The plainest world, running.
    pub fn start(major: u32) -> Result<Self> {
        Setup::new(major)?.start()
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The spec's file.
    pub fn spec(&self) -> &Path {
        &self.spec
    }

    /// The directory of a region's repository.
    pub fn repository(&self, region: &str) -> PathBuf {
        self.scratch.join(region)
    }

    /// The writer key of this host.
    pub fn writer_key(&self) -> PathBuf {
        self.scratch.join("writer.key")
    }

    /// A path for a restored copy.
    pub fn target(&self, name: &str) -> PathBuf {
        self.scratch.join(&format!("restored-{name}"))
    }

    /// The line of the spec for a node.
    pub fn node(&self, name: &str, region: &str, cluster: &Cluster) -> String {
        format!(
            "{name}: {{ region: {region}, data_directory: {}, connection: \"{}\", \
             bin_directory: {} }}",
            cluster.data().display(),
            cluster.connection(),
            cluster.installation().bin().display(),
        )
    }

    /// Edits the spec.
    pub fn edit_spec(&self, change: impl FnOnce(String) -> String) -> Result<()> {
        scratch::write(&self.spec, change(fs::read_to_string(&self.spec)?))
    }

    /// The arguments of a command in a region, the global ones first.
    pub fn arguments(&self, region: &str, words: &[&str]) -> Vec<String> {
        let spec = self.spec.to_string_lossy().into_owned();
        let global = ["--spec".to_owned(), spec, "--here".to_owned(), region.to_owned()];
        global.into_iter().chain(words.iter().map(|word| (*word).to_owned())).collect()
    }

    /// Runs a command in region east, whatever its exit code.
    pub fn run(&self, words: &[&str]) -> Result<Finished> {
        self.lifeboat.run(self.arguments("east", words))
    }

    /// Runs a command in region east, which must exit 0.
    pub fn ok(&self, words: &[&str]) -> Result<Finished> {
        self.run(words)?.success()
    }

    /// Runs a command in region east, which must exit with `code` and say `error`; its output.
    pub fn refused(&self, code: i32, error: &str, words: &[&str]) -> Result<Finished> {
        refused(self.run(words)?, code, error)
    }

    /// Starts a command in region east.
    pub fn spawn(&self, words: &[&str]) -> Result<Running> {
        self.lifeboat.spawn(self.arguments("east", words))
    }

    /// Runs a command with `--json`, which must exit 0; its result.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let document = self.ok(&[words, &["--json"]].concat())?.json()?;
        if document["lifeboat"] != 1 {
            bail!("no envelope: {document}");
        }
        document.get("result").cloned().context("no result")
    }

    /// Takes a backup, which must be complete in all regions; its name.
    pub fn backup(&self) -> Result<String> {
        let taken = self.json(&["backup", DATABASE])?;
        let name = taken["name"].as_str().context("a backup without a name")?;
        Ok(name.to_owned())
    }

    /// The names of all backups that are listed.
    pub fn backups(&self) -> Result<Vec<String>> {
        let listed = self.json(&["backups", "list", DATABASE])?;
        let backups = listed["backups"].as_array().context("no list")?;
        Ok(backups.iter().filter_map(|one| Some(one["name"].as_str()?.to_owned())).collect())
    }

    /// The binary as the server's archiver calls it: in the data directory.
    pub fn archiver(&self) -> Result<Lifeboat> {
        let mut lifeboat = Lifeboat::new()?.directory(self.source.data());
        for (name, value) in &self.variables {
            lifeboat = lifeboat.variable(name, value);
        }
        Ok(lifeboat)
    }

    /// Runs `wal push` as the server would, in region east.
    pub fn push(&self, path: &str) -> Result<Finished> {
        self.archiver()?.run(self.arguments("east", &["wal", "push", path, "--db", DATABASE]))
    }

    /// Makes the running server archive with `wal push` from now on.
    pub fn archive_by_push(&self) -> Result<()> {
        let command = push_command("", &self.lifeboat, &self.spec);
        self.source.psql(&format!("ALTER SYSTEM SET archive_command = '{command}'"))?;
        self.source.psql("SELECT pg_reload_conf()")?;
        Ok(())
    }

    /// Makes the server archive everything that it has written, and waits for it.
    pub fn archive(&mut self) -> Result<()> {
        self.source.psql("SELECT pg_switch_wal()")?;
        self.wait_for_archiver()
    }

    /// Waits until nothing waits for the archiver.
    pub fn wait_for_archiver(&mut self) -> Result<()> {
        self.source.wait_for(
            "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'",
            "0",
        )
    }

    /// Waits for anything else.
    pub fn wait_until(&self, what: &str, done: impl FnMut() -> Result<bool>) -> Result<()> {
        if !wait_until(PATIENCE, done)? {
            bail!("waited for {what} in vain");
        }
        Ok(())
    }
}

fn push_command(variables: &str, lifeboat: &Lifeboat, spec: &Path) -> String {
    let (program, spec) = (lifeboat.program().display(), spec.display());
    format!("{variables}{program} --spec {spec} --here east wal push \"%p\" --db {DATABASE}")
}

/// The same, if the exit code is `code` and `error` was said, with a hint.
pub fn refused(finished: Finished, code: i32, error: &str) -> Result<Finished> {
    let finished = finished.expect_code(code)?;
    let said = format!("{}{}", finished.stdout, finished.stderr);
    if !said.contains(error) {
        bail!("{finished}\nexpected {error}");
    }
    if !said.contains("hint") && !said.contains("--help") {
        bail!("{finished}\nexpected a hint");
    }
    Ok(finished)
}
