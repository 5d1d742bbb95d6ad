//! The rules of epoch and lease.

mod lease;
mod record;
