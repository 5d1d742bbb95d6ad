//! `repo create`: every region's missing repository, the same vault in all of them.

use jiff::Timestamp;
use lifeboat_model::RegionName;
use lifeboat_model::spec::{Encryption as Setting, Slot as SlotSetting};
use lifeboat_objects::{Key, Store};
use lifeboat_telemetry::{Code, Failure, Outcome};
use zeroize::Zeroizing;

use crate::access::Access;
use crate::keys::{Encryption, OpenWith, RecoveryKey, VaultSecrets, make_slot};
use crate::layout;
use crate::object::ObjectType;
use crate::repository::{ExclusiveCreate, FormatBody, Repository, encode_body};

/// What `repo create` did.
pub struct CreateReport {
    /// Every region of the spec.
    pub regions: Vec<RegionReport>,
    /// The recovery key of a new vault: shown once, never stored.
    pub recovery_key: Option<Zeroizing<String>>,
}

/// One region.
pub struct RegionReport {
    /// Its name.
    pub region: String,
    /// Where it is.
    pub place: String,
    /// What became of it.
    pub outcome: RegionOutcome,
}

/// What became of a region.
pub enum RegionOutcome {
    /// Its repository is new.
    Created,
    /// It was there.
    Existed,
    /// It could not be made.
    Failed(Failure),
}

enum Found {
    Repository(Repository),
    Nothing(Store),
}

/// Makes what is missing. Fails if nothing could be made or found.
pub fn create(access: &Access<'_>) -> Outcome<CreateReport> {
    let mut present: Vec<Repository> = Vec::new();
    let mut missing: Vec<(RegionName, Store)> = Vec::new();
    let mut report = CreateReport { regions: Vec::new(), recovery_key: None };
    for name in access.region_names() {
        match access.blocking.run(look(access, name)) {
            Ok(Found::Repository(repository)) => {
                let place = repository.store().location().display();
                report.add(name, place, RegionOutcome::Existed);
                present.push(repository);
            }
            Ok(Found::Nothing(store)) => missing.push((name.clone(), store)),
            Err(failure) => report.add(name, String::new(), RegionOutcome::Failed(failure)),
        }
    }
    if missing.is_empty() {
        return report.or_failure(present.is_empty());
    }
    if present.is_empty() && !report.regions.is_empty() {
        return report.no_second_vault(missing);
    }
    let secrets = match present.first() {
        Some(repository) => {
            access.blocking.run(repository.open_secrets(&access.openers()?)).map_err(|failure| {
                failure.within("another region must be made, and its vault has to be opened")
            })?
        }
        None => VaultSecrets::create(access.environment, encryption_of(access))?,
    };
    let keys = match present.first() {
        Some(repository) => access.blocking.run(vault_objects(repository))?,
        None => new_slots(access, &secrets, &mut report)?,
    };
    for (name, store) in missing {
        let place = store.location().display();
        let made = access.blocking.run(make(access, &name, store, &secrets, &keys));
        let outcome = made.map_or_else(RegionOutcome::Failed, |()| RegionOutcome::Created);
        report.add(&name, place, outcome);
    }
    let none =
        report.regions.iter().all(|region| matches!(region.outcome, RegionOutcome::Failed(_)));
    report.or_failure(none)
}

impl CreateReport {
    fn add(&mut self, region: &RegionName, place: String, outcome: RegionOutcome) {
        self.regions.push(RegionReport { region: region.to_string(), place, outcome });
    }

    /// The vault may lie in a region that does not answer: another one would lock it out for ever.
    fn no_second_vault(mut self, missing: Vec<(RegionName, Store)>) -> Outcome<Self> {
        for (name, store) in missing {
            let message = "not made: a region that does not answer may hold the vault";
            let failure = Failure::new(Code::RegionSkipped, message);
            self.add(&name, store.location().display(), RegionOutcome::Failed(failure));
        }
        self.or_failure(true)
    }

    fn or_failure(self, nothing: bool) -> Outcome<Self> {
        if !nothing {
            return Ok(self);
        }
        let mut lines = Vec::new();
        let mut first = None;
        for region in self.regions {
            if let RegionOutcome::Failed(failure) = region.outcome {
                lines.push(format!("{}: {failure}", region.region));
                first.get_or_insert(failure);
            }
        }
        let code = first.as_ref().map_or(Code::SpecInvalid, Failure::code);
        let failure = Failure::new(code, "no repository could be made").details(lines);
        Err(match first.as_ref().and_then(Failure::hint_text) {
            Some(hint) => failure.hint(hint.to_owned()),
            None => failure,
        })
    }
}

/// Whether a region has a repository. What cannot be read counts as a failure, never as absent.
async fn look(access: &Access<'_>, name: &RegionName) -> Outcome<Found> {
    let store = access.store(name)?;
    store.create_root().await?;
    match store.stat(&layout::format()?).await? {
        None => {
            refuse_orphans(&store).await?;
            Ok(Found::Nothing(store))
        }
        Some(_) => {
            let repository = Repository::open(store).await?;
            if repository.region() != name.as_str() {
                let message = format!("it is the repository of {}", repository.region());
                return Err(Failure::new(Code::VaultMismatch, message)
                    .hint("Give each region of the spec a place of its own."));
            }
            Ok(Found::Repository(repository))
        }
    }
}

/// A place that holds data but no `format` was a repository once: a new vault there would make
/// the old data unreadable for ever.
async fn refuse_orphans(store: &Store) -> Outcome<()> {
    for prefix in ["streams/", "bindings/"] {
        if !store.list(prefix).await?.is_empty() {
            let place = store.location().display();
            let message = format!("{place} holds data of a repository, but `format` is missing");
            return Err(Failure::new(Code::FormatUnreadable, message)
                .hint("Bring `format` back from a copy of this place; nothing was changed."));
        }
    }
    Ok(())
}

fn encryption_of(access: &Access<'_>) -> Encryption {
    match access.spec.encryption {
        Setting::None => Encryption::None,
        Setting::Slots(_) => Encryption::Aes256Gcm,
    }
}

/// Slots and certificates of a repository that exists: the new region gets the same. Bindings
/// follow when it catches up: beside a missing `format` they mean that data was lost.
async fn vault_objects(repository: &Repository) -> Outcome<Vec<(Key, bytes::Bytes)>> {
    let mut objects = Vec::new();
    for (key, _) in repository.store().list("keys/").await? {
        let bytes = repository.store().get(&key).await?;
        objects.push((key, bytes));
    }
    Ok(objects)
}

/// The slots that the spec asks for. All of them must resolve now: a slot that is missing from
/// the start is found out when it is needed most.
fn new_slots(
    access: &Access<'_>,
    secrets: &VaultSecrets,
    report: &mut CreateReport,
) -> Outcome<Vec<(Key, bytes::Bytes)>> {
    let mut openers = Vec::new();
    match &access.spec.encryption {
        Setting::None => openers.push((OpenWith::Open, "open".to_owned())),
        Setting::Slots(slots) => {
            for slot in &slots.slots {
                openers.push(match slot {
                    SlotSetting::Passphrase(secret) => {
                        let bytes = secret.resolve(access.environment)?;
                        refuse_empty(&bytes, "passphrase")?;
                        (OpenWith::Passphrase(bytes), "passphrase".to_owned())
                    }
                    SlotSetting::KeyFile(secret) => {
                        let bytes = secret.resolve(access.environment)?;
                        refuse_empty(&bytes, "key file")?;
                        (OpenWith::KeyFile(bytes), "key file".to_owned())
                    }
                    SlotSetting::RecoveryKey(_) => {
                        let key = RecoveryKey::create(access.environment);
                        report.recovery_key = Some(key.print());
                        (OpenWith::RecoveryKey(key), "recovery key".to_owned())
                    }
                    SlotSetting::Kms(_) | SlotSetting::Command(_) => continue,
                });
            }
        }
    }
    if openers.is_empty() {
        return Err(Failure::new(Code::SpecInvalid, "no slot of the spec can be made")
            .hint("Add a passphrase, a key_file or `recovery_key: {}` to encryption.slots."));
    }
    let mut objects = Vec::new();
    for (number, (opener, label)) in (1..).zip(&openers) {
        let body = make_slot(access.environment, secrets, opener, label)?;
        let key = layout::slot(number)?;
        let bytes = encode_body(secrets.vault(), &key, ObjectType::Slot, &body, None)?;
        objects.push((key, bytes));
    }
    Ok(objects)
}

fn refuse_empty(bytes: &[u8], what: &str) -> Outcome<()> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Failure::new(Code::SecretUnavailable, format!("the {what} is empty"))
            .hint("Put a long random text into it, then run the command again."));
    }
    Ok(())
}

/// Probes the store, writes the vault's objects, and `format` last: without it nothing counts.
async fn make(
    access: &Access<'_>,
    name: &RegionName,
    store: Store,
    secrets: &VaultSecrets,
    objects: &[(Key, bytes::Bytes)],
) -> Outcome<()> {
    let place = store.location().display();
    let fitness = store.probe("probe/").await?;
    let single_writer = access.spec.region(name)?.repository.single_writer;
    let exclusive_create = match (fitness.exclusive_create, single_writer) {
        (true, _) => ExclusiveCreate::Proven,
        (false, true) => ExclusiveCreate::SingleWriter,
        (false, false) => {
            let message = format!("{place} let two writers create one object");
            return Err(Failure::new(Code::StoreUnfit, message).hint(
                "Use a store with conditional writes, or write `single_writer: true` if only one \
                 host will ever write.",
            ));
        }
    };
    remove_leftovers(&store, objects).await?;
    for (key, bytes) in objects {
        access.environment.failpoints().hit("create.slot")?;
        store.create_verified(key, bytes.clone()).await?;
    }
    access.environment.failpoints().hit("create.before_format")?;
    let created_at: Timestamp = access.environment.clock().now();
    let format = FormatBody {
        lifeboat_repository: 1,
        vault: secrets.vault().clone(),
        region: name.to_string(),
        created_at,
        exclusive_create,
    };
    Repository::create(store, format, &secrets.root()?).await.map(|_| ())
}

/// Slots of a `repo create` that died before `format`: their vault was never used.
async fn remove_leftovers(store: &Store, objects: &[(Key, bytes::Bytes)]) -> Outcome<()> {
    for (key, _) in store.list("keys/").await? {
        let ours = objects.iter().find(|(own, _)| *own == key);
        let found = store.get(&key).await?;
        if ours.is_none_or(|(_, bytes)| *bytes != found) {
            store.delete(&key).await?;
        }
    }
    Ok(())
}
