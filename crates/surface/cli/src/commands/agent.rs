//! `lifeboat agent`: what runs beside the databases of one region.

use std::cell::Cell;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{LocalBoxFuture, select};
use lifeboat_daemons::{agent, primary, receiver};
use lifeboat_drivers::postgres::{PostgresInstance, Settings as InstanceSettings};
use lifeboat_drivers::{FileMemory, ReceiverProcess, ReceiverSettings, RepositoryEpochs};
use lifeboat_environment::{SystemTimer, Timer};
use lifeboat_failover::Service;
use lifeboat_model::spec::OnQuorumLoss;
use lifeboat_model::{DatabaseName, NodeName, Reference, RegionName};
use lifeboat_telemetry::{Code, Failure, Outcome};
use nix::fcntl::{Flock, FlockArg};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::control::Control;
use crate::output::Report;
use crate::site::Site;

/// How often it is looked whether somebody wants the end.
const LOOK: Duration = Duration::from_millis(50);
/// How long crash recovery or a promotion may take without a write.
const PATIENCE: Duration = Duration::from_secs(600);

/// Run beside the databases of this region: keep leases, carry out what controllers decide
///
/// For each database with a node here it keeps the instance below a guard: the primary under a
/// lease, everything else as a standby. Each receiver of the region runs below it too. It acts only
/// on orders of the present epoch. It may be stopped and started at any time: PostgreSQL goes on
/// below its guard, a primary for as long as its lease lives.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat agent --here west")]
pub struct Args {}

/// An agent that was stopped.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Stopped {
    /// The region.
    region: String,
    /// The nodes that it ran beside.
    nodes: Vec<String>,
}

impl Report for Stopped {
    const COMMAND: &'static str = "agent";

    fn text(&self) -> String {
        format!("The agent of {} has stopped. Guards and PostgreSQL go on.\n", self.region)
    }
}

/// Runs until it is stopped.
pub fn run(_: &Args, context: &Context) -> Outcome<Stopped> {
    let site = Site::open(context)?;
    let control = Control::open(&site)?;
    let here = site.here.clone().ok_or_else(|| {
        Failure::new(Code::RegionUnknown, "an agent must know its region")
            .hint("Say it with --here or LIFEBOAT_REGION.")
    })?;
    refuse_relative_state(context)?;
    let _only = lock(&site, &here)?;
    let nodes = control.runtime.block_on(work(&site, &control, &here))?;
    Ok(Stopped { region: here.to_string(), nodes })
}

/// Guards, receivers and restores inherit the variable, and work in other directories.
fn refuse_relative_state(context: &Context) -> Outcome<()> {
    match context.environment.variable("LIFEBOAT_STATE") {
        Some(state) if !std::path::Path::new(state).is_absolute() => {
            Err(Failure::new(Code::LocalState, format!("LIFEBOAT_STATE={state} is relative"))
                .hint("Say it as an absolute path, or set `state:` in the spec."))
        }
        _ => Ok(()),
    }
}

/// Two agents of one host would both believe to be the one.
fn lock(site: &Site<'_>, here: &RegionName) -> Outcome<Flock<File>> {
    let folder = site.state.join("agent");
    let path = folder.join(format!("{here}.lock"));
    let opened = std::fs::create_dir_all(&folder).and_then(|()| File::create(&path));
    let file = opened.map_err(|error| {
        Failure::new(Code::LocalState, format!("cannot use {}", path.display())).because(error)
    })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        Failure::new(Code::AgentRunning, format!("another agent of {here} is running"))
            .hint("Stop that one first; databases go on meanwhile.")
    })
}

/// Whether an agent of this region runs on this host.
pub fn is_running(site: &Site<'_>, here: &RegionName) -> Outcome<bool> {
    match lock(site, here) {
        Ok(_) => Ok(false),
        Err(failure) if failure.code() == Code::AgentRunning => Ok(true),
        Err(failure) => Err(failure),
    }
}

/// What the agent of a node must not forget.
pub fn memory_of_node(site: &Site<'_>, node: &NodeName) -> FileMemory {
    FileMemory::new(site.state.join("agent").join(format!("{node}.token")))
}

async fn work(site: &Site<'_>, control: &Control, here: &RegionName) -> Outcome<Vec<String>> {
    let context = site.context();
    let note = |message: String| context.reporter.note(message);
    let mut nodes = Vec::new();
    let mut loops: Vec<LocalBoxFuture<'_, Outcome<()>>> = Vec::new();
    for service in control.services.values() {
        for (database, content) in &service.databases {
            for (node, region) in &content.nodes {
                if region == here {
                    nodes.push(format!("{} of {}", node, service.id(database)));
                    loops.push(Box::pin(keep_node(site, control, service, database, node, &note)));
                }
            }
            if content.receivers.contains(here) {
                loops.push(Box::pin(keep_receiver(site, control, service, database, here, &note)));
            }
        }
    }
    if loops.is_empty() {
        return Err(Failure::new(
            Code::RegionUnknown,
            format!("{here} has no node and no receiver"),
        )
        .hint("Name a region of the spec in which a database has a node."));
    }
    context.reporter.note(format!("agent of {here}: {}", nodes.join(", ")));
    let ended = Box::pin(wait_for_end(context));
    // No loop ends by itself but with a failure of its beginning.
    match select(ended, Box::pin(futures::future::try_join_all(loops))).await {
        futures::future::Either::Left(_) => Ok(nodes),
        futures::future::Either::Right((Err(failure), _)) => Err(failure),
        futures::future::Either::Right((Ok(_), _)) => Ok(nodes),
    }
}

async fn wait_for_end(context: &Context) {
    while !context.cancel.is_requested() {
        SystemTimer.sleep(LOOK).await;
    }
}

async fn keep_node(
    site: &Site<'_>,
    control: &Control,
    service: &Service,
    database: &DatabaseName,
    node: &NodeName,
    note: &dyn Fn(String),
) -> Outcome<()> {
    let context = site.context();
    let id = service.id(database);
    let instance = PostgresInstance::new(InstanceSettings {
        environment: context.environment.clone(),
        spec: Arc::new(site.spec.clone()),
        spec_path: site.origin.clone(),
        program: program()?,
        state: site.state.clone(),
        database: id.clone(),
        node: node.clone(),
        timing: control.timing,
    })?;
    let word = primary::Word::default();
    let node_spec = site.spec.database(&id)?.nodes.get(node);
    let _endpoint = match node_spec.and_then(|one| one.health.as_ref()) {
        Some(address) => Some(serve(address, node, &word, context)?),
        None => None,
    };
    let memory = memory_of_node(site, node);
    let quorum = site.spec.quorum.as_ref();
    let settings = agent::Settings {
        service: service.clone(),
        database: database.clone(),
        node: node.clone(),
        agent: context.environment.random().next_u64(),
        keys: control.keys.clone(),
        poll: control.poll(),
        patience: PATIENCE,
        serve_without_quorum: quorum
            .is_some_and(|quorum| quorum.on_quorum_loss == OnQuorumLoss::Serve),
    };
    let last = Cell::new(String::new());
    let said = |message: String| {
        // The same trouble each second is no news.
        if last.replace(message.clone()) != message {
            note(format!("{node}: {message}"));
        }
    };
    let told = |deadline: Duration| word.primary_until(deadline);
    let timer = primary::WatchedTimer::new(&SystemTimer, word.clone());
    let instance = primary::WatchedInstance::new(&instance, &SystemTimer, word.clone());
    let epochs = RepositoryEpochs::reading(&site.spec, &context.environment);
    let ports = agent::Ports {
        timer: &timer,
        store: control.store.as_ref(),
        instance: &instance,
        memory: &memory,
        epochs: &epochs,
        deadline: &told,
        note: &said,
    };
    agent::run(&settings, &ports).await;
    Ok(())
}

/// Answers load balancers.
fn serve(
    address: &Reference,
    node: &NodeName,
    word: &primary::Word,
    context: &Context,
) -> Outcome<primary::Endpoint> {
    let address = address.resolve(&context.environment)?;
    let listen = address.parse().map_err(|_| {
        Failure::new(Code::SpecInvalid, format!("{address} is no address to listen on"))
            .hint("Write `health` of the node as IP:PORT.")
    })?;
    primary::Endpoint::start(listen, node.clone(), word.clone(), &context.environment)
}

async fn keep_receiver(
    site: &Site<'_>,
    control: &Control,
    service: &Service,
    database: &DatabaseName,
    here: &RegionName,
    note: &dyn Fn(String),
) -> Outcome<()> {
    let context = site.context();
    let id = service.id(database);
    let driver = ReceiverProcess::new(ReceiverSettings {
        environment: context.environment.clone(),
        spec: Arc::new(site.spec.clone()),
        spec_path: site.origin.clone(),
        program: program()?,
        state: site.state.clone(),
        database: id.clone(),
        region: here.clone(),
    })?;
    let file = format!("receiver-{}-{database}.token", service.name);
    let memory = FileMemory::new(site.state.join("agent").join(file));
    let settings = receiver::Settings {
        service: service.name.clone(),
        database: database.clone(),
        region: here.clone(),
        keys: control.keys.clone(),
        poll: control.poll(),
    };
    let last = Cell::new(String::new());
    let said = |message: String| {
        if last.replace(message.clone()) != message {
            note(format!("receiver of {id}: {message}"));
        }
    };
    let ports = receiver::Ports {
        timer: &SystemTimer,
        store: control.store.as_ref(),
        receiver: &driver,
        memory: &memory,
        note: &said,
    };
    receiver::run(&settings, &ports).await;
    Ok(())
}

fn program() -> Outcome<std::path::PathBuf> {
    std::env::current_exe().map_err(|error| {
        Failure::new(Code::Internal, "cannot find this program's file").because(error)
    })
}
