//! One region's repository: `format`, keys, bindings, manifests.

use std::collections::BTreeSet;

use bytes::Bytes;
use jiff::Timestamp;
use lifeboat_objects::{Key, Store};
use lifeboat_telemetry::{Code, Failure, Kind, Outcome};
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::binding::{Binding, BindingBody, FoundBindings};
use crate::crypt::SigningKey;
use crate::ids::StreamId;
use crate::keys::{CertificateBody, OpenWith, SlotBody, Vault, VaultSecrets, open_slot};
use crate::layout;
use crate::manifest::Manifest;
use crate::object::{Coding, Header, ObjectType, decode_named, encode_named};

/// How it is known that the store creates exclusively.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExclusiveCreate {
    /// `repo create` raced a probe and the store held.
    Proven,
    /// The store failed the probe; the spec says `single_writer: true`.
    SingleWriter,
}

/// The body of the `format` object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormatBody {
    /// Version of the whole layout.
    pub lifeboat_repository: u32,
    /// The vault.
    pub vault: Vault,
    /// The region whose copy this is.
    pub region: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// What the probe for exclusive create found.
    pub exclusive_create: ExclusiveCreate,
}

/// An open repository.
#[derive(Debug, Clone)]
pub struct Repository {
    store: Store,
    format: FormatBody,
}

/// The manifests of a stream.
#[derive(Debug, Default)]
pub struct Manifests {
    /// Those that hold, in order of name.
    pub sound: Vec<Manifest>,
    /// Names of those that do not, and why.
    pub damaged: Vec<(String, Failure)>,
}

/// A slot as listed.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Its number.
    pub number: u32,
    /// Its body.
    pub body: SlotBody,
}

impl Repository {
    /// Opens the repository of a region; refuses what it cannot read or does not know.
    pub async fn open(store: Store) -> Outcome<Self> {
        let key = layout::format()?;
        let place = store.location().display();
        let bytes = match store.get(&key).await {
            Ok(bytes) => bytes,
            Err(failure) if failure.code() == Code::ObjectMissing => {
                let message = format!("there is no repository at {place}");
                return Err(Failure::new(Code::RepositoryMissing, message)
                    .hint("Run `lifeboat repo create`, or mount or correct the place."));
            }
            Err(failure) => return Err(failure.within(format!("opening {place}"))),
        };
        let unreadable = |failure: Failure| match failure.code() {
            Code::FormatNewer => failure.within(&place),
            _ => Failure::new(Code::FormatUnreadable, format!("cannot read `format` of {place}"))
                .because(failure)
                .hint("Nothing was written. Compare with another region's `format`."),
        };
        let named = decode_named(ObjectType::Format, &key, &bytes).map_err(unreadable)?;
        let format: FormatBody = parse(&key, &named.body).map_err(unreadable)?;
        if format.lifeboat_repository != 1 {
            let version = format.lifeboat_repository;
            return Err(Failure::new(
                Code::FormatNewer,
                format!("{place} has repository version {version}, this lifeboat knows 1"),
            )
            .hint("Use the version of lifeboat that wrote it, or a newer one."));
        }
        if named.signer != Some(format.vault.root_public.0) {
            let message = format!("`format` of {place} is not signed by its own vault");
            return Err(Failure::new(Code::SignatureInvalid, message));
        }
        Ok(Self { store, format })
    }

    /// Writes `format` as the last step of creating a repository.
    pub async fn create(store: Store, format: FormatBody, root: &SigningKey) -> Outcome<Self> {
        let key = layout::format()?;
        let bytes = encode_body(&format.vault, &key, ObjectType::Format, &format, Some(root))?;
        store.create_verified(&key, bytes).await?;
        Ok(Self { store, format })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The `format` object.
    pub fn format(&self) -> &FormatBody {
        &self.format
    }

    /// The vault.
    pub fn vault(&self) -> &Vault {
        &self.format.vault
    }

    /// The region.
    pub fn region(&self) -> &str {
        &self.format.region
    }

    /// All slots that were not removed.
    pub async fn slots(&self) -> Outcome<Vec<Slot>> {
        self.each_slot().await?.into_iter().collect()
    }

    async fn each_slot(&self) -> Outcome<Vec<Outcome<Slot>>> {
        let names: BTreeSet<String> = self
            .store
            .list("keys/")
            .await?
            .into_iter()
            .map(|(key, _)| key.as_str().to_owned())
            .collect();
        let mut slots = Vec::new();
        for name in names.iter().filter(|name| !names.contains(&format!("{name}-removed"))) {
            let Some(number) = number_after(name, "keys/slot-") else {
                continue;
            };
            let key = Key::new(name.clone())?;
            let bytes = self.store.get(&key).await?;
            let named = decode_named(ObjectType::Slot, &key, &bytes);
            let body = named.and_then(|named| parse(&key, &named.body));
            slots.push(body.map(|body| Slot { number, body }));
        }
        Ok(slots)
    }

    /// The number that the next slot, certificate (`writer-`) gets.
    pub async fn next_key_number(&self, prefix: &str) -> Outcome<u32> {
        let keys = self.store.list("keys/").await?;
        let numbers = keys.iter().filter_map(|(key, _)| {
            number_after(key.as_str().trim_end_matches("-removed"), &format!("keys/{prefix}"))
        });
        Ok(numbers.max().unwrap_or(0) + 1)
    }

    /// Opens the vault with whatever of `openers` fits a slot.
    pub async fn open_secrets(&self, openers: &[OpenWith]) -> Outcome<VaultSecrets> {
        let (mut slots, mut damaged) = (Vec::new(), None);
        for slot in self.each_slot().await? {
            match slot {
                Ok(slot) => slots.push(slot),
                // It must not lock out who has the secret of another one.
                Err(failure) => damaged = Some(failure),
            }
        }
        for opener in openers.iter().chain([&OpenWith::Open]) {
            for slot in &slots {
                if let Some(secrets) = open_slot(self.vault(), &slot.body, opener)? {
                    return Ok(secrets);
                }
            }
        }
        if let Some(failure) = damaged {
            return Err(failure);
        }
        let kinds: Vec<&str> = slots.iter().map(|slot| slot.body.kind.name()).collect();
        let place = self.store.location().display();
        if openers.is_empty() {
            let message = format!("nothing at hand opens the vault of {place}");
            return Err(Failure::new(Code::KeyUnavailable, message)
                .hint(format!("Its slots are: {}.", kinds.join(", "))));
        }
        Err(Failure::new(Code::PassphraseWrong, format!("no slot of {place} opens"))
            .hint(format!("What was given fits none of its slots: {}.", kinds.join(", "))))
    }

    /// Certificates of all writers, in the order of their issue; each signed by the root.
    pub async fn certificates(&self) -> Outcome<Vec<CertificateBody>> {
        let mut certificates = Vec::new();
        for (key, _) in self.store.list("keys/writer-").await? {
            let bytes = self.store.get(&key).await?;
            let named = decode_named(ObjectType::Certificate, &key, &bytes)?;
            self.check_root(&key, named.signer)?;
            certificates.push(parse(&key, &named.body)?);
        }
        Ok(certificates)
    }

    /// Public keys of all writers that the root certified.
    pub async fn certified_writers(&self) -> Outcome<BTreeSet<[u8; 32]>> {
        let certificates = self.certificates().await?;
        Ok(certificates.into_iter().map(|certificate| certificate.public_key.0).collect())
    }

    /// The newest binding of a database.
    pub async fn binding(&self, database: &str) -> Outcome<Option<Binding>> {
        Ok(self.bindings(database).await?.pop())
    }

    /// All bindings of a database, oldest first.
    pub async fn bindings(&self, database: &str) -> Outcome<Vec<Binding>> {
        self.found_bindings(database).await?.into_iter().map(|(_, found)| found).collect()
    }

    /// All bindings of a database by their number, also those that are damaged here.
    pub async fn found_bindings(&self, database: &str) -> Outcome<FoundBindings> {
        let prefix = format!("bindings/{database}/");
        let mut bindings = Vec::new();
        for (key, _) in self.store.list(&prefix).await? {
            let Some(number) = number_after(key.as_str(), &prefix) else {
                continue;
            };
            match self.read_binding(&key, number).await {
                Err(failure) if failure.kind() != Kind::Damage => return Err(failure),
                found => bindings.push((number, found)),
            }
        }
        Ok(bindings)
    }

    /// The binding of a number, if it exists: one cheap look, for every push.
    pub async fn binding_number(&self, database: &str, number: u32) -> Outcome<Option<Binding>> {
        let key = layout::binding(database, number)?;
        match self.read_binding(&key, number).await {
            Ok(binding) => Ok(Some(binding)),
            Err(failure) if failure.code() == Code::ObjectMissing => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// A damaged answer is asked for again: it may have been damaged on its way.
    async fn read_binding(&self, key: &Key, number: u32) -> Outcome<Binding> {
        match self.read_binding_once(key, number).await {
            Err(failure) if failure.kind() == Kind::Damage => {
                self.read_binding_once(key, number).await
            }
            read => read,
        }
    }

    async fn read_binding_once(&self, key: &Key, number: u32) -> Outcome<Binding> {
        let bytes = self.store.get(key).await?;
        let named = decode_named(ObjectType::Binding, key, &bytes)?;
        self.check_root(key, named.signer)?;
        Ok(Binding { number, body: parse::<BindingBody>(key, &named.body)? })
    }

    /// Names of all databases that were ever bound.
    pub async fn bound_databases(&self) -> Outcome<BTreeSet<String>> {
        let keys = self.store.list("bindings/").await?;
        let names = keys.iter().filter_map(|(key, _)| {
            let (database, _) = key.as_str().strip_prefix("bindings/")?.rsplit_once('/')?;
            Some(database.to_owned())
        });
        Ok(names.collect())
    }

    /// All manifests of a stream in order of name, their signatures checked. One that is damaged
    /// does not hide the others.
    pub async fn manifests(&self, stream: StreamId) -> Outcome<Manifests> {
        let writers = self.certified_writers().await?;
        let prefix = format!("{}manifests/", layout::stream(stream));
        let mut manifests = Manifests::default();
        for (key, _) in self.store.list(&prefix).await? {
            let read = self.store.get(&key).await.and_then(|bytes| {
                let manifest = Manifest::decode(&key, &bytes)?;
                if writers.contains(&manifest.signer) {
                    return Ok(manifest);
                }
                let message = format!("{key} is signed by a writer that was never certified");
                Err(Failure::new(Code::SignatureInvalid, message))
            });
            match read {
                Ok(manifest) => manifests.sound.push(manifest),
                Err(failure) if failure.kind() == Kind::Damage => {
                    let name = key.as_str().rsplit('/').next().unwrap_or_default().to_owned();
                    manifests.damaged.push((name, failure));
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(manifests)
    }

    fn check_root(&self, key: &Key, signer: Option<[u8; 32]>) -> Outcome<()> {
        if signer == Some(self.vault().root_public.0) {
            return Ok(());
        }
        let message = format!("{key} is not signed by the vault's root");
        Err(Failure::new(Code::SignatureInvalid, message))
    }
}

/// Builds an object of the vault whose body is JSON.
pub fn encode_body(
    vault: &Vault,
    key: &Key,
    kind: ObjectType,
    body: &impl Serialize,
    signer: Option<&SigningKey>,
) -> Outcome<Bytes> {
    let json = serde_json::to_vec(body).map_err(|error| {
        Failure::new(Code::Internal, format!("{key} cannot be encoded")).because(error)
    })?;
    let stream = StreamId::default();
    let header = Header { kind, vault: vault.id, stream, coding: Coding::PLAIN, body_bytes: 0 };
    Ok(encode_named(header, key, &json, signer))
}

/// Reads a JSON body.
pub(crate) fn parse<T: DeserializeOwned>(key: &Key, body: &[u8]) -> Outcome<T> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::new(Code::ObjectDamaged, format!("{key} is damaged")).because(error)
    })
}

pub(crate) fn number_after(name: &str, prefix: &str) -> Option<u32> {
    let digits = name.strip_prefix(prefix)?;
    u32::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 8)
}

/// Removes a slot: the removal is signed and stays, the slot itself goes.
pub async fn remove_slot(repository: &Repository, root: &SigningKey, number: u32) -> Outcome<()> {
    #[derive(Serialize)]
    struct Removal {
        slot: u32,
    }
    let key = layout::slot_removal(number)?;
    let kind = ObjectType::SlotRemoval;
    let bytes = encode_body(repository.vault(), &key, kind, &Removal { slot: number }, Some(root))?;
    repository.store().create_verified(&key, bytes).await?;
    repository.store().delete(&layout::slot(number)?).await
}
