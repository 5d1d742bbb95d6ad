//! The models by themselves, then production's daemons in them.

mod etcd;
mod executor;
mod mutants;
mod seeds;
