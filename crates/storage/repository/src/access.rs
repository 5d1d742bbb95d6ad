//! From the spec to open repositories and keys: what every command does first.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lifeboat_environment::Environment;
use lifeboat_model::spec::{Encryption, RepositorySettings, Slot as SlotSetting};
use lifeboat_model::{RegionName, Spec};
use lifeboat_objects::{Blocking, Location, Options, Store};
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::ask::ask;
use crate::keys::{OpenWith, RecoveryKey, VaultSecrets, WriterKey, WriterStream};
use crate::regions::{Regions, Skipped};
use crate::repository::Repository;

/// The variable that brings a recovery key into a command.
pub const RECOVERY_KEY_VARIABLE: &str = "LIFEBOAT_RECOVERY_KEY";

/// What a command needs to reach repositories and keys.
pub struct Access<'a> {
    /// The spec.
    pub spec: &'a Spec,
    /// The region of this process, where it is known.
    pub here: Option<&'a RegionName>,
    /// The state directory.
    pub state: &'a Path,
    /// Time, chance, variables.
    pub environment: &'a Environment,
    /// Runs store operations.
    pub blocking: &'a Blocking,
    /// How long a store may take.
    pub options: Options,
}

impl Access<'_> {
    /// The regions of the spec, the own one first.
    pub fn region_names(&self) -> Vec<&RegionName> {
        let mut names: Vec<&RegionName> = self.spec.regions.keys().collect();
        names.sort_by_key(|name| Some(*name) != self.here);
        names
    }

    /// Opens the store of a region; nothing is sent yet.
    pub fn store(&self, region: &RegionName) -> Outcome<Store> {
        let settings = &self.spec.region(region)?.repository;
        let location = location(settings, self.environment)?;
        Store::open(&location, self.environment, self.options)
            .map_err(|failure| failure.within(format!("region {region}")))
    }

    /// Opens every repository that answers.
    pub fn regions(&self) -> Outcome<Regions> {
        // These need a person: going on with the other region would hide them.
        let unreadable = |code| matches!(code, Code::FormatNewer | Code::FormatUnreadable);
        self.open_all(&BTreeSet::new(), |code| unreadable(code) || is_another(code))
    }

    /// As [`Self::regions`], for a WAL file that one region is enough for: without those named, and
    /// without repositories whose `format` says nothing to this version.
    pub fn regions_for_push(&self, left_out: &BTreeSet<String>) -> Outcome<Regions> {
        self.open_all(left_out, is_another)
    }

    fn open_all(
        &self,
        left_out: &BTreeSet<String>,
        refuses: impl Fn(Code) -> bool,
    ) -> Outcome<Regions> {
        let mut names = self.region_names();
        names.retain(|name| !left_out.contains(name.as_str()));
        let questions = names.iter().map(|name| self.open(name)).collect();
        let opened =
            self.blocking.run(ask(self.environment.clock(), self.options.deadline, questions));
        let mut repositories = Vec::new();
        let mut skipped = Vec::new();
        for (name, opened) in names.iter().zip(opened) {
            match opened {
                Ok(repository) => repositories.push(repository),
                Err(failure) if refuses(failure.code()) => return Err(failure),
                Err(failure) => skipped.push(Skipped { region: name.to_string(), failure }),
            }
        }
        Regions::new(repositories, skipped)
    }

    /// Opens the repository of one region.
    pub fn repository(&self, region: &RegionName) -> Outcome<Repository> {
        self.blocking.run(self.open(region))
    }

    async fn open(&self, region: &RegionName) -> Outcome<Repository> {
        let repository = Repository::open(self.store(region)?).await?;
        if repository.region() != region.as_str() {
            let message = format!(
                "the repository of {region} says that it is the one of {}",
                repository.region(),
            );
            return Err(Failure::new(Code::VaultMismatch, message)
                .hint("Two regions of the spec point to one place, or URLs were swapped."));
        }
        Ok(repository)
    }

    /// What this process can open slots with: references of the spec that resolve here, and a
    /// recovery key from LIFEBOAT_RECOVERY_KEY.
    pub fn openers(&self) -> Outcome<Vec<OpenWith>> {
        let mut openers = Vec::new();
        if let Some(text) = self.environment.variable(RECOVERY_KEY_VARIABLE) {
            openers.push(OpenWith::RecoveryKey(RecoveryKey::parse(text)?));
        }
        if let Encryption::Slots(slots) = &self.spec.encryption {
            for slot in &slots.slots {
                // A secret that is kept elsewhere is no error: another slot may open.
                let (secret, passphrase) = match slot {
                    SlotSetting::Passphrase(secret) => (secret, true),
                    SlotSetting::KeyFile(secret) => (secret, false),
                    _ => continue,
                };
                if let Ok(bytes) = secret.resolve(self.environment) {
                    openers.push(if passphrase {
                        OpenWith::Passphrase(bytes)
                    } else {
                        OpenWith::KeyFile(bytes)
                    });
                }
            }
        }
        Ok(openers)
    }

    /// Opens the vault.
    pub fn secrets(&self, regions: &Regions) -> Outcome<VaultSecrets> {
        let openers = self.openers()?;
        self.blocking.run(regions.nearest().open_secrets(&openers))
    }

    /// Where the writer key of this host lies.
    pub fn writer_path(&self) -> PathBuf {
        writer_path(self.spec, self.state)
    }

    /// The writer key of this host, checked against the vault.
    pub fn writer(&self, regions: &Regions) -> Outcome<WriterKey> {
        let path = self.writer_path();
        let writer = WriterKey::load(&path)?;
        if writer.vault() != regions.vault() {
            let message = format!("the writer key {} is of another vault", path.display());
            return Err(Failure::new(Code::VaultMismatch, message)
                .hint("Enroll anew if the repositories were made anew; else correct the URLs."));
        }
        Ok(writer)
    }

    /// The stream that a database of this host writes. A key that is not bound yet is bound now
    /// if a slot can be opened (FORMAT, "Keys").
    pub fn writer_stream(
        &self,
        regions: &mut Regions,
        database: &str,
        system_identifier: u64,
    ) -> Outcome<(WriterKey, WriterStream)> {
        let mut writer = self.writer(regions)?;
        if let Some(stream) = writer.stream(database) {
            let stream = stream.clone();
            return Ok((writer, stream));
        }
        let secrets = self.secrets(regions).map_err(|failure| {
            let message = format!("this host's writer key is not bound to {database}");
            Failure::new(Code::WriterKeyIncomplete, message)
                .because(failure)
                .hint("Run `lifeboat key enroll` on this host once, with the passphrase at hand.")
        })?;
        let stream = self.blocking.run(crate::enroll::bind(
            self.environment,
            regions,
            &secrets,
            database,
            system_identifier,
        ))?;
        writer.bind(database, stream.clone());
        writer.save(&self.writer_path())?;
        Ok((writer, stream))
    }
}

/// Where the writer key of this host lies: where the spec says, else in the state directory.
pub fn writer_path(spec: &Spec, state: &Path) -> PathBuf {
    let named = match &spec.encryption {
        Encryption::Slots(slots) => slots.writer.as_ref().and_then(|secret| secret.file()),
        Encryption::None => None,
    };
    named.map_or_else(|| state.join("writer.key"), Path::to_owned)
}

/// Where a repository lies, with every reference of the spec resolved.
pub fn location(settings: &RepositorySettings, environment: &Environment) -> Outcome<Location> {
    let resolve = |reference: &Option<lifeboat_model::Reference>| {
        reference.as_ref().map(|text| text.resolve(environment)).transpose()
    };
    Ok(Location::new(&settings.url.resolve(environment)?)?
        .with_endpoint(resolve(&settings.endpoint)?)
        .with_region(resolve(&settings.region)?))
}

/// Whether what was found is not the repository that the spec means.
fn is_another(code: Code) -> bool {
    matches!(code, Code::VaultMismatch | Code::SignatureInvalid)
}
