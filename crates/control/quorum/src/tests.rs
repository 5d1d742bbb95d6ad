//! The rules of epoch and lease.

mod lease;
mod observation;
mod record;
