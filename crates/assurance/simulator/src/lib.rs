//! The control plane under one seed.
//!
//! Production code decides and acts: lease, guard deadline, judge, runs, agents, controllers, tokens,
//! seals. Time, network, disks, etcd, PostgreSQL and DNS are models, and one seed decides
//! everything that chance decides: the same seed gives the same history and the same hash.

pub mod chance;
pub mod checks;
pub mod client;
pub mod dns;
pub mod etcd;
pub mod executor;
pub mod faults;
pub mod fleet;
pub mod history;
pub mod message;
pub mod mutant;
pub mod network;
mod person;
pub mod plant;
pub mod ports;
pub mod postgres;
pub mod receiver;
pub mod repository;
pub mod scene;
pub mod simulate;
pub mod wal;
pub mod world;
pub mod wrong;

#[cfg(test)]
mod tests;
