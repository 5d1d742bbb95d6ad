//! Hash-chained, signed log of every act: one chain a writer, one create-once object an entry.
//!
//! An entry names the SHA-256 of the one before it, so that a missing, changed or exchanged entry
//! breaks the chain. An entry that could not be published never stops the act itself: the caller
//! warns.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use lifeboat_environment::Environment;
use lifeboat_objects::Key;
use lifeboat_repository::ids::{Digest, VerifyingKey};
use lifeboat_repository::keys::WriterKey;
use lifeboat_repository::object::{ObjectType, decode_named};
use lifeboat_repository::regions::Regions;
use lifeboat_repository::repository::{Repository, encode_body};
use lifeboat_telemetry::{Code, Failure, Outcome};
use serde::{Deserialize, Serialize};

/// Two processes of one host may record at the same time; more than this is no coincidence.
const ATTEMPTS: u32 = 16;

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Act {
    /// The command, as in `backup` or `key add`.
    pub act: String,
    /// What it was done to: a database, a slot.
    pub subject: String,
    /// Facts that matter afterwards, as in the manifest's name and digest.
    pub facts: BTreeMap<String, String>,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Position in the chain, from 1.
    pub sequence: u32,
    /// SHA-256 of the entry before.
    pub previous: Option<Digest>,
    /// When, by the writer's wall clock.
    pub at: Timestamp,
    /// What people call the writer.
    pub writer: String,
    /// What was done.
    pub done: Act,
}

/// Appends an entry in every region that answers.
pub async fn record(
    environment: &Environment,
    regions: &mut Regions,
    writer: &WriterKey,
    done: Act,
) -> Outcome<Entry> {
    let signer = writer.signing()?;
    let public = VerifyingKey(signer.public());
    for _ in 0..ATTEMPTS {
        let (last, previous) = newest(regions, &public).await?;
        let entry = Entry {
            sequence: last + 1,
            previous,
            at: environment.clock().now(),
            writer: writer.label().to_owned(),
            done: done.clone(),
        };
        let key = entry_key(&public, entry.sequence)?;
        let kind = ObjectType::Audit;
        let bytes = encode_body(writer.vault(), &key, kind, &entry, Some(&signer))?;
        match regions.create_verified(&key, &bytes).await {
            Ok(()) => return Ok(entry),
            Err(failure) if failure.code() == Code::ObjectConflict => {}
            Err(failure) => return Err(failure.within("recording in the audit log")),
        }
    }
    Err(Failure::new(Code::ObjectConflict, "no free place in the audit log was found"))
}

/// The newest position that any region knows, and the digest of that entry.
async fn newest(regions: &Regions, writer: &VerifyingKey) -> Outcome<(u32, Option<Digest>)> {
    let mut newest: Option<(u32, &Repository)> = None;
    for repository in regions.all() {
        let keys = repository.store().list(&folder(writer)).await?;
        let last = keys.iter().filter_map(|(key, _)| sequence_of(key)).max();
        if let Some(last) = last.filter(|last| newest.is_none_or(|(known, _)| *last > known)) {
            newest = Some((last, repository));
        }
    }
    let Some((last, repository)) = newest else {
        return Ok((0, None));
    };
    let bytes = repository.store().get(&entry_key(writer, last)?).await?;
    Ok((last, Some(Digest::of(&bytes))))
}

/// Reads every chain of a repository, oldest entry first; fails at the first break.
pub async fn verify(repository: &Repository) -> Outcome<BTreeMap<VerifyingKey, Vec<Entry>>> {
    let writers = repository.certified_writers().await?;
    let mut chains: BTreeMap<VerifyingKey, Vec<Entry>> = BTreeMap::new();
    let mut previous: Option<Digest> = None;
    for (key, _) in repository.store().list("audit/").await? {
        let bytes = repository.store().get(&key).await?;
        let (writer, entry) = decode(&key, &bytes)?;
        let chain = chains.entry(writer).or_default();
        if chain.is_empty() {
            previous = None;
        }
        let expected = chain.len() as u32 + 1;
        if entry.sequence != expected || entry.previous != previous || !writers.contains(&writer.0)
        {
            let message = format!("the audit log breaks at {key}: entry {expected} is expected");
            return Err(Failure::new(Code::RepositoryDamaged, message)
                .hint("Compare with another region: an entry is missing or was exchanged."));
        }
        previous = Some(Digest::of(&bytes));
        chain.push(entry);
    }
    Ok(chains)
}

fn decode(key: &Key, bytes: &Bytes) -> Outcome<(VerifyingKey, Entry)> {
    let named = decode_named(ObjectType::Audit, key, bytes)?;
    let damaged = || Failure::new(Code::ObjectDamaged, format!("{key} is damaged"));
    let writer = named.signer.map(VerifyingKey).ok_or_else(damaged)?;
    let entry: Entry =
        serde_json::from_slice(&named.body).map_err(|error| damaged().because(error))?;
    if *key != entry_key(&writer, entry.sequence)? {
        return Err(damaged());
    }
    Ok((writer, entry))
}

fn folder(writer: &VerifyingKey) -> String {
    format!("audit/{writer}/")
}

fn entry_key(writer: &VerifyingKey, sequence: u32) -> Outcome<Key> {
    Key::new(format!("{}{sequence:08x}", folder(writer)))
}

fn sequence_of(key: &Key) -> Option<u32> {
    u32::from_str_radix(key.as_str().rsplit_once('/')?.1, 16).ok()
}

#[cfg(test)]
mod tests;
