//! What all contenders work on: one cluster, its WAL, and a folder.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lifeboat_testkit::postgres::{Cluster, DEBIAN_MAJOR, Stop};
use lifeboat_testkit::scratch::{self, Scratch};
use nix::unistd::Pid;
use walkdir::WalkDir;

use super::contender::Contender;
use super::measure::measure;

/// Segments of a WAL task, and one more to warm up with.
const SEGMENTS: usize = 65;
const PAGE: usize = 8192;
/// The archive command, whose content changes with the contender. pgBackRest refuses to back up
/// where the command does not hold its name.
const ARCHIVE: &str = "lifeboat-or-pgbackrest.sh";
/// What `diverge` writes into a page.
const MARK: [u8; 16] = *b"bench divergence";

/// The cluster and the folder that everything else lies in.
pub struct Ground {
    scratch: Scratch,
    cluster: RefCell<Cluster>,
    segments: Vec<String>,
}

impl Ground {
    /// Makes the mixed cluster: pgbench, a table of JSON and text, one of random bytes.
    pub fn new(scale: f64) -> Result<Self> {
        let scratch = Scratch::new()?;
        let script = scratch.join(ARCHIVE);
        let builder = Cluster::builder(DEBIAN_MAJOR)
            .setting("archive_mode = on")
            .setting(format!("archive_command = '/bin/sh {} %p'", script.display()))
            .setting("shared_buffers = 512MB")
            .setting("maintenance_work_mem = 256MB")
            .setting("max_wal_size = 8GB")
            .setting("checkpoint_timeout = 1h")
            .setting("autovacuum = off");
        let ground =
            Self { scratch, cluster: RefCell::new(builder.create()?), segments: Vec::new() };
        ground.archive("exit 0")?;
        eprintln!("bench: filling a cluster of scale {scale}");
        ground.cluster.borrow_mut().start()?;
        ground.fill(scale)?;
        Ok(ground)
    }

    fn fill(&self, scale: f64) -> Result<()> {
        let cluster = self.cluster.borrow();
        let accounts = ((150.0 * scale).round() as u64).max(1).to_string();
        cluster.pgbench(["-i", "-q", "-s", &accounts])?;
        let rows = |full: f64| ((full * scale).round() as u64).max(1);
        cluster.psql(&format!(
            "CREATE TABLE documents (id int PRIMARY KEY, body jsonb, note text);
             INSERT INTO documents SELECT n,
                 jsonb_build_object('customer', md5(n::text), 'total', n * 7919 % 100000,
                     'state', (ARRAY['new', 'paid', 'sent', 'returned'])[1 + n % 4],
                     'lines', jsonb_build_array(n % 17, n % 31, md5((n % 1000)::text))),
                 'order ' || n || ' of customer ' || md5((n % 5000)::text) ||
                 ' waits for ' || (ARRAY['payment', 'packing', 'the carrier'])[1 + n % 3]
             FROM generate_series(1::bigint, {}) AS n;
             CREATE EXTENSION pgcrypto;
             CREATE TABLE photos (id int PRIMARY KEY, bytes bytea);
             ALTER TABLE photos ALTER bytes SET STORAGE EXTERNAL;
             INSERT INTO photos SELECT n, gen_random_bytes(1000) FROM generate_series(1::bigint, {}) AS n;
             VACUUM ANALYZE;
             CHECKPOINT",
            rows(1_270_000.0),
            rows(295_000.0)
        ))?;
        Ok(())
    }

    /// What was made, in words.
    pub fn describe(&self) -> Result<String> {
        let cluster = self.cluster.borrow();
        let sizes = cluster.psql(
            "SELECT string_agg(relname || ' ' || pg_total_relation_size(oid) / 1000000 || ' MB', ', '
             ORDER BY relname) FROM pg_class WHERE relname IN
             ('pgbench_accounts', 'documents', 'photos')",
        )?;
        let total = cluster.psql("SELECT sum(pg_database_size(oid)) / 1000000 FROM pg_database")?;
        Ok(format!("{} MB: {sizes}", total.split('.').next().unwrap_or_default()))
    }

    /// A folder for a contender.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.cluster.borrow().data().to_owned()
    }

    /// Folder and port of the server's socket, the folder of its programs.
    pub fn server_address(&self) -> (PathBuf, u16, PathBuf) {
        let cluster = self.cluster.borrow();
        let programs = cluster.installation().bin().to_owned();
        (cluster.sockets().to_owned(), cluster.port(), programs)
    }

    /// Where the output of a command goes.
    pub fn log(&self) -> PathBuf {
        self.scratch.join("command.log")
    }

    /// The running server.
    pub fn server(&self) -> Option<Pid> {
        self.cluster.borrow().pid()
    }

    /// Starts the server unless it runs.
    pub fn start(&mut self) -> Result<()> {
        if self.server().is_none() {
            self.archive("exit 0")?;
            self.cluster.get_mut().start()?;
        }
        Ok(())
    }

    /// Stops the server if it runs.
    pub fn stop(&mut self) -> Result<()> {
        if self.server().is_some() {
            self.cluster.get_mut().stop(Stop::Fast)?;
        }
        Ok(())
    }

    fn archive(&self, script: &str) -> Result<()> {
        let draft = self.scratch.file("archive.new", format!("{script}\n"))?;
        fs::rename(draft, self.scratch.join(ARCHIVE))?;
        Ok(())
    }

    /// Lets the running server archive with a contender, and waits until that has begun to work.
    pub fn archive_with(&self, contender: &Contender) -> Result<()> {
        self.archive(&format!("exec {}", contender.archive_command()?))?;
        let mut cluster = self.cluster.borrow_mut();
        cluster
            .psql("SELECT pg_logical_emit_message(true, 'bench', ''); SELECT pg_switch_wal()")?;
        let waiting = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'";
        cluster.wait_for(waiting, "0").context("the archive command does not work")?;
        cluster.psql("CHECKPOINT").map(drop)
    }

    /// Writes WAL that nobody archives, once, and leaves the server stopped.
    pub fn make_segments(&mut self) -> Result<()> {
        if !self.segments.is_empty() {
            return self.stop();
        }
        self.start()?;
        self.archive("exit 1")?;
        let cluster = self.cluster.get_mut();
        cluster.psql(
            "CREATE TABLE more (id int, body jsonb); SELECT pg_logical_emit_message(true, '', '');
             SELECT pg_switch_wal()",
        )?;
        let mut begin = 0;
        while ready(cluster.data())?.len() < SEGMENTS {
            cluster.psql(&format!(
                "INSERT INTO more SELECT n, jsonb_build_object('customer', md5((n % 5000)::text),
                     'total', n * 7919 % 100000, 'state', (ARRAY['new', 'paid', 'sent'])[1 + n % 3],
                     'note', 'order ' || n || ' waits for the carrier, who comes on day ' || n % 7)
                 FROM generate_series({begin}::bigint + 1, {begin} + 100000) AS n"
            ))?;
            begin += 100_000;
        }
        self.stop()?;
        let data = self.data();
        self.segments = ready(&data)?.into_iter().take(SEGMENTS).collect();
        // Copies to compare with: what was fetched must be what was written.
        let originals = self.scratch.folder("segments")?;
        self.scratch.folder("fetched")?;
        for name in &self.segments {
            fs::copy(data.join("pg_wal").join(name), originals.join(name))?;
        }
        Ok(())
    }

    /// Names of the segments.
    pub fn segments(&self) -> &[String] {
        &self.segments
    }

    /// Makes only these segments wait for the archiver.
    pub fn mark_ready(&self, names: &[String]) -> Result<()> {
        let status = self.data().join("pg_wal/archive_status");
        for entry in fs::read_dir(&status)? {
            fs::remove_file(entry?.path())?;
        }
        for name in names {
            scratch::write(&status.join(format!("{name}.ready")), "")?;
        }
        Ok(())
    }

    /// What the archiver does after its command exited with 0.
    pub fn mark_done(&self, name: &str) -> Result<()> {
        let status = self.data().join("pg_wal/archive_status");
        fs::rename(status.join(format!("{name}.ready")), status.join(format!("{name}.done")))?;
        Ok(())
    }

    /// Where a fetched segment goes.
    pub fn fetched(&self, name: &str) -> PathBuf {
        self.scratch.join("fetched").join(name)
    }

    /// Fetches the last segment, so that what only a first fetch does is done.
    pub fn fetch_last(&self, contender: &Contender) -> Result<()> {
        let last = self.segments.last().context("there is no WAL")?;
        measure(self, |runner| runner.run(&mut contender.fetch(last, &self.fetched(last))?))?;
        fs::remove_file(self.fetched(last))?;
        Ok(())
    }

    /// Compares fetched segments with what the server wrote, and removes them.
    pub fn assert_fetched(&self, names: &[String]) -> Result<()> {
        for name in names {
            let original = fs::read(self.scratch.join("segments").join(name))?;
            if fs::read(self.fetched(name))? != original {
                bail!("{name} came back with other bytes");
            }
            fs::remove_file(self.fetched(name))?;
        }
        Ok(())
    }
}

fn ready(data: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(data.join("pg_wal/archive_status"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".ready").map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// A page that was overwritten.
pub struct Changed {
    file: PathBuf,
    offset: u64,
}

/// Overwrites a twentieth of all pages of relations, others in every round.
pub fn diverge(data: &Path, round: usize) -> Result<Vec<Changed>> {
    let mut changed = Vec::new();
    // A small generator with a fixed seed: all contenders of a round get the same pages.
    let mut state = round as u64 + 1;
    for entry in WalkDir::new(data.join("base")).sort_by_file_name() {
        let entry = entry?;
        let relation =
            entry.file_name().to_string_lossy().starts_with(|c: char| c.is_ascii_digit());
        if !entry.file_type().is_file() || !relation {
            continue;
        }
        let file = File::options().write(true).open(entry.path())?;
        for page in 0..entry.metadata()?.len() / PAGE as u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if (state >> 33).is_multiple_of(20) {
                let offset = page * PAGE as u64 + PAGE as u64 / 2;
                file.write_all_at(&MARK, offset)?;
                changed.push(Changed { file: entry.path().to_owned(), offset });
            }
        }
    }
    Ok(changed)
}

/// Fails if an overwritten page was left as it is.
pub fn assert_healed(changed: &[Changed]) -> Result<()> {
    if changed.is_empty() {
        bail!("no page was overwritten");
    }
    for Changed { file, offset } in changed {
        let mut bytes = [0; MARK.len()];
        File::open(file)?.read_exact_at(&mut bytes, *offset)?;
        if bytes == MARK {
            bail!("the delta restore left {} at {offset} overwritten", file.display());
        }
    }
    Ok(())
}
