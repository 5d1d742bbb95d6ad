//! A directory that makes room for a new copy is kept beside it, under a name that says what it is.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use lifeboat_cluster::control;
use lifeboat_cluster::server::{Running, running};
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::settings::Settings;
use super::stopped;

/// What every such name has.
const WORD: &str = ".old-";

/// Where it will be; none if nothing is there that must be kept.
pub(crate) fn name(settings: &Settings) -> Outcome<Option<PathBuf>> {
    let data = settings.data()?;
    // What an interrupted restore has left is not worth keeping, and is continued.
    if !stopped::is_there(data) || data.join("lifeboat.restore").exists() {
        return Ok(None);
    }
    Ok(Some(with(data, &suffix(settings, data)?)))
}

/// Sets it aside; where it is now.
pub(crate) fn set_aside(settings: &Settings) -> Outcome<Option<PathBuf>> {
    let data = settings.data()?;
    let Some(to) = name(settings)? else { return Ok(None) };
    if running(data)? != Running::No {
        let message = format!("a server works in {}", data.display());
        return Err(Failure::new(Code::InstanceRole, message)
            .hint("Stop it first: `lifeboat runs show` says who runs it."));
    }
    let suffix = suffix(settings, data)?;
    for link in fs::read_dir(data.join("pg_tblspc")).into_iter().flatten().flatten() {
        tablespace(&link.path(), &suffix)?;
    }
    let renamed = fs::rename(data, &to).and_then(|()| {
        let around = data.parent().unwrap_or_else(|| Path::new("/"));
        fs::File::open(around)?.sync_all()
    });
    renamed.map_err(|error| failed(data, &to, error))?;
    Ok(Some(to))
}

/// The place of a tablespace is wanted for the new one; the link follows it.
fn tablespace(link: &Path, suffix: &str) -> Outcome<()> {
    let Ok(place) = fs::read_link(link) else { return Ok(()) };
    if place.to_string_lossy().contains(WORD) {
        return Ok(());
    }
    let to = with(&place, suffix);
    let staged = link.with_extension("new");
    let moved = || -> std::io::Result<()> {
        if place.exists() {
            fs::rename(&place, &to)?;
        }
        match fs::remove_file(&staged) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(&to, &staged)?;
        fs::rename(&staged, link)
    };
    moved().map_err(|error| failed(&place, &to, error))
}

fn suffix(settings: &Settings, data: &Path) -> Outcome<String> {
    let control = control::read(data, &settings.environment);
    let what = match control {
        Ok(control) if stopped::was_primary(data, &control) => "primary",
        Ok(_) => "standby",
        Err(_) => "damaged",
    };
    let now = settings.environment.clock().now();
    Ok(format!("{WORD}{what}-{}", now.strftime("%Y%m%dT%H%M%SZ")))
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

fn failed(from: &Path, to: &Path, error: std::io::Error) -> Failure {
    let message = format!("{} cannot be renamed to {}", from.display(), to.display());
    Failure::new(Code::TargetDirectory, message).because(error).hint(
        "Rename it by hand, or remove it if nothing in it is needed: one that is a disk of its \
         own cannot be renamed.",
    )
}
