//! What a base backup leaves out, as in PostgreSQL's `basebackup.c`.

/// Directories of the data directory whose content the server removes or rebuilds at its start.
/// They are kept empty, for their permissions.
const EMPTIED: [&[u8]; 8] = [
    b"pg_stat_tmp",
    b"pg_replslot",
    b"pg_dynshmem",
    b"pg_notify",
    b"pg_serial",
    b"pg_snapshots",
    b"pg_subtrans",
    // Segments come from the archive. Left over ones would be replayed in place of them.
    b"pg_wal",
];

/// Files of the data directory that belong to the running server or to an earlier backup.
const FILES: [&[u8]; 11] = [
    b"postgresql.auto.conf.tmp",
    b"current_logfiles.tmp",
    b"postmaster.pid",
    b"postmaster.opts",
    b"backup_label",
    b"backup_label.old",
    b"tablespace_map",
    b"tablespace_map.old",
    b"backup_manifest",
    // A mark of Lifeboat that says which incarnation of a cluster this directory is: a restored
    // copy is another one.
    b"lifeboat.incarnation",
    b"lifeboat.incarnation.tmp",
];

/// Prefixes of names that are left out anywhere: temporary files, and the relation cache, which
/// is also written under temporary names.
const PREFIXES: [&[u8]; 2] = [b"pgsql_tmp", b"pg_internal.init"];

/// Whether an entry is left out whole. `names` is its path below the data directory.
pub(super) fn is_skipped(names: &[&[u8]]) -> bool {
    let Some(name) = names.last() else {
        return false;
    };
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || (names.len() == 1 && FILES.contains(name))
}

/// Whether a directory is kept without its content.
pub(super) fn is_emptied(names: &[&[u8]]) -> bool {
    matches!(names, [name] if EMPTIED.contains(name))
}
