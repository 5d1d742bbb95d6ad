//! `repo check`: what is damaged, missing or foreign, and which backups suffer from it.
//!
//! Without a key it proves that every object is whole and every named object present; with the
//! stream's keys it also follows file tables and maps.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_objects::{Key, Stat};
use lifeboat_telemetry::{Cancel, Code, Failure, Outcome, Reporter};
use serde::Serialize;

use crate::epoch::Epoch;
use crate::ids::{Digest, StreamId};
use crate::layout;
use crate::manifest::Manifest;
use crate::object::{self, ObjectType};
use crate::repository::Repository;
use crate::tree::ObjectTable;

mod names;
mod wal;

pub use names::{Place, classify};

/// What is wrong with one object.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Damage {
    /// The object's key.
    pub object: String,
    /// What is wrong.
    pub what: String,
    /// Backups that need it.
    pub backups: Vec<String>,
    /// Whether it is only worth a look: leftovers that nothing needs.
    pub harmless: bool,
}

/// What a check found.
#[derive(Debug, Default, Serialize)]
pub struct CheckReport {
    /// The region.
    pub region: String,
    /// Objects below the root.
    pub objects: u64,
    /// Their size.
    pub bytes: u64,
    /// Objects whose every byte was read.
    pub read: u64,
    /// Backups found.
    pub backups: u64,
    /// What is wrong.
    pub damage: Vec<Damage>,
}

impl CheckReport {
    /// Whether anything that matters is wrong.
    pub fn is_damaged(&self) -> bool {
        self.damage.iter().any(|damage| !damage.harmless)
    }
}

/// The check of one repository.
pub struct Check<'a> {
    repository: &'a Repository,
    reporter: &'a Reporter,
    cancel: &'a Cancel,
    present: BTreeMap<Key, Stat>,
    report: CheckReport,
    /// Which backups need which object.
    needed: BTreeMap<Key, BTreeSet<String>>,
    /// First and last segment that each backup needs.
    needed_wal: Vec<NeededWal>,
}

/// The WAL that a backup cannot do without.
struct NeededWal {
    stream: StreamId,
    backup: String,
    first: String,
    last: String,
}

impl<'a> Check<'a> {
    /// Lists every object below the root.
    pub async fn begin(
        repository: &'a Repository,
        reporter: &'a Reporter,
        cancel: &'a Cancel,
    ) -> Outcome<Self> {
        let present: BTreeMap<Key, Stat> = repository.store().list("").await?.into_iter().collect();
        let report = CheckReport {
            region: repository.region().to_owned(),
            objects: present.len() as u64,
            bytes: present.values().map(|stat| stat.size).sum(),
            ..CheckReport::default()
        };
        let (needed, needed_wal) = (BTreeMap::new(), Vec::new());
        Ok(Self { repository, reporter, cancel, present, report, needed, needed_wal })
    }

    /// Checks names, references and, with `read_data`, every byte.
    pub async fn run(mut self, read_data: bool) -> Outcome<CheckReport> {
        self.check_names();
        let streams: BTreeSet<StreamId> =
            self.present.keys().filter_map(|key| classify(key)?.stream()).collect();
        for stream in &streams {
            self.check_manifests(*stream).await?;
            wal::check(&mut self, *stream).await;
        }
        self.check_bindings(&streams).await;
        self.check_epochs().await;
        self.check_keys().await;
        if read_data {
            self.read_everything().await?;
        }
        self.report.damage.sort();
        self.report.damage.dedup();
        Ok(self.report)
    }

    fn note(&mut self, key: &Key, what: impl Into<String>) {
        let backups = self.needed.get(key).cloned().unwrap_or_default().into_iter().collect();
        let object = key.as_str().to_owned();
        self.report.damage.push(Damage { object, what: what.into(), backups, harmless: false });
    }

    fn leftover(&mut self, key: &Key, what: &str) {
        let object = key.as_str().to_owned();
        let (what, backups) = (what.to_owned(), Vec::new());
        self.report.damage.push(Damage { object, what, backups, harmless: true });
    }

    fn check_names(&mut self) {
        let keys: Vec<Key> = self.present.keys().cloned().collect();
        for key in keys {
            match classify(&key) {
                None => self.note(&key, "no object of a repository has such a name"),
                Some(Place::Probe) => self.leftover(&key, "left by a probe of the store"),
                Some(_) => {}
            }
        }
    }

    async fn check_manifests(&mut self, stream: StreamId) -> Outcome<()> {
        let prefix = format!("{}manifests/", layout::stream(stream));
        let keys: Vec<Key> =
            self.present.keys().filter(|key| key.as_str().starts_with(&prefix)).cloned().collect();
        // A damaged certificate is named by check_keys.
        let writers = self.repository.certified_writers().await.ok();
        let mut manifests = Vec::new();
        for key in keys {
            self.cancel.check()?;
            self.report.backups += 1;
            match self.read_manifest(&key).await {
                Err(failure) => self.note(&key, failure.to_string()),
                Ok(manifest) => {
                    let known = writers.as_ref().is_none_or(|all| all.contains(&manifest.signer));
                    if !known {
                        self.note(&key, "it is signed by a writer that was never certified");
                    }
                    manifests.push(manifest);
                }
            }
        }
        self.check_chain(stream, &manifests)?;
        for manifest in &manifests {
            let [first, last] = manifest.body.wal.clone();
            let backup = manifest.body.name.clone();
            self.needed_wal.push(NeededWal { stream, backup, first, last });
            self.check_objects(stream, manifest).await?;
        }
        self.find_orphans(stream);
        Ok(())
    }

    async fn read_manifest(&self, key: &Key) -> Outcome<Manifest> {
        Manifest::decode(key, &self.repository.store().get(key).await?)
    }

    /// Every predecessor must be there and be the one that was meant.
    fn check_chain(&mut self, stream: StreamId, manifests: &[Manifest]) -> Outcome<()> {
        let digests: BTreeMap<&str, Digest> =
            manifests.iter().map(|one| (one.body.name.as_str(), one.digest)).collect();
        for manifest in manifests {
            let Some(predecessor) = &manifest.body.predecessor else {
                continue;
            };
            let key = layout::manifest(stream, &predecessor.name)?;
            match digests.get(predecessor.name.as_str()) {
                Some(digest) if *digest == predecessor.digest => {}
                Some(_) => self.note(&key, "its successor was written after another manifest"),
                None if self.present.contains_key(&key) => {}
                None => self.note(&key, "the manifest is missing; its successor names it"),
            }
        }
        Ok(())
    }

    /// Every object of a manifest's table must be there with its size.
    async fn check_objects(&mut self, stream: StreamId, manifest: &Manifest) -> Outcome<()> {
        let name = &manifest.body.name;
        for page in &manifest.body.object_table {
            let key = layout::content(stream, ObjectType::ObjectTable, page)?;
            self.needed.entry(key.clone()).or_default().insert(name.clone());
            let entries = match self.repository.store().get(&key).await {
                Ok(bytes) => ObjectTable::decode(page, &bytes),
                Err(failure) => Err(failure),
            };
            let entries = match entries {
                Ok(entries) => entries,
                Err(failure) => {
                    self.note(&key, explain(&failure));
                    continue;
                }
            };
            for entry in entries {
                let key = layout::content(stream, entry.kind, &entry.digest)?;
                self.needed.entry(key.clone()).or_default().insert(name.clone());
                match self.present.get(&key) {
                    None => self.note(&key, "the object is missing"),
                    Some(stat) if stat.size != entry.size => {
                        let what = format!("it has {} bytes, not {}", stat.size, entry.size);
                        self.note(&key, what);
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Packs and maps that no manifest names: of a backup that runs now or that was cut off.
    fn find_orphans(&mut self, stream: StreamId) {
        let orphans: Vec<Key> = self
            .present
            .keys()
            .filter(|key| {
                let content = matches!(classify(key), Some(Place::Content(of, ..)) if of == stream);
                content && !self.needed.contains_key(*key)
            })
            .cloned()
            .collect();
        for key in orphans {
            self.leftover(&key, "no backup needs it: one that runs now, or that was cut off");
        }
    }

    /// Bindings are numbered without holes, and every stream is named by one.
    async fn check_bindings(&mut self, streams: &BTreeSet<StreamId>) {
        let mut unnamed = streams.clone();
        let mut numbers: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        for key in self.present.keys() {
            if let Some(Place::Binding(database, number)) = classify(key) {
                numbers.entry(database).or_default().insert(number);
            }
        }
        for (database, numbers) in numbers {
            for number in 1..=numbers.last().copied().unwrap_or(0) {
                let Ok(key) = layout::binding(&database, number) else {
                    continue;
                };
                if !numbers.contains(&number) {
                    self.note(&key, "the binding is missing; a later one exists");
                    continue;
                }
                match self.repository.binding_number(&database, number).await {
                    Ok(Some(binding)) => drop(unnamed.remove(&binding.body.stream)),
                    Ok(None) => {}
                    Err(failure) => self.note(&key, explain(&failure)),
                }
            }
        }
        for stream in unnamed {
            let object = layout::stream(stream);
            let what = "no binding names this stream: the one that does is lost".to_owned();
            self.report.damage.push(Damage { object, what, ..Damage::default() });
        }
    }

    /// Epochs are signed by certified writers. Numbers may be left out: another region, or an
    /// agent, had seen a higher one.
    async fn check_epochs(&mut self) {
        let epochs: Vec<(Key, String, u32)> = self
            .present
            .keys()
            .filter_map(|key| match classify(key)? {
                Place::Epoch(service, number) => Some((key.clone(), service, number)),
                _ => None,
            })
            .collect();
        // A damaged certificate is named by check_keys.
        let writers = self.repository.certified_writers().await.ok();
        for (key, service, number) in epochs {
            let read = self.repository.store().get(&key).await;
            let read = read.and_then(|bytes| Epoch::decode(&service, number, &bytes));
            let read = read.and_then(|epoch| match &writers {
                Some(writers) => epoch.certified(writers),
                None => Ok(epoch),
            });
            if let Err(failure) = read {
                self.note(&key, explain(&failure));
            }
        }
    }

    /// Slots and certificates are numbered without holes; removals stay where slots went.
    async fn check_keys(&mut self) {
        let names: BTreeSet<String> = self
            .present
            .keys()
            .filter(|key| key.as_str().starts_with("keys/"))
            .map(|key| key.as_str().to_owned())
            .collect();
        for prefix in ["keys/slot-", "keys/writer-"] {
            let number = |name: &String| {
                let digits = name.strip_prefix(prefix)?.trim_end_matches("-removed");
                u32::from_str_radix(digits, 16).ok()
            };
            for expected in 1..=names.iter().filter_map(number).max().unwrap_or(0) {
                let name = format!("{prefix}{expected:08x}");
                let there = names.contains(&name) || names.contains(&format!("{name}-removed"));
                if let (false, Ok(key)) = (there, Key::new(name)) {
                    self.note(&key, "the object is missing; a later one exists");
                }
            }
        }
        let no_slot = !names.iter().any(|name| name.starts_with("keys/slot-"));
        if let (true, Ok(key)) = (no_slot, layout::slot(1)) {
            self.note(&key, "there is no slot: nobody can open this vault");
        }
        for name in names {
            let Ok(key) = Key::new(name) else { continue };
            let read = self.repository.store().get(&key).await;
            if let Err(failure) = read.and_then(|bytes| object::decode_any(&key, &bytes)) {
                self.note(&key, explain(&failure));
            }
        }
    }

    /// Reads every byte of every object and compares it with the object's own SHA-256.
    async fn read_everything(&mut self) -> Outcome<()> {
        let objects: Vec<(Key, u64)> =
            self.present.iter().map(|(key, stat)| (key.clone(), stat.size)).collect();
        self.reporter.start("reading objects", self.report.bytes);
        for (key, size) in objects {
            self.cancel.check()?;
            self.reporter.advance(size);
            let Some(place) = classify(&key).filter(|place| *place != Place::Probe) else {
                continue;
            };
            let checked = match self.repository.store().get(&key).await {
                Err(failure) => Err(failure),
                Ok(bytes) => match place {
                    Place::Content(_, _, digest) => whole(&digest, &bytes, self.repository),
                    _ => object::decode_any(&key, &bytes)
                        .and_then(|named| own_vault(&named.header, self.repository)),
                },
            };
            match checked {
                Ok(()) => self.report.read += 1,
                Err(failure) if failure.code() == Code::StoreUnavailable => return Err(failure),
                Err(failure) => self.note(&key, explain(&failure)),
            }
        }
        self.reporter.finish("reading objects");
        Ok(())
    }
}

fn explain(failure: &Failure) -> String {
    match failure.code() {
        Code::ObjectMissing => "the object is missing".to_owned(),
        _ => failure.to_string(),
    }
}

fn whole(digest: &Digest, bytes: &[u8], repository: &Repository) -> Outcome<()> {
    if Digest::of(bytes) != *digest {
        let message = "its SHA-256 is not its name";
        return Err(Failure::new(Code::ObjectDamaged, message));
    }
    own_vault(&object::Header::decode(bytes)?, repository)
}

fn own_vault(header: &object::Header, repository: &Repository) -> Outcome<()> {
    if header.vault == repository.vault().id {
        return Ok(());
    }
    Err(Failure::new(Code::ObjectDamaged, "it belongs to another vault"))
}
