//! PostgreSQL clusters of this machine, by what they leave in the file system and in /proc.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lifeboat_environment::Environment;
use schemars::JsonSchema;
use serde::Serialize;

/// Where packages put data directories; `*` stands for one folder of any name.
const USUAL_PLACES: [&str; 4] = [
    "var/lib/postgresql/*/*",
    "var/lib/pgsql/*/data",
    "var/lib/pgsql/data",
    "usr/local/pgsql/data",
];

/// Where packages put programs; VERSION stands for the major version.
const PROGRAMS: [&str; 2] = ["/usr/lib/postgresql/VERSION/bin", "/usr/pgsql-VERSION/bin"];

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Found {
    /// Its data directory.
    pub data_directory: PathBuf,
    /// Its major version, if that could be read.
    pub version: Option<String>,
    /// Debian's name of the cluster.
    pub name: Option<String>,
    /// The port it listens on.
    pub port: u16,
    /// The directory of its socket.
    pub socket_directory: PathBuf,
    /// Where its programs lie.
    pub bin_directory: Option<PathBuf>,
    /// Whether a postmaster runs on it.
    pub running: bool,
    /// Whether this user can read the data directory.
    pub readable: bool,
    /// What led to it.
    pub found_by: String,
}

impl Found {
    /// A cluster of which nothing but its place is known.
    pub fn new(data_directory: impl Into<PathBuf>, found_by: &str) -> Self {
        Self {
            data_directory: data_directory.into(),
            version: None,
            name: None,
            port: 5432,
            socket_directory: PathBuf::from("/run/postgresql"),
            bin_directory: None,
            running: false,
            readable: false,
            found_by: found_by.to_owned(),
        }
    }

    /// One row of the table of clusters.
    pub fn row(&self) -> [String; 6] {
        let yes = |truth| if truth { "yes" } else { "no" }.to_owned();
        [
            self.version.clone().unwrap_or_else(|| "?".to_owned()),
            self.data_directory.display().to_string(),
            self.port.to_string(),
            yes(self.running),
            yes(self.readable),
            self.found_by.clone(),
        ]
    }
}

/// All clusters below `root`, which is `/` but in tests, in the order of their directories.
pub fn look(root: &Path, environment: &Environment) -> Vec<Found> {
    let mut clusters = BTreeMap::new();
    let mut add = |found: Found| {
        clusters.entry(found.data_directory.clone()).or_insert(found);
    };
    debian_clusters(root).into_iter().for_each(&mut add);
    running_servers(root).into_iter().for_each(&mut add);
    let named = environment.variable("PGDATA").map(PathBuf::from);
    named.into_iter().map(|path| Found::new(path, "PGDATA")).for_each(&mut add);
    for place in USUAL_PLACES.iter().flat_map(|pattern| expand(root, pattern)) {
        if root.join(strip(&place)).join("PG_VERSION").exists() {
            add(Found::new(place, "the usual place"));
        }
    }
    let mut clusters: Vec<Found> = clusters.into_values().collect();
    for found in &mut clusters {
        complete(root, found);
    }
    clusters
}

/// Debian keeps the configuration apart: /etc/postgresql/VERSION/NAME/postgresql.conf.
fn debian_clusters(root: &Path) -> Vec<Found> {
    let mut clusters = Vec::new();
    for folder in expand(root, "etc/postgresql/*/*") {
        let Ok(text) = fs::read_to_string(root.join(strip(&folder)).join("postgresql.conf")) else {
            continue;
        };
        let Some(data_directory) = setting(&text, "data_directory") else {
            continue;
        };
        let part = |path: Option<&Path>| Some(path?.file_name()?.to_str()?.to_owned());
        let mut found = Found::new(PathBuf::from(data_directory), "Debian's configuration");
        found.name = part(Some(&folder));
        found.version = part(folder.parent());
        if let Some(port) = setting(&text, "port").and_then(|port| port.parse().ok()) {
            found.port = port;
        }
        let sockets = setting(&text, "unix_socket_directories");
        if let Some(first) = sockets.as_deref().and_then(|list| list.split(',').next()) {
            found.socket_directory = PathBuf::from(first.trim());
        }
        clusters.push(found);
    }
    clusters
}

/// A postmaster works in its data directory and wrote its number into postmaster.pid.
fn running_servers(root: &Path) -> Vec<Found> {
    let mut clusters = Vec::new();
    for process in expand(root, "proc/*") {
        let process = root.join(strip(&process));
        let Ok(data_directory) = fs::read_link(process.join("cwd")) else {
            continue;
        };
        let number = process.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let pid_file = read_pid_file(root, &data_directory);
        if pid_file.first().map(String::as_str) != Some(number) || number.is_empty() {
            continue;
        }
        let mut found = Found::new(data_directory, "a running server");
        let program = fs::read_link(process.join("exe")).ok();
        found.bin_directory = program.and_then(|program| Some(program.parent()?.to_owned()));
        clusters.push(found);
    }
    clusters
}

/// Lines: process, data directory, start, port, socket directory, address, memory, status.
fn read_pid_file(root: &Path, data_directory: &Path) -> Vec<String> {
    let path = root.join(strip(data_directory)).join("postmaster.pid");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

/// Adds what the data directory itself says.
fn complete(root: &Path, found: &mut Found) {
    let directory = root.join(strip(&found.data_directory));
    let version = fs::read_to_string(directory.join("PG_VERSION"));
    found.readable = version.is_ok();
    if let Ok(version) = version {
        found.version = Some(version.trim().to_owned());
    }
    let pid_file = read_pid_file(root, &found.data_directory);
    let process = pid_file.first().filter(|process| !process.is_empty());
    found.running = process.is_some_and(|process| root.join("proc").join(process).exists());
    if let Some(port) = pid_file.get(3).and_then(|port| port.parse().ok()) {
        found.port = port;
    }
    if let Some(directory) = pid_file.get(4).filter(|directory| directory.starts_with('/')) {
        found.socket_directory = PathBuf::from(directory);
    }
    if let (None, Some(version)) = (&found.bin_directory, &found.version) {
        let mut places = PROGRAMS.iter().map(|place| place.replace("VERSION", version));
        found.bin_directory =
            places.find(|place| root.join(strip(place)).is_dir()).map(PathBuf::from);
    }
}

/// A path as seen from the root, for joining.
fn strip(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

/// The folders that a pattern names, as absolute paths, sorted.
fn expand(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.split('/') {
        found = match part {
            "*" => found.iter().flat_map(|folder| children(root, folder)).collect(),
            name => found.into_iter().map(|folder| folder.join(name)).collect(),
        };
    }
    found.retain(|folder| root.join(strip(folder)).is_dir());
    found.sort();
    found
}

fn children(root: &Path, folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join(strip(folder))).into_iter().flatten().flatten();
    entries.map(|entry| folder.join(entry.file_name())).collect()
}

/// The last value of a key in a postgresql.conf. Includes are not followed: `check` asks the
/// server.
fn setting(text: &str, key: &str) -> Option<String> {
    let mut values = text.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix(key)?;
        let rest = rest.trim_start();
        let value = rest.strip_prefix('=').unwrap_or(rest).trim_start();
        let value = match value.strip_prefix('\'') {
            Some(quoted) => quoted.split('\'').next()?,
            None => value.split(|at: char| at.is_whitespace() || at == '#').next()?,
        };
        (!value.is_empty()).then(|| value.to_owned())
    });
    values.next_back()
}
