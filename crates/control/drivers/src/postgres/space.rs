//! Whether the server's disks have room.
//!
//! A full disk lets the small write of a probe through for a long time: it goes into WAL that is
//! there already and into a page that is there already. Those of clients fail.

use std::path::{Path, PathBuf};

use lifeboat_telemetry::{Code, Failure, Outcome, bytes};
use nix::sys::statvfs::statvfs;

/// PostgreSQL makes WAL files whole, of 16 MiB unless told otherwise, and dies where it cannot. With
/// less than this left, clients are refused every now and then: whatever a neighbour gives back
/// (a checkpoint, a spool) lasts for a moment.
const LEAST: u64 = 16 << 20;

/// Fails where a disk is full. Blocks for as long as the disk does.
pub(crate) fn check(data: &Path) -> Outcome<()> {
    for place in [data.to_owned(), data.join("pg_wal")] {
        let Some(free) = free(&place) else { continue };
        if free < LEAST {
            let message = format!("the disk of {} is full: {} left", place.display(), bytes(free));
            return Err(Failure::new(Code::StoreFull, message)
                .hint("Give it space, or remove what does not belong there."));
        }
    }
    Ok(())
}

/// What the server's account may still use; none if nobody says.
fn free(place: &PathBuf) -> Option<u64> {
    let disk = statvfs(place).ok()?;
    Some(disk.blocks_available().saturating_mul(disk.fragment_size()))
}
