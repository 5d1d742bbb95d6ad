//! The archive over the spec's repositories: all asked at once, none waited for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{LocalBoxFuture, join_all};
use lifeboat_environment::Environment;
use lifeboat_model::{RegionName, ServiceName, Spec};
use lifeboat_objects::{Created, Key, Location, Options, Store};
use lifeboat_quorum::{EpochRecord, Nodes, RunId};
use lifeboat_repository::access;
use lifeboat_repository::crypt::SigningKey;
use lifeboat_repository::epoch::{self, Epoch, EpochBody};
use lifeboat_repository::keys::WriterKey;
use lifeboat_repository::repository::Repository;
use lifeboat_telemetry::{Code, Failure, Outcome, duration};

use super::{EpochArchive, KnownEpoch};

/// How long a region may take: a move waits for no dead one longer than this.
const LIMIT: Duration = Duration::from_secs(1);
/// How long one may take that was away a moment ago, so that a move pays for it once.
const SHORT: Duration = Duration::from_millis(100);
/// How long that moment is.
const MOMENT: Duration = Duration::from_secs(10);

/// A region that did not answer, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// The region.
    pub region: RegionName,
    /// What went wrong.
    pub why: String,
}

/// The epochs in the repositories of a spec. Belongs to one thread with a tokio runtime.
pub struct RepositoryEpochs {
    environment: Environment,
    regions: Vec<Region>,
    /// Who signs; none for who only asks.
    writer: Option<WriterKey>,
    /// Regions that cannot even be asked.
    closed: Vec<Away>,
    away: RefCell<Vec<Away>>,
}

struct Region {
    name: RegionName,
    store: Store,
    /// Opened when it first answers.
    opened: RefCell<Option<Opened>>,
    /// When it last failed to answer in time.
    failed: RefCell<Option<Duration>>,
}

#[derive(Clone)]
struct Opened {
    repository: Repository,
    writers: BTreeSet<[u8; 32]>,
}

/// The highest epoch that a region knows.
struct Found {
    number: u32,
    /// Its object, if it is there and can be trusted.
    sound: Option<(Bytes, EpochBody)>,
}

/// What a region has under a number after an attempt to create it.
enum Has {
    Ours,
    Another(Box<EpochBody>),
}

impl RepositoryEpochs {
    /// Over all repositories of the spec, written with this host's writer key. Asks nobody yet.
    pub fn new(spec: &Spec, environment: &Environment, writer: WriterKey) -> Outcome<Self> {
        let place = |(name, region): (&RegionName, &lifeboat_model::spec::Region)| {
            Ok((name.clone(), access::location(&region.repository, environment)?))
        };
        let places = spec.regions.iter().map(place).collect::<Outcome<Vec<_>>>()?;
        Self::at(&places, environment, writer)
    }

    /// Over all repositories of the spec, to ask them alone. What cannot be opened as the spec says
    /// is passed over, as one that is away: nobody may need a repository to serve.
    pub fn reading(spec: &Spec, environment: &Environment) -> Self {
        let (mut regions, mut closed) = (Vec::new(), Vec::new());
        for (name, settings) in &spec.regions {
            let location = access::location(&settings.repository, environment);
            match location.and_then(|location| Region::at(name, &location, environment)) {
                Ok(region) => regions.push(region),
                Err(failure) => {
                    closed.push(Away { region: name.clone(), why: failure.full_message() })
                }
            }
        }
        let environment = environment.clone();
        Self { environment, regions, writer: None, closed, away: RefCell::default() }
    }

    /// Over repositories in these places.
    pub fn at(
        places: &[(RegionName, Location)],
        environment: &Environment,
        writer: WriterKey,
    ) -> Outcome<Self> {
        let region = |(name, location): &(_, _)| Region::at(name, location, environment);
        Ok(Self {
            environment: environment.clone(),
            regions: places.iter().map(region).collect::<Outcome<_>>()?,
            writer: Some(writer),
            closed: Vec::new(),
            away: RefCell::default(),
        })
    }

    /// The regions that did not answer the last question.
    pub fn away(&self) -> Vec<Away> {
        self.away.borrow().clone()
    }

    /// Puts one question to all regions at once. Those that fail are named, and left out of the
    /// answer; it is a failure only if all do.
    async fn ask<'a, T, F: Future<Output = Outcome<T>>>(
        &'a self,
        question: impl Fn(&'a Region) -> F,
    ) -> Outcome<Vec<(&'a Region, T)>> {
        let now = || self.environment.clock().elapsed();
        let answers = self.regions.iter().map(|region| {
            let limit = region.limit(now());
            let question = question(region);
            async move {
                let in_time = tokio::time::timeout(limit, question).await;
                in_time.unwrap_or_else(|_| {
                    let message = format!("no answer within {}", duration(limit));
                    Err(Failure::new(Code::StoreUnavailable, message))
                })
            }
        });
        let answers = join_all(answers).await;
        let (mut good, mut away) = (Vec::new(), self.closed.clone());
        for (region, answer) in self.regions.iter().zip(answers) {
            *region.failed.borrow_mut() = answer.is_err().then(now);
            match answer {
                Ok(answer) => good.push((region, answer)),
                Err(failure) => {
                    away.push(Away { region: region.name.clone(), why: failure.full_message() })
                }
            }
        }
        let lines: Vec<String> =
            away.iter().map(|one| format!("{}: {}", one.region, one.why)).collect();
        *self.away.borrow_mut() = away;
        if good.is_empty() {
            return Err(Failure::new(Code::StoreUnavailable, "no repository knows of epochs now")
                .details(lines)
                .hint("An epoch must lie in one repository at least before a service moves."));
        }
        Ok(good)
    }

    async fn look_everywhere(&self, service: &ServiceName) -> Outcome<Option<KnownEpoch>> {
        let answers = self.ask(|region| region.highest(service)).await?;
        let numbers = answers.iter().filter_map(|(_, found)| Some(found.as_ref()?.number));
        let Some(highest) = numbers.max() else { return Ok(None) };
        let mut known = KnownEpoch {
            epoch: highest.into(),
            region: None,
            holders: Nodes::new(),
            run: None,
            repositories: Vec::new(),
        };
        let mut objects: Vec<&(Bytes, EpochBody)> = Vec::new();
        for (region, found) in &answers {
            if let Some(found) = found.as_ref().filter(|found| found.number == highest) {
                known.repositories.push(region.name.clone());
                objects.extend(&found.sound);
            }
        }
        let Some((first, others)) = objects.split_first() else { return Ok(Some(known)) };
        if others.iter().all(|(_, other)| other.is_same_grant(&first.1)) {
            if let Some((region, holders)) = grant(&first.1) {
                (known.region, known.holders) = (Some(region), holders);
                known.run = first.1.run.map(RunId);
            }
            let behind = answers
                .iter()
                .filter(|(_, found)| found.as_ref().is_none_or(|found| found.number < highest));
            let behind: Vec<&Region> = behind.map(|(region, _)| *region).collect();
            let key = lifeboat_repository::layout::epoch(service.as_str(), highest)?;
            known.repositories.extend(catch_up(&behind, &key, &first.0).await);
        }
        Ok(Some(known))
    }

    async fn record_everywhere(
        &self,
        service: &ServiceName,
        record: &EpochRecord,
    ) -> Outcome<Vec<RegionName>> {
        let Some(writer) = &self.writer else {
            return Err(Failure::new(
                Code::WriterKeyMissing,
                "there is no writer key to sign an epoch",
            ));
        };
        let body = body(writer.label(), service, record)?;
        let signer = writer.signing()?;
        let answers = self.ask(|region| region.create(&body, &signer)).await?;
        let mut having = Vec::new();
        for (region, has) in answers {
            match has {
                Has::Ours => having.push(region.name.clone()),
                Has::Another(other) => return Err(taken(region, &other)),
            }
        }
        Ok(having)
    }
}

impl EpochArchive for RepositoryEpochs {
    fn highest<'a>(
        &'a self,
        service: &'a ServiceName,
    ) -> LocalBoxFuture<'a, Outcome<Option<KnownEpoch>>> {
        Box::pin(self.look_everywhere(service))
    }

    fn record<'a>(
        &'a self,
        service: &'a ServiceName,
        record: &'a EpochRecord,
    ) -> LocalBoxFuture<'a, Outcome<Vec<RegionName>>> {
        Box::pin(self.record_everywhere(service, record))
    }
}

impl Region {
    fn at(name: &RegionName, location: &Location, environment: &Environment) -> Outcome<Self> {
        let options = Options {
            attempt_timeout: LIMIT,
            deadline: LIMIT,
            first_pause: Duration::from_millis(20),
            ..Options::default()
        };
        Ok(Self {
            name: name.clone(),
            store: Store::open(location, environment, options)?,
            opened: RefCell::default(),
            failed: RefCell::default(),
        })
    }

    fn limit(&self, now: Duration) -> Duration {
        let recently = self.failed.borrow().is_some_and(|at| now.saturating_sub(at) < MOMENT);
        if recently { SHORT } else { LIMIT }
    }

    async fn open(&self) -> Outcome<Opened> {
        if let Some(opened) = self.opened.borrow().clone() {
            return Ok(opened);
        }
        let repository = Repository::open(self.store.clone()).await?;
        if repository.region() != self.name.as_str() {
            let found = repository.region();
            let message = format!("the repository of {} is the one of {found}", self.name);
            return Err(Failure::new(Code::VaultMismatch, message));
        }
        let writers = repository.certified_writers().await?;
        let opened = Opened { repository, writers };
        *self.opened.borrow_mut() = Some(opened.clone());
        Ok(opened)
    }

    async fn highest(&self, service: &ServiceName) -> Outcome<Option<Found>> {
        let opened = self.open().await?;
        let number = epoch::highest(&opened.repository, service.as_str()).await?;
        let Some(number) = number else { return Ok(None) };
        // The number counts also where the object is damaged: it was used.
        let sound = self.read(&opened, service.as_str(), number).await.ok();
        Ok(Some(Found { number, sound }))
    }

    async fn read(
        &self,
        opened: &Opened,
        service: &str,
        number: u32,
    ) -> Outcome<(Bytes, EpochBody)> {
        let key = lifeboat_repository::layout::epoch(service, number)?;
        let bytes = self.store.get(&key).await?;
        let epoch = Epoch::decode(service, number, &bytes)?;
        if opened.writers.contains(&epoch.signer) {
            return Ok((bytes, epoch.body));
        }
        // Writers are certified at any time.
        let writers = opened.repository.certified_writers().await?;
        let epoch = epoch.certified(&writers)?;
        *self.opened.borrow_mut() = Some(Opened { writers, ..opened.clone() });
        Ok((bytes, epoch.body))
    }

    async fn create(&self, body: &EpochBody, signer: &SigningKey) -> Outcome<Has> {
        let opened = self.open().await?;
        let (key, bytes) = body.encode(opened.repository.vault(), signer)?;
        match self.store.create_verified(&key, bytes).await {
            Ok(Created::New | Created::Identical) => Ok(Has::Ours),
            Err(failure) if failure.code() == Code::ObjectConflict => {
                let (_, found) = self.read(&opened, &body.service, body.epoch).await?;
                // Another controller, that carries on the same run, may have been faster.
                let same = found.is_same_grant(body);
                Ok(if same { Has::Ours } else { Has::Another(Box::new(found)) })
            }
            Err(failure) => Err(failure),
        }
    }
}

/// For whom an object was created; none if that has no names of a spec.
fn grant(body: &EpochBody) -> Option<(RegionName, Nodes)> {
    let node =
        |(database, node): (&String, &String)| Some((database.parse().ok()?, node.parse().ok()?));
    Some((body.region.parse().ok()?, body.holders.iter().map(node).collect::<Option<_>>()?))
}

fn body(writer: &str, service: &ServiceName, record: &EpochRecord) -> Outcome<EpochBody> {
    let internal = |why: &str| Failure::new(Code::Internal, why.to_owned());
    let epoch = u32::try_from(record.epoch)
        .map_err(|_| internal("the number of an epoch is too high for a repository"))?;
    let holders = record.holders.iter();
    let whole = serde_json::to_value(record);
    Ok(EpochBody {
        service: service.to_string(),
        epoch,
        region: record.region.to_string(),
        holders: holders.map(|(name, node)| (name.to_string(), node.to_string())).collect(),
        run: record.run.map(|run| run.0),
        writer: writer.to_owned(),
        // The journal's, not this process's: whoever creates it creates the same.
        created_at: record.began,
        record: whole.map_err(|error| internal("no JSON of an epoch").because(error))?,
    })
}

/// Brings the highest epoch to regions that were away when it began; those that have it now.
async fn catch_up(behind: &[&Region], key: &Key, bytes: &Bytes) -> Vec<RegionName> {
    let created = behind.iter().map(|region| async {
        let create = region.store.create_verified(key, bytes.clone());
        let created = tokio::time::timeout(SHORT, create).await;
        matches!(created, Ok(Ok(_))).then(|| region.name.clone())
    });
    join_all(created).await.into_iter().flatten().collect()
}

fn taken(region: &Region, other: &EpochBody) -> Failure {
    let EpochBody { service, epoch, region: holder, run, .. } = other;
    let run = run.map_or_else(|| "no run".to_owned(), |run| format!("run {run}"));
    let message = format!(
        "epoch {epoch} of {service} was given to another holder: {} has it for region {holder}, {run}",
        region.name
    );
    let lines: BTreeMap<_, _> = other.holders.iter().collect();
    Failure::new(Code::EpochTaken, message)
        .details(lines.into_iter().map(|(database, node)| format!("{database}: {node}")))
        .hint("See which of both moves is the right one; a resumed run takes a higher epoch.")
}

#[cfg(test)]
mod tests;
