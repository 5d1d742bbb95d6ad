//! This host: its state directory, its disk, its keys and what a thief of them could do.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lifeboat_model::Secret;
use lifeboat_model::spec::{Encryption, Slot};
use lifeboat_repository::access::{RECOVERY_KEY_VARIABLE, writer_path};
use lifeboat_repository::keys::WriterKey;
use lifeboat_telemetry::bytes;
use nix::sys::statvfs::statvfs;

use super::Lines;
use crate::context::Context;
use crate::site::Site;

/// Below this a spool or a WAL segment may not fit.
const FREE_BYTES_FAIL: u64 = 128 << 20;
/// Below this a busy hour may fill it.
const FREE_BYTES_WARN: u64 = 1 << 30;

/// Adds the lines about this host.
pub fn check(site: &Site<'_>, context: &Context, lines: &mut Lines) {
    lines.about("this host");
    region(site, lines);
    state_directory(&site.state, lines);
    free_space("free space, state", &site.state, lines);
    let has_key = writer_key(site, lines);
    thief(site, context, has_key, lines);
}

fn region(site: &Site<'_>, lines: &mut Lines) {
    match &site.here {
        Some(here) => lines.pass("region", format!("this process runs in {here}")),
        None => lines.warn(
            "region",
            "it was not said in which region this process runs",
            "Set LIFEBOAT_REGION or pass --here: the nearest repository is read first then.",
        ),
    }
}

fn state_directory(path: &Path, lines: &mut Lines) {
    let shown = path.display();
    match fs::metadata(path) {
        Err(error) => lines.fail("state directory", format!("{shown}: {error}"), "Make it."),
        Ok(found) if found.mode() & 0o022 != 0 => lines.fail(
            "state directory",
            format!("others can write {shown}"),
            format!("chmod 700 {shown}"),
        ),
        Ok(found) if found.mode() & 0o055 != 0 => lines.warn(
            "state directory",
            format!("others can look into {shown}"),
            format!("chmod 700 {shown}"),
        ),
        Ok(_) => lines.pass("state directory", format!("{shown}, for this user only")),
    }
}

/// How much this user can still write where `path` lies.
pub fn free_space(check: &str, path: &Path, lines: &mut Lines) {
    let shown = path.display();
    let free = match statvfs(path) {
        Ok(found) => found.blocks_available().saturating_mul(found.fragment_size()),
        Err(error) => return lines.not_tested(check, format!("{shown}: {error}")),
    };
    let message = format!("{} free at {shown}", bytes(free));
    match free {
        0..FREE_BYTES_FAIL => lines.fail(check, message, "Make room."),
        FREE_BYTES_FAIL..FREE_BYTES_WARN => lines.warn(check, message, "Make room."),
        _ => lines.pass(check, message),
    }
}

/// Whether this host has a usable writer key.
fn writer_key(site: &Site<'_>, lines: &mut Lines) -> bool {
    let path = writer_path(&site.spec, &site.state);
    match WriterKey::load(&path) {
        Ok(_) => {
            let message = format!("{}, readable by this user only", path.display());
            lines.pass("writer key", message);
            true
        }
        Err(_) if !path.exists() && !writes_here(site) => {
            lines.not_tested("writer key", "none here, and no database of the spec either");
            false
        }
        Err(failure) => {
            lines.failure("writer key", &failure);
            false
        }
    }
}

/// Whether a database of the spec runs on this host.
fn writes_here(site: &Site<'_>) -> bool {
    let mut databases = site.spec.databases();
    databases.any(|(_, database)| {
        database.nodes.values().any(|node| {
            let in_region = site.here.as_ref().is_none_or(|here| *here == node.region);
            in_region && node.data_directory.exists()
        })
    })
}

/// What somebody learns who takes over this user on this host.
fn thief(site: &Site<'_>, context: &Context, has_key: bool, lines: &mut Lines) {
    let slots = match &site.spec.encryption {
        Encryption::None => {
            return lines.warn(
                "stolen keys",
                "repositories are not encrypted: whoever can read a store can read every backup",
                "Take `encryption: none` out of the spec before the repositories are made.",
            );
        }
        Encryption::Slots(slots) => slots,
    };
    let mut open: Vec<String> = Vec::new();
    for slot in &slots.slots {
        let (kind, secret) = match slot {
            Slot::Passphrase(secret) => ("passphrase", secret),
            Slot::KeyFile(secret) => ("key file", secret),
            _ => continue,
        };
        if let Some(path) = secret.file() {
            secret_file(kind, path, lines);
        }
        if secret.resolve(&context.environment).is_ok() {
            open.push(format!("the {kind} ({})", describe(secret)));
        }
    }
    open.extend(read_keys(site).into_iter().map(|path| format!("a WAL-read key ({path})")));
    if context.environment.variable(RECOVERY_KEY_VARIABLE).is_some() {
        open.push(format!("the recovery key (${RECOVERY_KEY_VARIABLE})"));
    }
    match (open.as_slice(), has_key) {
        ([], true) => lines.pass(
            "stolen keys",
            "a thief of this host's keys can write new backups and WAL, and read nothing of the past",
        ),
        ([], false) => lines.pass("stolen keys", "this host holds no key of the vault"),
        (open, _) => lines.warn(
            "stolen keys",
            format!(
                "a thief of this host's keys can read every backup: {} can be read here",
                open.join(" and ")
            ),
            "Keep it elsewhere once this host is enrolled; backups need nothing but the writer key.",
        ),
    }
}

/// WAL-read keys that restores and `wal fetch` left on this host.
fn read_keys(site: &Site<'_>) -> Vec<String> {
    let beside = site.spec.databases().flat_map(|(_, database)| database.nodes.values());
    let beside = beside.map(|node| {
        let mut path = node.data_directory.clone().into_os_string();
        path.push(".lifeboat");
        PathBuf::from(path)
    });
    let mut folders: Vec<PathBuf> = beside.collect();
    folders.extend(["fetch", "restore"].map(|name| site.state.join(name)));
    let mut found = Vec::new();
    // `fetch/SERVICE/DATABASE/` is the deepest of them.
    for _ in 0..=3 {
        let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok());
        let paths: Vec<PathBuf> = entries.flatten().flatten().map(|entry| entry.path()).collect();
        let is_key = |path: &&PathBuf| path.to_string_lossy().ends_with("wal-read.key");
        found.extend(paths.iter().filter(is_key).map(|path| path.display().to_string()));
        folders = paths.into_iter().filter(|path| path.is_dir()).collect();
    }
    found.sort();
    found.dedup();
    found
}

/// A secret that others can read is none.
fn secret_file(kind: &str, path: &Path, lines: &mut Lines) {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(found) if found.mode() & 0o077 != 0 => lines.fail(
            kind,
            format!("others can read {shown} (mode {:o})", found.mode() & 0o777),
            format!("chmod 600 {shown}"),
        ),
        Ok(_) => lines.pass(kind, format!("{shown} is for its owner only")),
        Err(_) => lines.not_tested(kind, format!("{shown} cannot be read here")),
    }
}

fn describe(secret: &Secret) -> String {
    match secret {
        Secret::Variable(name) => format!("${name}"),
        Secret::File(path) => path.display().to_string(),
        Secret::Command(words) => words.first().cloned().unwrap_or_default(),
    }
}
