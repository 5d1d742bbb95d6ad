//! Two stopped data directories, compared block by block.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::mask::{HEADER, PAGE, mask, mask_map};

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Pages that exist on both sides.
    pub pages: u64,
    /// Pages that are equal byte by byte, before masking.
    pub identical: u64,
    /// Each page or file that differs after masking.
    pub differences: Vec<String>,
}

impl Comparison {
    /// Fails with the first differences, if there are any; also if nothing was compared.
    pub fn equal(self) -> Result<Self> {
        if self.pages == 0 {
            bail!("there was nothing to compare");
        }
        if !self.differences.is_empty() {
            let first: Vec<&str> = self.differences.iter().take(20).map(String::as_str).collect();
            bail!("{} differences:\n{}", self.differences.len(), first.join("\n"));
        }
        Ok(self)
    }
}

/// Compares all relations (free space maps excepted, which are hints), the relation maps and the
/// commit log of two clusters that were shut down after replaying to the same position.
pub fn compare(left: &Path, right: &Path) -> Result<Comparison> {
    let (left, right) = (files(left)?, files(right)?);
    let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let mut found = Comparison::default();
    for name in names {
        let fork = Fork::of(name);
        let main = name.split_once('.').map_or(name.as_str(), |(main, _)| main);
        let unlogged = |side: &BTreeMap<String, PathBuf>| {
            fork == Fork::Pages && side.contains_key(&format!("{main}_init"))
        };
        // Recovery makes the main fork of an unlogged relation from its init fork.
        if fork == Fork::Hints || unlogged(&left) || unlogged(&right) {
            continue;
        }
        compare_file(&mut found, name, fork, left.get(name), right.get(name))?;
    }
    Ok(found)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fork {
    /// Main and init forks.
    Pages,
    /// Visibility maps.
    Map,
    /// Free space maps, which are not logged.
    Hints,
    /// No pages: relation maps and the commit log.
    Bytes,
}

impl Fork {
    fn of(name: &str) -> Self {
        let file = name.rsplit('/').next().unwrap_or_default();
        let stem = file.split('.').next().unwrap_or_default();
        match stem {
            _ if name.starts_with("pg_xact/") || stem == "pg_filenode" => Self::Bytes,
            _ if stem.ends_with("_vm") => Self::Map,
            _ if stem.ends_with("_fsm") => Self::Hints,
            _ => Self::Pages,
        }
    }
}

/// Files to compare, by a name that is the same on both sides.
fn files(data: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![("global".to_owned(), data.join("global"))];
    folders.extend(below("base", &data.join("base"))?);
    folders.push(("pg_xact".to_owned(), data.join("pg_xact")));
    for (name, space) in below("pg_tblspc", &data.join("pg_tblspc"))? {
        for (version, folder) in below(&name, &space)? {
            folders.extend(below(&version, &folder)?);
        }
    }
    for (folder, path) in folders {
        for entry in fs::read_dir(&path).with_context(|| format!("no {}", path.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let relation = name.starts_with(|c: char| c.is_ascii_digit());
            if relation || folder == "pg_xact" || name == "pg_filenode.map" {
                found.insert(format!("{folder}/{name}"), entry.path());
            }
        }
    }
    Ok(found)
}

fn below(name: &str, folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))? {
        let entry = entry?;
        let own = entry.file_name().to_string_lossy().into_owned();
        // Tablespaces are symbolic links to folders.
        if entry.path().is_dir() && own != "pgsql_tmp" {
            found.push((format!("{name}/{own}"), entry.path()));
        }
    }
    Ok(found)
}

fn compare_file(
    found: &mut Comparison,
    name: &str,
    fork: Fork,
    left: Option<&PathBuf>,
    right: Option<&PathBuf>,
) -> Result<()> {
    let (mut left, mut right) = (Pages::open(left)?, Pages::open(right)?);
    for block in 0.. {
        match (left.next()?, right.next()?) {
            (None, None) => break,
            (Some(one), Some(other)) => {
                found.pages += 1;
                if one == other {
                    found.identical += 1;
                } else if masked(one, fork, block) != masked(other, fork, block) {
                    found.differences.push(format!("{name} block {block}"));
                }
            }
            // A relation grows by empty pages without WAL, and a dropped one leaves an empty file
            // until the next checkpoint: what is missing equals what was never written.
            (Some(page), None) | (None, Some(page)) => {
                // A page of the visibility map without a bit says no more than a missing one.
                let header = if fork == Fork::Map { HEADER } else { 0 };
                if page.iter().skip(header).any(|byte| *byte != 0) {
                    found.differences.push(format!("{name} block {block} is on one side only"));
                }
            }
        }
    }
    Ok(())
}

fn masked(mut page: Box<[u8; PAGE]>, fork: Fork, block: u32) -> Box<[u8; PAGE]> {
    match fork {
        Fork::Pages => mask(&mut page, block),
        Fork::Map => mask_map(&mut page),
        Fork::Hints | Fork::Bytes => {}
    }
    page
}

/// The pages of a file, of which there are none if the file is missing. A partial last one is
/// filled up with zeros.
struct Pages(Option<BufReader<File>>);

impl Pages {
    fn open(path: Option<&PathBuf>) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self(Some(BufReader::with_capacity(128 * PAGE, file))))
    }

    fn next(&mut self) -> Result<Option<Box<[u8; PAGE]>>> {
        let Some(reader) = &mut self.0 else {
            return Ok(None);
        };
        let mut bytes = Vec::with_capacity(PAGE);
        reader.take(PAGE as u64).read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        bytes.resize(PAGE, 0);
        Ok(bytes.try_into().ok())
    }
}
