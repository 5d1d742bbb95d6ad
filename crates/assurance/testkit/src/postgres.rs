//! Real PostgreSQL servers of every supported major version.

mod builder;
mod cluster;
mod installation;
mod link;
mod replay;

pub use builder::Builder;
pub use cluster::{Cluster, Stop};
pub use installation::{
    CLIENTS, DEBIAN_MAJOR, Installation, MAJORS, SERVERS, cache_directory, clients_directory,
    server_directory,
};
pub use link::{Cut, Link};
pub use replay::{Recording, Replay};

#[cfg(test)]
mod tests;
