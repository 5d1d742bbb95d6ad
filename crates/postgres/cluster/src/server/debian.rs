//! Debian's layout: `/etc/postgresql/VERSION/NAME` holds the configuration, the data lies
//! elsewhere.

use std::path::{Path, PathBuf};

use crate::Release;
use crate::settings::read_sources;

/// One cluster as `pg_lsclusters` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebianCluster {
    /// Its version.
    pub release: &'static Release,
    /// Its name, often `main`.
    pub name: String,
    /// Its `postgresql.conf`.
    pub config_file: PathBuf,
    /// Its data directory; `None` if the configuration cannot be read by this user.
    pub data_directory: Option<PathBuf>,
}

/// The clusters below `root`, which is `/etc/postgresql` on a real machine; none if it does not
/// exist. Oldest version first.
pub fn debian_clusters(root: &Path) -> Vec<DebianCluster> {
    let mut clusters = Vec::new();
    for release in &crate::RELEASES {
        let folder = root.join(release.major.to_string());
        let mut names: Vec<_> = std::fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        for name in names {
            let config_file = folder.join(&name).join("postgresql.conf");
            if config_file.exists() {
                let sources = read_sources(&config_file, None).ok();
                let data_directory = sources.map(|sources| sources.data_directory);
                clusters.push(DebianCluster { release, name, config_file, data_directory });
            }
        }
    }
    clusters
}
