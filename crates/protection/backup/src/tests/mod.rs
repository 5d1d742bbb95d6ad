//! Tests of the steps that need no server; `tests/` at the root has those with real ones.

mod frames;
mod read;
mod schedule;
mod session;

use std::sync::Arc;

use lifeboat_environment::{Environment, ManualClock, SeededRandom};
use lifeboat_repository::ids::Incarnation;
use lifeboat_repository::keys::{Encryption, StreamKeys, VaultSecrets};

pub fn environment() -> Environment {
    let clock = ManualClock::at("2026-11-20T10:00:00Z".parse().unwrap());
    Environment::for_test(Arc::new(clock), Arc::new(SeededRandom::new(7)))
}

pub fn keys() -> (VaultSecrets, StreamKeys) {
    let secrets = VaultSecrets::create(&environment(), Encryption::Aes256Gcm).unwrap();
    let keys = secrets.stream(1, Incarnation::FIRST);
    (secrets, keys)
}
