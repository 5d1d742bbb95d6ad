//! `lifeboat controller`: observes, decides and carries runs on, from one failure domain.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::{Either, select};
use lifeboat_daemons::controller;
use lifeboat_drivers::{Endpoint, EndpointProbe, RepositoryEpochs, TrafficDriver};
use lifeboat_environment::{SystemClock, SystemTimer, Timer};
use lifeboat_failover::Service;
use lifeboat_model::{RegionName, ServiceName};
use lifeboat_telemetry::{Code, Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::control::{Control, writer};
use crate::output::Report;
use crate::site::Site;

/// How often it is looked whether somebody wants the end.
const LOOK: Duration = Duration::from_millis(50);
/// R3: a service that works is written to this often at the most.
const PROBE_EVERY: Duration = Duration::from_secs(2);
const PROBE_FAILING_EVERY: Duration = Duration::from_millis(500);
const TRAFFIC_EVERY: Duration = Duration::from_secs(2);

/// Observe services, decide, and carry moves on, from this failure domain
///
/// One a failure domain: both regions and the witness. Any of them carries any run on; they meet in
/// the quorum store and never need to reach each other or an agent. It may be stopped and started
/// at any time.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat controller --here north")]
pub struct Args {}

/// A controller that was stopped.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Stopped {
    /// The failure domain.
    domain: String,
    /// The services that it looked after.
    services: Vec<String>,
}

impl Report for Stopped {
    const COMMAND: &'static str = "controller";

    fn text(&self) -> String {
        format!("The controller of {} has stopped.\n", self.domain)
    }
}

/// Runs until it is stopped.
pub fn run(_: &Args, context: &Context) -> Outcome<Stopped> {
    let site = Site::open_anywhere(context)?;
    let control = Control::open(&site)?;
    let domain = site.here.clone().ok_or_else(|| {
        Failure::new(Code::RegionUnknown, "a controller must know its failure domain")
            .hint("Say it with --here or LIFEBOAT_REGION: a region, or the witness.")
    })?;
    let services = control.services.keys().map(ToString::to_string).collect();
    control.runtime.block_on(work(&site, &control, &domain))?;
    Ok(Stopped { domain: domain.to_string(), services })
}

async fn work(site: &Site<'_>, control: &Control, domain: &RegionName) -> Outcome<()> {
    let context = site.context();
    let last = RefCell::new(String::new());
    let note = |message: String| {
        if last.replace(message.clone()) != message {
            context.reporter.note(message);
        }
    };
    let endpoints = endpoints(site, control)?;
    let timeout = control.timing.probe_timeout.max(Duration::from_millis(500));
    let probe = EndpointProbe::new(&SystemTimer, domain.clone(), timeout, endpoints);
    let epochs = RepositoryEpochs::new(&site.spec, &site.context().environment, writer(site)?)?;
    let traffic = traffic(site, control)?;
    let settings = controller::Settings {
        domain: domain.clone(),
        services: control.services.clone(),
        keys: control.keys.clone(),
        poll: control.poll(),
        probe_every: PROBE_EVERY,
        probe_failing_every: PROBE_FAILING_EVERY,
        traffic_every: TRAFFIC_EVERY,
    };
    let ports = controller::Ports {
        timer: &SystemTimer,
        clock: &SystemClock,
        store: control.store.as_ref(),
        probe: &probe,
        epochs: &epochs,
        traffic: &traffic,
        note: &note,
    };
    let names: Vec<&str> = control.services.keys().map(ServiceName::as_str).collect();
    note(format!("controller of {domain}: {}", names.join(", ")));
    let stop = Cell::new(false);
    let ended = Box::pin(async {
        while !context.cancel.is_requested() {
            SystemTimer.sleep(LOOK).await;
        }
        stop.set(true);
    });
    match select(ended, Box::pin(controller::run(&settings, &ports))).await {
        Either::Left(_) | Either::Right(_) => Ok(()),
    }
}

/// Where observers write: the endpoint of the first database of each service.
fn endpoints(site: &Site<'_>, control: &Control) -> Outcome<Vec<Endpoint>> {
    let environment = &site.context().environment;
    let one = |service: &Service| {
        let databases = &site.spec.services.get(&service.name)?.databases;
        let database = databases.values().find(|database| database.endpoint.is_some())?;
        let node = database.nodes.values().next()?;
        let resolve = || {
            let connection = node.connection.resolve(environment)?;
            let address = database.endpoint.as_ref().map(|at| at.resolve(environment));
            Ok(Endpoint {
                service: service.name.clone(),
                connection,
                address: address.transpose()?,
            })
        };
        Some(resolve())
    };
    control.services.values().filter_map(one).collect()
}

fn traffic(
    site: &Site<'_>,
    control: &Control,
) -> Outcome<BTreeMap<ServiceName, Vec<Box<dyn TrafficDriver>>>> {
    let environment = &site.context().environment;
    let mut drivers = BTreeMap::new();
    for name in control.services.keys() {
        let found = lifeboat_drivers::traffic::traffic_drivers(&site.spec, name, environment)?;
        drivers.insert(name.clone(), found);
    }
    Ok(drivers)
}
