//! Words of the domain and the spec (lifeboat.yaml).

mod check;
mod finding;
mod load;
mod lsn;
mod name;
mod quantity;
mod reader;
mod reference;
mod schema;
mod setting;
pub mod spec;
mod state;
mod target;
mod tree;
mod wal_file;
mod word;

pub use finding::{Finding, Severity};
pub use load::Loaded;
pub use lsn::{Lsn, SystemIdentifier, Timeline};
pub use name::{
    DatabaseId, DatabaseName, NodeName, PersonName, RegionName, ResourceName, ServiceName, TierName,
};
pub use quantity::{ByteRate, ByteSize, TimeSpan};
pub use reference::{Reference, Secret};
pub use schema::schema_json;
pub use setting::{Compression, Schedule};
pub use spec::Spec;
pub use target::RecoveryTarget;
pub use wal_file::{SegmentName, SegmentSize, WalFileName};
pub use word::InvalidWord;

#[cfg(test)]
mod tests;
