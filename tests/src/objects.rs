//! The objects of a repository in a directory, seen and damaged from outside.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Every file below a repository's root, by its key.
pub fn all(repository: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![repository.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let key = path.strip_prefix(repository)?.to_string_lossy().into_owned();
                found.insert(key, path);
            }
        }
    }
    Ok(found)
}

/// Every object with its bytes.
pub fn contents(repository: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let read = |(key, path): (String, PathBuf)| Ok((key, fs::read(path)?));
    all(repository)?.into_iter().map(read).collect()
}

/// The type of an object, which stands at offset 8.
pub fn kind(path: &Path) -> Result<u16> {
    let bytes = fs::read(path)?;
    let kind = bytes.get(8..10).with_context(|| format!("{} is too short", path.display()))?;
    Ok(u16::from_le_bytes([kind[0], kind[1]]))
}

/// The objects of a type, in the order of their keys.
pub fn of_kind(repository: &Path, wanted: u16) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for (key, path) in all(repository)? {
        if kind(&path).is_ok_and(|kind| kind == wanted) {
            found.push((key, path));
        }
    }
    Ok(found)
}
