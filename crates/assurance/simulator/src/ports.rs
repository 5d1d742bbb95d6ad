//! The smaller drivers: what an agent remembers, what an observer sees, where epochs are kept.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use lifeboat_drivers::{EpochArchive, KnownEpoch, Memory, Probe, Probed};
use lifeboat_model::{DatabaseName, RegionName, ServiceName};
use lifeboat_quorum::{EpochRecord, Nodes, RunId, Seen, Token, encode};
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::dns::{NameServer, Resolver};
use crate::executor::ProcessId;
use crate::mutant::Mutant;
use crate::plant::Plant;
use crate::postgres::{Request, Written};
use crate::repository;

/// The file in which an agent keeps the highest token; survives every death of the agent.
#[derive(Debug, Default)]
pub struct TokenFile {
    durable: Cell<Token>,
    /// Writes fail: the disk is full.
    pub full: Cell<bool>,
}

/// An agent's memory.
pub struct SimMemory {
    plant: Plant,
    who: String,
    file: Rc<TokenFile>,
    /// What is wrong with it on purpose.
    pub mutant: Option<Mutant>,
    volatile: RefCell<Option<Token>>,
}

impl SimMemory {
    /// The memory of an agent over its file.
    pub fn new(plant: &Plant, who: &str, file: &Rc<TokenFile>) -> Self {
        Self {
            plant: plant.clone(),
            who: who.to_owned(),
            file: Rc::clone(file),
            mutant: None,
            volatile: RefCell::default(),
        }
    }
}

impl Memory for SimMemory {
    fn highest(&self) -> Outcome<Token> {
        // It is not looked at after a restart: what one knew died with the process.
        if self.mutant == Some(Mutant::LowerTokenAccepted) {
            return Ok(self.volatile.borrow().unwrap_or_default());
        }
        Ok(self.volatile.borrow().unwrap_or(self.file.durable.get()))
    }

    fn remember(&self, token: Token) -> Outcome<()> {
        if self.file.full.get() {
            return Err(Failure::new(Code::LocalState, "no space is left on the device"));
        }
        self.plant.checks.accepted(&self.plant, &self.who, token);
        *self.volatile.borrow_mut() = Some(token);
        if self.mutant != Some(Mutant::TokenNotPersisted) {
            self.file.durable.set(token);
        }
        Ok(())
    }
}

/// A committed write through the service's name.
pub struct SimProbe {
    plant: Plant,
    process: ProcessId,
    resolver: Resolver,
    databases: Vec<DatabaseName>,
    timeout: Duration,
}

impl SimProbe {
    /// The probe of an observer's process.
    pub fn new(
        plant: &Plant,
        servers: &[NameServer],
        process: ProcessId,
        databases: &[DatabaseName],
        timeout: Duration,
    ) -> Self {
        let resolver = Resolver::new(plant, servers, process, Duration::ZERO);
        Self { plant: plant.clone(), process, resolver, databases: databases.to_vec(), timeout }
    }

    async fn look(&self) -> Probed {
        let Some(region) = self.resolver.resolve().await else {
            return probed(Seen::Unknown, "no name server says where it is");
        };
        let mut stalled = false;
        for database in &self.databases {
            let nodes = self.plant.nodes_of(database);
            let Some(node) = nodes.iter().find(|node| node.region == region) else {
                return probed(Seen::Unknown, "the name leads to no node");
            };
            let write = async |local| {
                let id = self.plant.id();
                let ask = |reply| Request::Write { id, local, reply };
                node.address.ask(self.process, self.timeout, ask).await
            };
            match write(false).await {
                Ok(Written::Committed) => {}
                Ok(Written::ReadOnly) => return probed(Seen::Fails, "the server takes no writes"),
                Err(_) => match write(true).await {
                    Ok(Written::Committed) => stalled = true,
                    _ => return probed(Seen::Fails, "no write is committed"),
                },
            }
        }
        match stalled {
            true => probed(Seen::Stalled, "commits wait for receivers"),
            false => probed(Seen::Works, "a write was committed"),
        }
    }
}

fn probed(seen: Seen, why: &str) -> Probed {
    Probed { seen, why: why.to_owned() }
}

impl Probe for SimProbe {
    fn probe<'a>(&'a self, _: &'a ServiceName) -> LocalBoxFuture<'a, Probed> {
        Box::pin(self.look())
    }
}

const ARCHIVE: Duration = Duration::from_millis(800);

/// The epochs in the repositories.
pub struct SimArchive {
    plant: Plant,
    process: ProcessId,
}

impl SimArchive {
    /// The repositories, for a controller's process.
    pub fn new(plant: &Plant, process: ProcessId) -> Self {
        Self { plant: plant.clone(), process }
    }

    async fn find_highest(&self, service: &ServiceName) -> Outcome<Option<KnownEpoch>> {
        let mut known: Option<KnownEpoch> = None;
        let mut answered = false;
        for repository in self.plant.repositories() {
            let service = service.clone();
            let ask = |reply| repository::Request::Highest { service, reply };
            let Ok(found) = repository.address.ask(self.process, ARCHIVE, ask).await else {
                continue;
            };
            answered = true;
            let Some((epoch, (region, grant))) = found else { continue };
            match &mut known {
                Some(known) if known.epoch > epoch => {}
                Some(known) if known.epoch == epoch => {
                    known.repositories.push(repository.region.clone());
                }
                _ => {
                    let repositories = vec![repository.region.clone()];
                    let grant: (Nodes, Option<RunId>) =
                        serde_json::from_slice(&grant).unwrap_or_default();
                    let (holders, run) = grant;
                    let region = Some(region);
                    known = Some(KnownEpoch { epoch, region, holders, run, repositories });
                }
            }
        }
        match answered {
            true => Ok(known),
            false => Err(Failure::new(Code::StoreUnavailable, "no repository answers")),
        }
    }

    async fn create(
        &self,
        service: &ServiceName,
        record: &EpochRecord,
    ) -> Outcome<Vec<RegionName>> {
        let mut there = Vec::new();
        for repository in self.plant.repositories() {
            let (service, epoch) = (service.clone(), record.epoch);
            // The same grant, whoever wrote it and when, is the same object.
            let grant = encode(&(&record.holders, record.run));
            let object = (record.region.clone(), grant);
            let ask = |reply| repository::Request::Record { service, epoch, object, reply };
            match repository.address.ask(self.process, ARCHIVE, ask).await {
                Ok(true) => there.push(repository.region.clone()),
                Ok(false) => {
                    let message = format!("epoch {} was given to somebody else", record.epoch);
                    return Err(Failure::new(Code::EpochTaken, message));
                }
                Err(_) => {}
            }
        }
        match there.is_empty() {
            true => Err(Failure::new(Code::StoreUnavailable, "no repository answers")),
            false => Ok(there),
        }
    }
}

impl EpochArchive for SimArchive {
    fn highest<'a>(
        &'a self,
        service: &'a ServiceName,
    ) -> LocalBoxFuture<'a, Outcome<Option<KnownEpoch>>> {
        Box::pin(self.find_highest(service))
    }

    fn record<'a>(
        &'a self,
        service: &'a ServiceName,
        record: &'a EpochRecord,
    ) -> LocalBoxFuture<'a, Outcome<Vec<RegionName>>> {
        Box::pin(self.create(service, record))
    }
}
