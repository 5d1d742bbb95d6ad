//! Directories that only a guard can start (R11).

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use lifeboat_cluster::server::{debian_clusters, started_with};
use lifeboat_cluster::settings::{GRANT_FILE, GRANT_TEXT, guarded, is_guarded, unguarded};
use lifeboat_telemetry::{Code, Failure, Outcome};

/// Where Debian's clusters are configured.
const DEBIAN: &str = "/etc/postgresql";

/// What was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Managed {
    /// Every file that a start may read first.
    pub files: Vec<PathBuf>,
    /// Those of them that were changed now.
    pub changed: Vec<PathBuf>,
}

/// Makes a data directory refuse every start but a guard's. Doing it again changes nothing, so
/// that an agent does it before each start: configuration tools may have written the file anew. A
/// server that runs goes on, but reads no configuration any more until a guard has started it.
pub fn manage(data_directory: &Path, config_file: Option<&Path>) -> Outcome<Managed> {
    let files = configurations(data_directory, config_file)?;
    let grant = data_directory.join(GRANT_FILE);
    if read(&grant)?.as_deref() != Some(GRANT_TEXT.as_bytes()) {
        let owner = fs::metadata(data_directory).map_err(|error| failed(data_directory, error))?;
        replace(&grant, GRANT_TEXT.as_bytes(), (owner.uid(), owner.gid(), 0o600))?;
    }
    edit(files, guarded, true)
}

/// Makes a data directory start for everybody again. Whoever calls this says so in the audit.
pub fn unmanage(data_directory: &Path, config_file: Option<&Path>) -> Outcome<Managed> {
    // The granted file stays: a server that runs now includes it at its next reload.
    edit(configurations(data_directory, config_file)?, unguarded, false)
}

/// The files that would let somebody else start the directory; none if it is managed.
pub fn unmanaged(data_directory: &Path, config_file: Option<&Path>) -> Outcome<Vec<PathBuf>> {
    let mut open = Vec::new();
    let grant = data_directory.join(GRANT_FILE);
    if read(&grant)?.is_none() {
        open.push(grant);
    }
    for file in configurations(data_directory, config_file)? {
        if !read(&file)?.is_some_and(|content| is_guarded(&content)) {
            open.push(file);
        }
    }
    Ok(open)
}

/// Every file that a start may begin with: the one in the directory, the one that is said, the one
/// of the last start, and Debian's.
fn configurations(data: &Path, config_file: Option<&Path>) -> Outcome<Vec<PathBuf>> {
    let canonical = |path: &Path| fs::canonicalize(path).ok();
    let own = canonical(data);
    let debian = debian_clusters(Path::new(DEBIAN)).into_iter().filter_map(|cluster| {
        let theirs = cluster.data_directory.as_deref().and_then(canonical);
        (own.is_some() && theirs == own).then_some(cluster.config_file)
    });
    let usual = [Some(data.join("postgresql.conf")), started_with(data)];
    // Links are followed, so that what is changed is what they point to.
    let mut files: Vec<_> =
        usual.into_iter().flatten().chain(debian).filter_map(|path| canonical(&path)).collect();
    if let Some(file) = config_file {
        files.push(fs::canonicalize(file).map_err(|error| failed(file, error))?);
    }
    files.sort();
    files.dedup();
    match files.is_empty() {
        false => Ok(files),
        true => Err(Failure::new(
            Code::DataDirectoryInvalid,
            format!("no postgresql.conf is known for {}", data.display()),
        )
        .hint("Name it: `config_file` of the node, or --config-file.")),
    }
}

fn edit(files: Vec<PathBuf>, with: fn(&[u8]) -> Vec<u8>, managed: bool) -> Outcome<Managed> {
    let mut changed = Vec::new();
    for file in &files {
        let content = fs::read(file).map_err(|error| failed(file, error))?;
        if is_guarded(&content) != managed {
            let found = fs::metadata(file).map_err(|error| failed(file, error))?;
            replace(file, &with(&content), (found.uid(), found.gid(), found.mode() & 0o7777))?;
            changed.push(file.clone());
        }
    }
    Ok(Managed { files, changed })
}

/// Puts a whole file in the place of another one: a kill or a full disk leaves the old one.
fn replace(path: &Path, content: &[u8], (uid, gid, mode): (u32, u32, u32)) -> Outcome<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lifeboat-new");
    let new = path.with_file_name(name);
    let written = || -> std::io::Result<()> {
        // The directory may be another user's, who could have put a link here.
        if let Err(error) = fs::remove_file(&new)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        fchown(&file, Some(uid), Some(gid))?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or_else(|| Path::new("/")))?.sync_all()
    };
    written().map_err(|error| {
        let _ = fs::remove_file(&new);
        failed(path, error)
    })
}

fn read(path: &Path) -> Outcome<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, error)),
    }
}

fn failed(path: &Path, error: std::io::Error) -> Failure {
    Failure::new(Code::LocalFile, format!("cannot read or change {}", path.display()))
        .because(error)
        .hint("Run as the owner of the configuration, or as root.")
}
