//! What a receiver is called: its application name and its replication slot are the same word.

use lifeboat_model::{DatabaseId, RegionName};
use lifeboat_repository::ids::Digest;

/// What PostgreSQL keeps of an application name and of a slot's name.
const BYTES_MAX: usize = 63;
const DIGEST_DIGITS: usize = 8;

/// The application name and the slot of the receiver of a database in a region:
/// `lifeboat_SERVICE_DATABASE_REGION` in lower case, with `_` for what a slot cannot be named.
pub fn receiver_name(id: &DatabaseId, region: &RegionName) -> String {
    let long = format!("lifeboat_{}_{}_{region}", id.service, id.database);
    let plain = |letter: char| match letter.to_ascii_lowercase() {
        letter @ ('a'..='z' | '0'..='9' | '_') => letter,
        _ => '_',
    };
    let mut name: String = long.chars().map(plain).collect();
    if name.len() > BYTES_MAX {
        let digest = Digest::of(name.as_bytes()).to_string();
        name.truncate(BYTES_MAX - DIGEST_DIGITS - 1);
        name.push('_');
        name.extend(digest.chars().take(DIGEST_DIGITS));
    }
    name
}

/// Whether a name may be one that [`receiver_name`] made.
pub fn is_receiver_name(name: &str) -> bool {
    name.starts_with("lifeboat_")
}

#[cfg(test)]
mod tests;
