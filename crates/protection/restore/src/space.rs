//! Whether it fits, and how long it takes.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_telemetry::{Code, Failure, Outcome, bytes};
use nix::sys::statvfs::statvfs;

use crate::claim::Found;
use crate::local;
use crate::request::{PlannedTablespace, Prediction, RestorePlan, Space};
use crate::survey::Survey;
use crate::target::Target;

/// What a restore needs besides the files: configuration, WAL that is being replayed.
const HEADROOM: u64 = 128 * 1024 * 1024;
/// Plain bytes a second on two cores and a common disk, until a restore of this host tells better.
const ASSUMED_RATE: u64 = 400 * 1024 * 1024;
const RATE_FILE: &str = "restore-rate";

/// What each disk must take; what an old cluster leaves there is counted as free.
pub(crate) fn needed(
    to: &Path,
    found: &Found,
    tablespaces: &[PlannedTablespace],
    survey: &Survey,
) -> Outcome<Vec<Space>> {
    let reused = !matches!(found, Found::Absent | Found::Empty);
    let elsewhere: u64 = survey.tablespace_bytes.values().sum();
    let mut places = vec![(to.to_owned(), survey.bytes - elsewhere + HEADROOM)];
    for tablespace in tablespaces {
        let bytes = survey.tablespace_bytes.get(&tablespace.oid).copied().unwrap_or_default();
        places.push((tablespace.place.clone(), bytes));
    }
    let mut disks: BTreeMap<u64, Space> = BTreeMap::new();
    for (place, needed) in places {
        let around = existing(&place);
        let failure = |error: std::io::Error| local::failure("look at", &around, error);
        let device = std::fs::metadata(&around).map_err(failure)?.dev();
        let disk = statvfs(&around).map_err(|error| failure(error.into()))?;
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        let space = disks.entry(device).or_insert(Space { place: around, needed: 0, free });
        space.needed = space.needed.saturating_add(needed);
        if reused {
            space.free = space.free.saturating_add(used_below(&place));
        }
    }
    Ok(disks.into_values().collect())
}

/// Refuses what does not fit.
pub(crate) fn refuse_full(space: &[Space]) -> Outcome<()> {
    let Some(short) = space.iter().find(|space| space.needed > space.free) else {
        return Ok(());
    };
    let (needed, free) = (bytes(short.needed), bytes(short.free));
    let message =
        format!("the restore needs {needed} in {}, {free} is free", short.place.display());
    Err(Failure::new(Code::StoreFull, message)
        .hint("Free space, choose another directory, or move tablespaces with --tablespace."))
}

/// Looks again just before the first byte is written: the plan may be old.
pub(crate) fn check(plan: &RestorePlan, survey: &Survey, target: &Target) -> Outcome<()> {
    let found = if target.path().join("base").exists() { &plan.found } else { &Found::Empty };
    refuse_full(&needed(&plan.to, found, &plan.tablespaces, survey)?)
}

/// How long it will take, by the rate of the last restore on this host.
pub(crate) fn predict(state: &Path, survey: &Survey, stored_bytes: u64) -> Prediction {
    let measured: Option<u64> = std::fs::read_to_string(state.join(RATE_FILE))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .filter(|rate| *rate > 0);
    let rate = measured.unwrap_or(ASSUMED_RATE);
    Prediction {
        files: survey.files,
        bytes: survey.bytes,
        stored_bytes,
        wal_bytes: None,
        rate,
        measured: measured.is_some(),
        time: Duration::from_secs_f64(survey.bytes as f64 / rate as f64),
    }
}

/// Keeps this restore's rate for the next prediction; a small one says nothing.
pub(crate) fn remember_rate(plan: &RestorePlan, written: u64, time: Duration) {
    let rate = written as f64 / time.as_secs_f64().max(0.001);
    if written >= HEADROOM && plan.request.state.is_dir() {
        // Only a prediction hangs on it.
        let _ = std::fs::write(plan.request.state.join(RATE_FILE), format!("{}\n", rate as u64));
    }
}

/// The nearest directory that is there.
fn existing(path: &Path) -> PathBuf {
    let found = path.ancestors().find(|path| path.is_dir());
    found.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| Path::new(".")).to_owned()
}

/// What the files below a directory take; what cannot be read counts as nothing.
fn used_below(directory: &Path) -> u64 {
    let mut used = 0;
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let entries = std::fs::read_dir(directory).into_iter().flatten();
        for entry in entries.filter_map(Result::ok) {
            match entry.metadata() {
                Ok(found) if found.is_dir() => open.push(entry.path()),
                Ok(found) if found.is_file() => used += found.blocks() * 512,
                _ => {}
            }
        }
    }
    used
}
