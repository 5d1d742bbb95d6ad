//! Words of the domain and the spec (lifeboat.yaml).

mod lsn;
mod name;
mod quantity;
mod target;
mod wal_file;
mod word;

pub use lsn::{Lsn, SystemIdentifier, Timeline};
pub use name::{
    DatabaseId, DatabaseName, NodeName, PersonName, RegionName, ResourceName, ServiceName, TierName,
};
pub use quantity::{ByteRate, ByteSize, TimeSpan};
pub use target::RecoveryTarget;
pub use wal_file::{SegmentName, SegmentSize, WalFileName};
pub use word::InvalidWord;

#[cfg(test)]
mod tests;
