//! WAL archive: push, fetch, gaps, recoverability window

mod archived;

pub use archived::{Needed, wait_until_archived};
