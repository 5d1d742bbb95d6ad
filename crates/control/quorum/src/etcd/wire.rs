//! Requests and answers of etcd's JSON gateway: 64-bit numbers are strings, bytes are base64, and
//! whatever is zero or empty is left out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::{Entry, Revision, StoreError, Transaction};

/// What every answer of a member carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    #[serde(deserialize_with = "number")]
    pub cluster_id: u64,
    #[serde(deserialize_with = "number")]
    pub revision: Revision,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Range {
    pub header: Header,
    pub more: bool,
    pub kvs: Vec<KeyValue>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeyValue {
    key: String,
    value: String,
    #[serde(deserialize_with = "number")]
    mod_revision: Revision,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Txn {
    pub header: Header,
    pub succeeded: bool,
    responses: Vec<Response>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Response {
    response_range: Option<Range>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Authenticated {
    pub token: String,
}

/// A refusal. Codes are gRPC's.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refusal {
    pub code: u32,
    pub message: String,
}

impl Txn {
    /// What a transaction that was refused found under the keys that it asked for.
    pub(super) fn found(self) -> Result<Vec<Entry>, StoreError> {
        let ranges = self.responses.into_iter().filter_map(|response| response.response_range);
        ranges.flat_map(|range| range.kvs).map(entry).collect()
    }
}

/// A page of everything below `prefix` that changed after `since`, from `start` on, at `revision`.
pub(super) fn range(
    prefix: &str,
    start: &str,
    since: Revision,
    revision: Revision,
    limit: u32,
) -> Value {
    json!({
        "key": bytes(if start.is_empty() { b"\0" } else { start.as_bytes() }),
        "range_end": STANDARD.encode(end_of(prefix)),
        "min_mod_revision": since.saturating_add(1).to_string(),
        "revision": revision.to_string(),
        "limit": limit.to_string(),
    })
}

/// A transaction. With `look`, a refused one tells what lies under all keys that it names.
pub(super) fn txn(transaction: &Transaction, look: bool) -> Value {
    let compares = transaction.compares.iter().map(|compare| {
        json!({
            "key": bytes(compare.key.as_bytes()),
            "target": "MOD",
            "result": "EQUAL",
            "mod_revision": compare.revision.to_string(),
        })
    });
    let puts = transaction.puts.iter().map(|put| match &put.value {
        Some(value) => json!({
            "request_put": { "key": bytes(put.key.as_bytes()), "value": bytes(value) }
        }),
        None => json!({ "request_delete_range": { "key": bytes(put.key.as_bytes()) } }),
    });
    let compared = transaction.compares.iter().map(|compare| compare.key.as_str());
    let mut keys: Vec<&str> =
        compared.chain(transaction.puts.iter().map(|put| put.key.as_str())).collect();
    keys.sort_unstable();
    keys.dedup();
    let looks = keys.iter().filter(|_| look);
    let looks = looks.map(|key| json!({ "request_range": { "key": bytes(key.as_bytes()) } }));
    json!({
        "compare": compares.collect::<Vec<_>>(),
        "success": puts.collect::<Vec<_>>(),
        "failure": looks.collect::<Vec<_>>(),
    })
}

pub(super) fn authenticate(user: &str, password: &str) -> Value {
    json!({ "name": user, "password": password })
}

/// The entries of a page.
pub(super) fn entries(page: Vec<KeyValue>) -> Result<Vec<Entry>, StoreError> {
    page.into_iter().map(entry).collect()
}

fn entry(pair: KeyValue) -> Result<Entry, StoreError> {
    let damaged = |why: &str| StoreError::Damaged { key: shown(&pair.key), why: why.to_owned() };
    let key = STANDARD.decode(&pair.key).map_err(|_| damaged("its name is no base64"))?;
    let key = String::from_utf8(key).map_err(|_| damaged("its name is no text"))?;
    let value = STANDARD.decode(&pair.value).map_err(|_| damaged("its value is no base64"))?;
    Ok(Entry { key, value, revision: pair.mod_revision })
}

fn shown(encoded: &str) -> String {
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    String::from_utf8_lossy(&bytes).escape_debug().to_string()
}

fn bytes(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The first key after all that begin with `prefix`; a zero byte means no end.
pub(super) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    vec![0]
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| serde::de::Error::custom("no number"))
}
