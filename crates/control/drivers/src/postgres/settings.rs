//! What the driver of one instance knows before it has asked anybody.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_cluster::server::{programs, started_with};
use lifeboat_cluster::{Release, server};
use lifeboat_environment::Environment;
use lifeboat_model::spec::{Database, PostgresNode};
use lifeboat_model::{DatabaseId, NodeName, Spec};
use lifeboat_quorum::Timing;
use lifeboat_telemetry::{Code, Failure, Outcome};

/// Where Debian keeps configuration that lies outside of data directories.
const DEBIAN: &str = "/etc/postgresql";

/// What is given to [`super::PostgresInstance::new`].
#[derive(Clone)]
pub struct Settings {
    /// Time, chance, variables.
    pub environment: Environment,
    /// The spec.
    pub spec: Arc<Spec>,
    /// Its file, absolute: restore_command and archive_command name it.
    pub spec_path: PathBuf,
    /// The lifeboat binary, absolute.
    pub program: PathBuf,
    /// The state directory of this host.
    pub state: PathBuf,
    /// Which database.
    pub database: DatabaseId,
    /// Which of its nodes.
    pub node: NodeName,
    /// How long things may take.
    pub timing: Timing,
}

impl Settings {
    /// The database in the spec.
    pub fn database(&self) -> Outcome<&Database> {
        self.spec.database(&self.database)
    }

    /// This node in the spec.
    pub fn node(&self) -> Outcome<&PostgresNode> {
        self.other(&self.node)
    }

    /// Another node of the database.
    pub fn other(&self, name: &NodeName) -> Outcome<&PostgresNode> {
        self.database()?.nodes.get(name).ok_or_else(|| {
            Failure::new(Code::SpecInvalid, format!("{} has no node {name}", self.database))
                .hint("Correct the spec: nodes stand below services.SERVICE.databases.DATABASE.")
        })
    }

    /// The other nodes of the database.
    pub fn others(&self) -> Outcome<impl Iterator<Item = (&NodeName, &PostgresNode)>> {
        Ok(self.database()?.nodes.iter().filter(|(name, _)| **name != self.node))
    }

    /// The data directory.
    pub fn data(&self) -> Outcome<&Path> {
        Ok(&self.node()?.data_directory)
    }

    /// The version of the data directory.
    pub fn release(&self) -> Outcome<&'static Release> {
        server::data_version(self.data()?)
    }

    /// A program of the server's version.
    pub fn server_program(&self, name: &str) -> Outcome<PathBuf> {
        let given = self.node()?.bin_directory.as_deref();
        Ok(programs(self.release()?, given)?.join(name))
    }

    /// `postgresql.conf`, which in Debian's layout lies elsewhere; none if it is where a server
    /// looks for it by itself.
    pub fn config_file(&self) -> Outcome<Option<PathBuf>> {
        let data = self.data()?;
        if data.join("postgresql.conf").exists() {
            return Ok(None);
        }
        if let Some(known) = started_with(data).filter(|known| known.exists()) {
            return Ok(Some(known));
        }
        let mut clusters = server::debian_clusters(Path::new(DEBIAN)).into_iter();
        let own = clusters.find(|one| one.data_directory.as_deref() == Some(data));
        own.map(|own| Some(own.config_file)).ok_or_else(|| {
            let message = format!("{} has no postgresql.conf", data.display());
            Failure::new(Code::ClusterSettings, message)
                .hint("Put the configuration into the data directory, or include it from there.")
        })
    }

    /// Where the main configuration lies.
    pub fn main_config(&self) -> Outcome<PathBuf> {
        let data = self.data()?;
        Ok(self.config_file()?.unwrap_or_else(|| data.join("postgresql.conf")))
    }

    /// The replication slot of a node, on whichever node it streams from.
    pub fn slot(&self, name: &NodeName) -> Outcome<String> {
        let own = plain(name);
        let alike = self.database()?.nodes.keys().filter(|other| plain(other) == own).count();
        // Two nodes whose names differ in what a slot cannot be named by.
        let slot = match alike {
            0 | 1 => format!("{SLOT}{own}"),
            _ => {
                let digest = lifeboat_repository::ids::Digest::of(name.as_str().as_bytes());
                let digits: String = digest.to_string().chars().take(8).collect();
                format!("{SLOT}{}_{digits}", own.get(..40).unwrap_or(&own))
            }
        };
        Ok(slot.get(..63).unwrap_or(&slot).to_owned())
    }
}

/// With what the slot of each standby begins; those of receivers begin otherwise.
pub(crate) const SLOT: &str = "standby_";

fn plain(name: &NodeName) -> String {
    let letter = |letter: char| match letter.to_ascii_lowercase() {
        letter @ ('a'..='z' | '0'..='9' | '_') => letter,
        _ => '_',
    };
    name.as_str().chars().map(letter).collect()
}
