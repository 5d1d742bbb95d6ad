//! How a file becomes objects: one, or parts and a head that names them.

use std::fs::File;
use std::path::Path;

use lifeboat_objects::Key;
use lifeboat_repository::ids::Digest;
use lifeboat_repository::layout;
use lifeboat_repository::object::ObjectType;
use lifeboat_repository::wal_file::{Parts, WalContent, WalFacts, encode};
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::file::{Body, WalFile, read_part};
use super::place::{Placed, Places, Wanted};

/// Stores a file in all regions.
pub(crate) fn place(
    places: &Places<'_>,
    path: &Path,
    file: &WalFile,
    level: i32,
) -> Outcome<Placed> {
    let key = layout::wal(places.keys.stream(), &file.name)?;
    match &file.body {
        Body::Whole { kind, plain } => {
            let wanted = Wanted { kind: *kind, key: &key, digest: file.digest };
            one(places, &wanted, plain, &file.facts, level)
        }
        Body::Parts { file: source, digests } => {
            let kind = ObjectType::SegmentHead;
            let wanted = Wanted { kind, key: &key, digest: file.digest };
            let parts = store_parts(places, path, source, &file.name, digests, level)?;
            let list = serde_json::to_vec(&Parts { parts }).map_err(|error| {
                Failure::new(Code::Internal, format!("{key} cannot be encoded")).because(error)
            })?;
            one(places, &wanted, &list, &file.facts, level)
        }
    }
}

fn one(
    places: &Places<'_>,
    wanted: &Wanted<'_>,
    plain: &[u8],
    facts: &WalFacts,
    level: i32,
) -> Outcome<Placed> {
    let Wanted { kind, key, digest } = *wanted;
    let content = WalContent { plain, digest, facts };
    places.place(wanted, || encode(places.keys, places.environment, kind, key, level, &content))
}

/// Stores the parts in order. The segment exists when its head does, so what a crash leaves here
/// is found and used by the next attempt.
fn store_parts(
    places: &Places<'_>,
    path: &Path,
    source: &File,
    name: &str,
    digests: &[[u8; 32]],
    level: i32,
) -> Outcome<Vec<Digest>> {
    let mut buffer = Vec::new();
    let mut parts = Vec::with_capacity(digests.len());
    for (number, digest) in (0..).zip(digests) {
        read_part(path, source, u64::from(number), &mut buffer)?;
        if places.keys.content_digest(&buffer) != *digest {
            let message = format!("{name} changed while it was read");
            return Err(Failure::new(Code::WalInvalid, message)
                .hint("Nothing may write to a segment that is ready: find out who does."));
        }
        let key: Key = layout::wal_part(places.keys.stream(), name, number)?;
        let wanted = Wanted { kind: ObjectType::SegmentPart, key: &key, digest: *digest };
        let placed = one(places, &wanted, &buffer, &WalFacts::default(), level)?;
        let bytes = match placed.bytes {
            Some(bytes) => bytes,
            None => places.read_any(&placed, &wanted)?,
        };
        parts.push(Digest::of(&bytes));
    }
    Ok(parts)
}
