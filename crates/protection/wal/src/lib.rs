//! WAL archive: push, fetch, gaps, recoverability window
