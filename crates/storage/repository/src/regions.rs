//! All repositories of a spec: the same bytes go to each, a reader asks its own region first.

use bytes::Bytes;
use futures::future::join_all;
use lifeboat_objects::{Created, Key};
use lifeboat_telemetry::{Code, Failure, Kind, Outcome};

use crate::binding::{self, Binding};
use crate::keys::Vault;
use crate::repository::Repository;

/// A region that did not answer, and why.
#[derive(Debug)]
pub struct Skipped {
    /// Its name in the spec.
    pub region: String,
    /// What went wrong.
    pub failure: Failure,
}

/// The repositories that answered, this process's own region first, and those that did not.
#[derive(Debug)]
pub struct Regions {
    repositories: Vec<Repository>,
    skipped: Vec<Skipped>,
}

impl Regions {
    /// Puts together what was opened; at least one must answer, and all must be one vault.
    pub fn new(repositories: Vec<Repository>, skipped: Vec<Skipped>) -> Outcome<Self> {
        let Some(first) = repositories.first() else {
            let lines: Vec<String> =
                skipped.iter().map(|one| format!("{}: {}", one.region, one.failure)).collect();
            let Some(first) = skipped.first().map(|one| &one.failure) else {
                return Err(Failure::new(Code::SpecInvalid, "the spec has no region"));
            };
            // One cause is better said with its own code and hint.
            let one_cause = skipped.iter().all(|one| one.failure.code() == first.code());
            let code = if one_cause { first.code() } else { Code::StoreUnavailable };
            let hint = first.hint_text().filter(|_| one_cause);
            let hint = hint.unwrap_or("Start with the first region of the list.").to_owned();
            let failure = Failure::new(code, "no repository of the spec can be used");
            return Err(failure.details(lines).hint(hint));
        };
        if let Some(other) = repositories.iter().find(|other| other.vault() != first.vault()) {
            let (one, two) = (first.region(), other.region());
            let message = format!("the repositories of {one} and {two} belong to two vaults");
            return Err(Failure::new(Code::VaultMismatch, message)
                .hint("One of the URLs in the spec is wrong; nothing was written."));
        }
        Ok(Self { repositories, skipped })
    }

    /// The vault of all of them.
    pub fn vault(&self) -> &Vault {
        self.nearest().vault()
    }

    /// The first repository that answered: the own region's if it did.
    pub fn nearest(&self) -> &Repository {
        &self.repositories[0]
    }

    /// All that still answer.
    pub fn all(&self) -> &[Repository] {
        &self.repositories
    }

    /// Those that do not.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Creates one object everywhere. A region that fails is left out from now on and named;
    /// only if none is left the operation fails. Refusals are never skipped: they mean that
    /// somebody else wrote other content.
    pub async fn create(&mut self, key: &Key, bytes: &Bytes) -> Outcome<()> {
        self.each(|repository| {
            let (store, bytes) = (repository.store().clone(), bytes.clone());
            async move { store.create_seen(key, bytes).await }
        })
        .await
    }

    /// As [`Self::create`], and reads the object back: for commit points.
    pub async fn create_verified(&mut self, key: &Key, bytes: &Bytes) -> Outcome<()> {
        self.each(|repository| {
            let (store, bytes) = (repository.store().clone(), bytes.clone());
            async move { store.create_verified(key, bytes).await }
        })
        .await
    }

    /// Asks every repository. One that does not answer is left out from now on and named; only if
    /// none is left the question fails. What is damaged or refuses is never passed over.
    pub async fn ask<T>(
        &mut self,
        question: impl AsyncFn(&Repository) -> Outcome<T>,
    ) -> Outcome<Vec<T>> {
        let answers = join_all(self.repositories.iter().map(|one| question(one))).await;
        self.sort(answers, "answers", |failure| failure.kind() != Kind::Failed)
    }

    /// All bindings of a database that any region knows, oldest first.
    pub async fn bindings(&self, database: &str) -> Outcome<Vec<Binding>> {
        let mut found = Vec::new();
        for repository in &self.repositories {
            found.push(repository.found_bindings(database).await?);
        }
        binding::merge(found)
    }

    async fn each<F>(&mut self, act: impl Fn(&Repository) -> F) -> Outcome<()>
    where
        F: Future<Output = Outcome<Created>>,
    {
        let outcomes = join_all(self.repositories.iter().map(&act)).await;
        let refuses = |failure: &Failure| failure.code() == Code::ObjectConflict;
        self.sort(outcomes, "took the object", refuses).map(drop)
    }

    /// Keeps the regions whose outcome is good or a refusal, and names the others. If that is none,
    /// nobody is left out: whoever asks next may find them back.
    fn sort<T>(
        &mut self,
        outcomes: Vec<Outcome<T>>,
        what: &str,
        refuses: impl Fn(&Failure) -> bool,
    ) -> Outcome<Vec<T>> {
        let mut kept = Vec::with_capacity(self.repositories.len());
        let mut good = Vec::with_capacity(self.repositories.len());
        let (mut lost, mut failed) = (Vec::new(), Vec::new());
        let mut refused = None;
        for (repository, outcome) in self.repositories.drain(..).zip(outcomes) {
            match outcome {
                Ok(outcome) => {
                    kept.push(repository);
                    good.push(outcome);
                }
                Err(failure) if refuses(&failure) => {
                    kept.push(repository);
                    refused = Some(failure);
                }
                Err(failure) => {
                    failed.push(Skipped { region: repository.region().to_owned(), failure });
                    lost.push(repository);
                }
            }
        }
        if kept.is_empty() {
            self.repositories = lost;
            return Err(self.nobody(&failed, what));
        }
        self.repositories = kept;
        self.skipped.extend(failed);
        refused.map_or(Ok(good), Err)
    }

    fn nobody(&self, failed: &[Skipped], what: &str) -> Failure {
        let all = self.skipped.iter().chain(failed);
        let lines = all.map(|one| format!("{}: {}", one.region, one.failure));
        let code = failed.last().map_or(Code::StoreUnavailable, |last| last.failure.code());
        Failure::new(code, format!("no repository {what}"))
            .details(lines)
            .hint("Nothing that is listed as a backup was lost; run the command again.")
    }

    /// A failure that names what was skipped, for exit code 5; `None` if nothing was.
    pub fn partial(&self) -> Option<Failure> {
        let first = self.skipped.first()?;
        let names: Vec<&str> = self.skipped.iter().map(|skipped| skipped.region.as_str()).collect();
        let failure =
            Failure::new(Code::RegionSkipped, format!("skipped region {}", names.join(", ")))
                .details(self.skipped.iter().map(|one| format!("{}: {}", one.region, one.failure)));
        Some(match first.failure.hint_text() {
            Some(hint) => failure.hint(hint.to_owned()),
            None => failure,
        })
    }
}
