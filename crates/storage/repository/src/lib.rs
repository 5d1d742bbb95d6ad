//! The repository format: keys, packs, maps, manifests, WAL objects, check.
//!
//! docs/formats/repository.md describes the bytes. Reading order: [`object`] (the frame around
//! everything), [`keys`] (who can do what), [`pack`] and [`tree`] (pages and where they lie),
//! [`manifest`] (the root of a backup), [`wal_file`] and [`fragment`], then [`repository`] and
//! [`regions`].

pub mod access;
pub mod ask;
pub mod binding;
pub mod catch_up;
pub mod changes;
pub mod check;
pub mod create;
pub mod crypt;
pub mod cursor;
pub mod enroll;
pub mod epoch;
pub mod fragment;
pub mod ids;
pub mod keys;
pub mod layout;
pub mod manifest;
pub mod object;
pub mod pack;
pub mod receiver;
pub mod regions;
pub mod repository;
pub mod session;
pub mod spans;
pub mod tree;
pub mod wal_file;

#[cfg(test)]
mod tests;
