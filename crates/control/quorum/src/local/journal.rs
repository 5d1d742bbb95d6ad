//! The bytes of a local store's journal (`docs/formats/local-quorum.md`).
//!
//! The first record has everything, each further one a change. The file is put in place whole and
//! then only appended to, so a record that is no good can be at its end, where a process or the
//! machine died while writing; anywhere else it is damage.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::keyspace::Keyspace;
use crate::{Put, Revision};

const MAGIC: &[u8; 4] = b"LBQ1";
/// Magic, length and checksum.
const HEAD_BYTES: usize = 12;
const MAX_RECORD_BYTES: usize = 128 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    /// Which store this is: another one is another history.
    id: String,
    revision: Revision,
    keys: Vec<Key>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    key: String,
    value: String,
    revision: Revision,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    revision: Revision,
    puts: Vec<Changed>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Changed {
    key: String,
    /// None for a key that went away.
    value: Option<String>,
}

/// A journal that was read from its start.
pub(super) struct Whole {
    pub id: String,
    pub keys: Keyspace,
    /// Where its first record ends.
    pub first: usize,
    /// Where its last good record ends.
    pub end: usize,
}

/// The first record.
pub(super) fn first(id: &str, keys: &Keyspace) -> Vec<u8> {
    let all = keys.read("", 0);
    let key = |entry: crate::Entry| Key {
        key: entry.key,
        value: STANDARD.encode(entry.value),
        revision: entry.revision,
    };
    let keys = all.entries.into_iter().map(key).collect();
    record(&First { id: id.to_owned(), revision: all.revision, keys })
}

/// A record of changes.
pub(super) fn change(revision: Revision, puts: &[Put]) -> Vec<u8> {
    let changed = |put: &Put| Changed {
        key: put.key.clone(),
        value: put.value.as_ref().map(|value| STANDARD.encode(value)),
    };
    record(&Change { revision, puts: puts.iter().map(changed).collect() })
}

/// A whole journal.
pub(super) fn read(bytes: &[u8]) -> Result<Whole, String> {
    let (content, first) = split(bytes).ok_or("it does not begin as a journal")?;
    let start: First = parse(content)?;
    let mut keys = Keyspace::at(start.revision);
    for Key { key, value, revision } in start.keys {
        if revision > start.revision {
            return Err(format!("{key} has a revision that is still to come"));
        }
        keys.set(Put { key, value: Some(decode(&value)?) }, revision);
    }
    let rest = bytes.get(first..).unwrap_or_default();
    let end = replay(rest, &mut keys)?.saturating_add(first);
    Ok(Whole { id: start.id, keys, first, end })
}

/// Carries out the changes in `bytes`; where the last good one ends.
pub(super) fn replay(bytes: &[u8], keys: &mut Keyspace) -> Result<usize, String> {
    let mut end = 0;
    while let Some(rest) = bytes.get(end..).filter(|rest| !rest.is_empty()) {
        let Some((content, length)) = split(rest) else {
            let place = rest.windows(MAGIC.len()).enumerate().skip(1);
            let mut later = place.filter(|(_, window)| window == MAGIC);
            // A record is written only after the one before it was whole.
            if later.any(|(at, _)| rest.get(at..).and_then(split).is_some()) {
                return Err("a record in its middle is damaged".to_owned());
            }
            break;
        };
        let change: Change = parse(content)?;
        if change.revision != keys.revision().saturating_add(1) {
            return Err(format!("revision {} follows {}", change.revision, keys.revision()));
        }
        let put = |changed: Changed| {
            let value = changed.value.as_deref().map(decode).transpose()?;
            Ok(Put { key: changed.key, value })
        };
        keys.apply(change.puts.into_iter().map(put).collect::<Result<_, String>>()?);
        end = end.saturating_add(length);
    }
    Ok(end)
}

fn record(content: &impl Serialize) -> Vec<u8> {
    // Plain data with text as keys always has a JSON form; nothing at all is no record to a reader.
    let content = serde_json::to_vec(content).unwrap_or_default();
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes();
    let sum = crc32c::crc32c_append(crc32c::crc32c(&length), &content);
    [MAGIC.as_slice(), &length, &sum.to_le_bytes(), &content].concat()
}

/// The content of the record that `bytes` begins with, and the record's length; nothing if it is
/// not a whole, good one.
fn split(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let size = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let content = rest.get(..size).filter(|_| size <= MAX_RECORD_BYTES)?;
    let right = crc32c::crc32c_append(crc32c::crc32c(length), content);
    (u32::from_le_bytes(*sum) == right).then(|| (content, HEAD_BYTES.saturating_add(size)))
}

fn parse<'a, T: Deserialize<'a>>(content: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(content).map_err(|error| format!("a record is none: {error}"))
}

fn decode(value: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(value).map_err(|_| "a value is no base64".to_owned())
}
