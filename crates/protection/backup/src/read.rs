//! Reading pages of the source: what is wrong is read again before it is blamed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use lifeboat_cluster::page::{check_page, page_lsn};
use lifeboat_environment::Environment;
use lifeboat_model::Lsn;
use lifeboat_telemetry::{Code, Failure, Outcome};

/// A page that looks torn is read again this often; PostgreSQL writes a page in far less time.
const REREADS: u32 = 20;
const REREAD_PAUSE: Duration = Duration::from_millis(5);

/// How the pages of a file are checked.
#[derive(Debug, Clone, Copy)]
pub struct PageRules {
    /// Block number of the file's first page, counted over the relation's segments.
    pub first_block: u32,
    /// Redo of the backup: whatever was written later is repaired from WAL.
    pub start: Lsn,
}

/// Opens a file; `None` if it vanished, as dropped relations do.
pub fn open(path: &Path) -> Outcome<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, error)),
    }
}

/// Fills `buffer` from `offset`. What lies past the end of a file that shrank is zeros: the WAL
/// that shortened it is replayed.
pub fn fill(file: &File, path: &Path, offset: u64, buffer: &mut [u8]) -> Outcome<()> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => {
                buffer[done..].fill(0);
                return Ok(());
            }
            Ok(count) => done += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(path, error)),
        }
    }
    Ok(())
}

/// Checks every page in `buffer`; returns the block numbers of pages that are damaged on disk.
pub fn check(
    environment: &Environment,
    source: (&File, &Path),
    rules: PageRules,
    offset: u64,
    page_bytes: usize,
    buffer: &mut [u8],
) -> Outcome<Vec<u32>> {
    let mut damaged = Vec::new();
    for (index, page) in buffer.chunks_exact_mut(page_bytes).enumerate() {
        let page_offset = offset + (index * page_bytes) as u64;
        let block = rules.first_block.wrapping_add((page_offset / page_bytes as u64) as u32);
        if check_page(page, block, true).is_good() {
            continue;
        }
        if !settles(environment, source, rules, page_offset, block, page)? {
            damaged.push(block);
        }
    }
    Ok(damaged)
}

/// Whether a suspicious page turns out well: valid when read again, or changed after the backup
/// began, so that WAL holds its full image.
fn settles(
    environment: &Environment,
    (file, path): (&File, &Path),
    rules: PageRules,
    offset: u64,
    block: u32,
    page: &mut [u8],
) -> Outcome<bool> {
    let mut before = page.to_vec();
    for _ in 0..REREADS {
        if check_page(page, block, true).is_good() || page_lsn(page) > rules.start {
            return Ok(true);
        }
        environment.clock().sleep(REREAD_PAUSE);
        fill(file, path, offset, page)?;
        if page != before.as_slice() {
            // Somebody writes it right now: the change is in the WAL after the start LSN.
            before.copy_from_slice(page);
            continue;
        }
    }
    Ok(check_page(page, block, true).is_good())
}

fn unreadable(path: &Path, error: std::io::Error) -> Failure {
    Failure::new(Code::SourceFileUnreadable, format!("cannot read {}", path.display()))
        .because(error)
        .hint("The backup was aborted; no file of the cluster is ever left out.")
}
