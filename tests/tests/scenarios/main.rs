//! Scenarios over the real binary and real PostgreSQL. A file for each promise.

mod acknowledge;
mod contract;
mod damage;
mod disk_full;
mod failover;
mod failover_speed;
mod fragments;
mod guard;
mod guard_boot;
mod guard_dies;
mod identity;
mod killed;
mod lab_parts;
mod locate;
mod odd;
mod pitr;
mod prune;
mod restore;
mod standby;
mod stores;
mod story;
mod stream;
mod sweep;
mod torture_wal;
mod twice;
