//! Servers on this machine: their programs, whether one is running, and Debian's clusters.

mod debian;
mod postmaster;

use std::path::{Path, PathBuf};

use lifeboat_telemetry::{Code, Failure, Outcome};

pub use debian::{DebianCluster, debian_clusters};
pub use postmaster::{Postmaster, Running, forget_number, running, started_with};

use crate::Release;

/// Where distributions put the programs of a major version.
const PLACES: [(&str, &str); 3] =
    [("/usr/lib/postgresql/", "/bin"), ("/usr/pgsql-", "/bin"), ("/usr/local/pgsql-", "/bin")];

/// The version of a data directory, by its `PG_VERSION`.
pub fn data_version(data_directory: &Path) -> Outcome<&'static Release> {
    let path = data_directory.join("PG_VERSION");
    let content = std::fs::read_to_string(&path).map_err(|error| {
        let message = format!("{} is no data directory", data_directory.display());
        Failure::new(Code::DataDirectoryInvalid, message)
            .because(error)
            .hint("Name the directory that holds PG_VERSION, and run as its owner.")
    })?;
    let version = content.trim();
    version.parse().ok().and_then(Release::of_major).ok_or_else(|| {
        let version: String = version.chars().take(20).collect();
        let message = format!("{} is of version {version:?}", data_directory.display());
        Failure::new(Code::ClusterUnsupported, message).hint("Lifeboat knows PostgreSQL 13 to 18.")
    })
}

/// The directory with `postgres`, `pg_ctl` and the like of a major version: the given one, or one
/// of the usual places.
pub fn programs(release: &Release, given: Option<&Path>) -> Outcome<PathBuf> {
    let usual =
        PLACES.map(|(front, back)| PathBuf::from(format!("{front}{}{back}", release.major)));
    let mut places =
        given.map_or_else(|| usual.to_vec(), |given| vec![given.to_owned()]).into_iter();
    places.find(|place| place.join("postgres").is_file()).ok_or_else(|| {
        Failure::new(Code::ClusterUnreachable, format!("the programs of {release} are not here"))
            .hint(format!("Install the server package of {release}, or name its bin directory."))
    })
}

#[cfg(test)]
mod tests;
