//! Writes the first inputs of each target, made of golden files, recorded sessions and examples:
//! `seeds FOLDER`.
//!
//! It links libFuzzer as the targets do, for what it is built from counts coverage as well, and ends
//! before there is anything to fuzz.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::exit;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use lifeboat_fuzz::objects::TYPES;
use lifeboat_objects::Key;
use lifeboat_repository::object::{HEADER_BYTES, Header, ObjectType, decode_any};
use walkdir::WalkDir;

libfuzzer_sys::fuzz_target!(
    init: match write() {
        Ok(()) => exit(0),
        Err(error) => {
            eprintln!("seeds: {error:#}");
            exit(1);
        }
    },
    |_input: &[u8]| {}
);

fn write() -> Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).context("usage: seeds FOLDER")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut count = 0;
    for (target, input) in sessions(&root)?.into_iter().chain(objects(&root)?).chain(specs(&root)?)
    {
        let folder = folder.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("seed-{count:03}")), input)?;
        count += 1;
    }
    if count < 40 {
        bail!("{count} seeds only");
    }
    println!("{count} seeds");
    Ok(())
}

type Seed = (&'static str, Vec<u8>);

fn files(folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in WalkDir::new(folder).sort_by_file_name() {
        let entry = entry?;
        if entry.file_type().is_file() {
            files.push((entry.path().to_owned(), fs::read(entry.path())?));
        }
    }
    Ok(files)
}

/// What servers said.
fn sessions(root: &Path) -> Result<Vec<Seed>> {
    let mut seeds = Vec::new();
    for (path, bytes) in files(&root.join("crates/postgres/wire/testdata/transcripts"))? {
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let text = String::from_utf8(bytes)?;
        let mut server = Vec::new();
        let mut ours = false;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("< ") {
                server.extend(hex::decode(rest)?);
                ours = false;
            } else if line.starts_with("> ") {
                ours = true;
            } else if !ours {
                server.extend(hex::decode(line.trim())?);
            }
        }
        for choice in [3, 7, 2] {
            seeds.push(("protocol", [&[choice], server.as_slice()].concat()));
        }
    }
    Ok(seeds)
}

/// The bodies of golden objects, and whole packs.
fn objects(root: &Path) -> Result<Vec<Seed>> {
    let mut seeds = Vec::new();
    let plain = root.join("crates/storage/repository/testdata/format/v1/plain");
    for (path, bytes) in files(&plain)? {
        let Ok(header) = Header::decode(&bytes) else { continue };
        if header.kind == ObjectType::Pack {
            seeds.push(("packs", bytes.clone()));
        }
        let kind = TYPES.iter().position(|kind| *kind == header.kind);
        let key = Key::new(path.strip_prefix(&plain)?.to_string_lossy())
            .map_err(|failure| anyhow::anyhow!("{failure}"))?;
        let body = match decode_any(&key, &Bytes::from(bytes.clone())) {
            Ok(named) => named.body.to_vec(),
            Err(_) => bytes[HEADER_BYTES..].to_vec(),
        };
        seeds.extend(kind.map(|kind| ("objects", [&[kind as u8], body.as_slice()].concat())));
        let whole = (TYPES.len() - 1) as u8;
        seeds.push(("objects", [&[whole], bytes.as_slice()].concat()));
    }
    Ok(seeds)
}

fn specs(root: &Path) -> Result<Vec<Seed>> {
    Ok(files(&root.join("examples"))?.into_iter().map(|(_, bytes)| ("spec", bytes)).collect())
}
