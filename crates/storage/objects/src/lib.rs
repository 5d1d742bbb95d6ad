//! Objects that are created once: one store, one key space, no overwrite.
//!
//! A [`Store`] wraps one of `object_store`'s back ends and adds what a repository needs (DESIGN
//! F1): an object is created or it is not, and where the answer got lost the store is asked until
//! that is known. Absence is a fact only when it was seen twice. A root directory that is not
//! there, a bucket that does not exist and a store that does not answer are failures, never
//! absence.

mod backend;
mod blocking;
mod clouds;
mod create;
mod directory;
mod fault;
mod key;
mod list;
mod location;
mod probe;
mod retry;
mod store;

pub use blocking::Blocking;
pub use create::Created;
pub use key::Key;
pub use location::Location;
pub use probe::Fitness;
pub use retry::Options;
pub use store::{MAX_OBJECT, Stat, Store};

#[cfg(test)]
mod tests;
