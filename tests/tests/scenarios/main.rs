//! Scenarios over the real binary and real PostgreSQL. A file for each promise.

mod damage;
mod killed;
mod pitr;
mod restore;
mod story;
