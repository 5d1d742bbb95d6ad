//! Making a new cluster with initdb.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::cluster::free_port;
use super::{Cluster, Installation};
use crate::process::run;
use crate::scratch::{self, Scratch};

/// What a new cluster shall be like.
#[derive(Debug, Clone)]
pub struct Builder {
    major: u32,
    checksums: bool,
    wal_segment_size_mb: u32,
    encoding: String,
    settings: Vec<String>,
    debian: bool,
    tcp: bool,
}

impl Builder {
    pub(super) fn new(major: u32) -> Self {
        Self {
            major,
            checksums: true,
            wal_segment_size_mb: 16,
            encoding: "UTF8".to_owned(),
            settings: Vec::new(),
            debian: false,
            tcp: false,
        }
    }

    /// Data checksums; on unless said otherwise.
    #[must_use]
    pub fn checksums(mut self, on: bool) -> Self {
        self.checksums = on;
        self
    }

    /// The size of a WAL segment; 16 MiB unless said otherwise.
    #[must_use]
    pub fn wal_segment_size_mb(mut self, size: u32) -> Self {
        self.wal_segment_size_mb = size;
        self
    }

    /// The encoding; UTF8 unless said otherwise.
    #[must_use]
    pub fn encoding(mut self, encoding: &str) -> Self {
        encoding.clone_into(&mut self.encoding);
        self
    }

    /// One more line of postgresql.conf.
    #[must_use]
    pub fn setting(mut self, line: impl Into<String>) -> Self {
        self.settings.push(line.into());
        self
    }

    /// Debian's layout: configuration outside the data directory, with a conf.d.
    #[must_use]
    pub fn debian(mut self) -> Self {
        self.debian = true;
        self
    }

    /// Listens on 127.0.0.1 too. Otherwise there is only a socket, and no race for ports.
    #[must_use]
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Makes the cluster and leaves it stopped.
    pub fn create(self) -> Result<Cluster> {
        let installation = Installation::find(self.major)?;
        let scratch = Scratch::new()?;
        let name = if self.debian { format!("lib/{}/main", self.major) } else { "data".to_owned() };
        let data = scratch.folder(&name)?;
        self.initdb(&installation, &data)?;
        let configuration = if self.debian {
            self.move_configuration(&scratch, &data)?
        } else {
            data.join("postgresql.conf")
        };
        self.configure(&configuration)?;
        let port = if self.tcp { Some(free_port()?) } else { None };
        Cluster::new(installation, scratch, data, configuration, port)
    }

    /// Makes the cluster and starts it.
    pub fn start(self) -> Result<Cluster> {
        let mut cluster = self.create()?;
        cluster.start()?;
        Ok(cluster)
    }

    fn initdb(&self, installation: &Installation, data: &Path) -> Result<()> {
        let mut command = installation.server_command("initdb")?;
        command.args(["--auth=trust", "--username=postgres", "--no-sync", "--locale=C"]);
        command.arg(format!("--encoding={}", self.encoding));
        command.arg(format!("--wal-segsize={}", self.wal_segment_size_mb));
        // Version 18 turned the default around.
        match (self.checksums, self.major) {
            (true, _) => drop(command.arg("--data-checksums")),
            (false, 18..) => drop(command.arg("--no-data-checksums")),
            (false, _) => {}
        }
        command.arg("--pgdata").arg(data);
        run(&mut command)?.success()?;
        Ok(())
    }

    fn configure(&self, configuration: &Path) -> Result<()> {
        let mut text = fs::read_to_string(configuration)?;
        // Small and quick; nothing here outlives the machine, so the server need not sync.
        text.push_str("\nfsync = off\nshared_buffers = 32MB\nmax_wal_size = 1GB\n");
        text.push_str("log_line_prefix = '%m [%p] '\nlog_timezone = 'UTC'\ntimezone = 'UTC'\n");
        for line in &self.settings {
            text.push_str(line);
            text.push('\n');
        }
        scratch::write(configuration, text)
    }

    /// What Debian's `pg_createcluster` does after initdb.
    fn move_configuration(&self, scratch: &Scratch, data: &Path) -> Result<PathBuf> {
        let folder = scratch.folder(&format!("etc/{}/main", self.major))?;
        scratch.folder(&format!("etc/{}/main/conf.d", self.major))?;
        for name in ["pg_hba.conf", "pg_ident.conf", "postgresql.conf"] {
            fs::rename(data.join(name), folder.join(name))?;
        }
        let configuration = folder.join("postgresql.conf");
        let mut text = fs::read_to_string(&configuration)?;
        text.push_str(&format!(
            "\ndata_directory = '{}'\nhba_file = '{}'\nident_file = '{}'\ninclude_dir = 'conf.d'\n",
            data.display(),
            folder.join("pg_hba.conf").display(),
            folder.join("pg_ident.conf").display(),
        ));
        scratch::write(&configuration, text)?;
        scratch::write(&folder.join("start.conf"), "manual\n")?;
        Ok(configuration)
    }
}
