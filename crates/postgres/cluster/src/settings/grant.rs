//! The lines that make a configuration refuse every start but a guard's (R11).
//!
//! They include a file by way of a descriptor that only the guard hands down. No path of a host is
//! in them: a copy made by pg_basebackup or pg_rewind is under guard as well. And nothing has to be
//! cleaned up: whoever was not started by a guard has no such descriptor, whatever died before.

/// The descriptor of the data directory that a guard gives to PostgreSQL; children inherit it, so
/// that a reload works in every process. Small enough for any limit of open files, and too large
/// to be open by chance; then it would still have to be a directory with [`GRANT_FILE`].
pub const GRANT_DESCRIPTOR: i32 = 241;

/// The file in the data directory that is included.
pub const GRANT_FILE: &str = "lifeboat-guard.conf";

/// What stands in [`GRANT_FILE`]: nothing that PostgreSQL would act on.
pub const GRANT_TEXT: &str = "\
# This data directory is managed by Lifeboat. PostgreSQL starts only below `lifeboat guard`,
# which the agent runs: a server that was failed over must not come back as a second primary.
# Who must start it by hand: docs/operations/guard.md, `lifeboat guard unmanage`.
";

const BEGIN: &[u8] = b"# BEGIN lifeboat guard";
const END: &[u8] = b"# END lifeboat guard";

/// The path that is included.
pub fn grant_path() -> String {
    format!("/proc/self/fd/{GRANT_DESCRIPTOR}/{GRANT_FILE}")
}

/// Whether the content refuses other starts.
pub fn is_guarded(content: &[u8]) -> bool {
    super::parse(content).is_ok_and(|settings| {
        let path = grant_path();
        settings.iter().any(|setting| setting.name == "include" && setting.value == path)
    })
}

/// The content with the lines at its end.
pub fn guarded(content: &[u8]) -> Vec<u8> {
    let mut changed = unguarded(content);
    if !changed.is_empty() && !changed.ends_with(b"\n") {
        changed.push(b'\n');
    }
    changed.extend_from_slice(BEGIN);
    changed.extend_from_slice(
        b"\n# Only `lifeboat guard` can start this server: see docs/operations/guard.md.\n",
    );
    changed.extend_from_slice(format!("include '{}'\n", grant_path()).as_bytes());
    changed.extend_from_slice(END);
    changed.push(b'\n');
    changed
}

/// The content without the lines.
pub fn unguarded(content: &[u8]) -> Vec<u8> {
    let mut changed = Vec::with_capacity(content.len() + 256);
    let mut inside = false;
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let text = line.trim_ascii_end();
        inside = inside || text == BEGIN;
        if !inside {
            changed.extend_from_slice(line);
        }
        inside = inside && text != END;
    }
    changed
}
