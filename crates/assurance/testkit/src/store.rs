//! Object stores for tests: a strict one of our own, emulators of the clouds, and a proxy that
//! makes any of them fail on purpose.

pub mod emulators;
mod profile;
mod proxy;
mod server;
mod serving;

pub use profile::{Fault, Profile};
pub use proxy::{Call, FaultProxy, Kind};
pub use server::{Misbehaviour, Objects, S3Server};

#[cfg(test)]
mod tests;
