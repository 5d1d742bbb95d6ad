//! `lifeboat status`: one line a service: who writes, how safe that is, and who could take over.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_environment::{SystemTimer, Timer};
use lifeboat_failover::{Elsewhere, Service, View, candidate};
use lifeboat_model::{DatabaseName, NodeName, ServiceName};
use lifeboat_quorum::{Instance, Progress};
use lifeboat_telemetry::{Outcome, bytes, duration};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::control::{Control, Sight};
use crate::output::{Mark, Report, strong, table};
use crate::site::Site;

const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Show each service: who writes, its epoch, lag, RPO now, and who could take over
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat status
  lifeboat status --watch")]
pub struct Args {
    /// Show it again each second, until interrupted
    #[arg(long)]
    watch: bool,
}

/// All services.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Status {
    /// The services.
    services: Vec<ServiceStatus>,
}

/// A service.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ServiceStatus {
    /// Its name.
    service: String,
    /// Its epoch; null before `lifeboat apply`.
    epoch: Option<u64>,
    /// `vacant`, `starting`, `serving`, `releasing` or `revoking`; null without an epoch.
    state: Option<String>,
    /// The region that holds it.
    region: Option<String>,
    /// The nodes that take writes now, by their own word.
    writers: Vec<String>,
    /// The run that moves it now.
    run: Option<u64>,
    /// Whether an acknowledged commit survives the loss of the region now, and why not if not.
    rpo_now: String,
    /// The objective, in milliseconds.
    rpo_objective_ms: u64,
    /// Since when, and why, a promise is not held.
    degraded: Option<String>,
    /// Why nobody acts on the epoch, where a higher one is known elsewhere; null if none is.
    refused: Option<String>,
    /// The nodes of its databases.
    nodes: Vec<NodeShown>,
    /// What keeps the other region from taking over; empty if nothing does.
    not_ready: Vec<String>,
}

/// A node of a database.
#[derive(Debug, Serialize, JsonSchema)]
struct NodeShown {
    /// `SERVICE/DATABASE`.
    database: String,
    /// Its name.
    node: String,
    /// Its region.
    region: String,
    /// `primary`, `standby`, `down`, `absent`, `unclear` or `silent`.
    role: &'static str,
    /// Its position.
    lsn: Option<String>,
    /// Its timeline.
    timeline: Option<u32>,
    /// Bytes behind the primary, for a standby.
    lag_bytes: Option<u64>,
    /// Whether it holds a lease.
    lease: bool,
    /// What it is doing about its order.
    progress: String,
}

impl Report for Status {
    const COMMAND: &'static str = "status";

    fn text(&self) -> String {
        let mut text = String::new();
        for service in &self.services {
            text += &service.heading();
            let row = |node: &NodeShown| {
                let lag = node.lag_bytes.map(|lag| format!("{} behind", bytes(lag)));
                [
                    format!("  {}", node.node),
                    node.region.clone(),
                    node.role.to_owned(),
                    node.lsn.clone().unwrap_or_default(),
                    lag.unwrap_or_default(),
                    node.progress.clone(),
                ]
            };
            let rows: Vec<_> = service.nodes.iter().map(row).collect();
            text += &table(["  node", "region", "role", "position", "lag", "says"], rows);
            for line in &service.not_ready {
                text += &format!("  {} {line}\n", Mark::Doubtful.paint("not ready:"));
            }
            text.push('\n');
        }
        text
    }
}

impl ServiceStatus {
    fn heading(&self) -> String {
        let writers = match self.writers.as_slice() {
            [] => Mark::Bad.paint("nobody writes"),
            [one] => format!("{one} writes"),
            several => Mark::Bad.paint(&format!("{} write", several.join(" and "))),
        };
        let (epoch, state) = (self.epoch.unwrap_or(0), self.state.as_deref().unwrap_or("none"));
        let run = self.run.map(|run| format!(", run {run}")).unwrap_or_default();
        let mut line = format!(
            "{}: {writers}, epoch {epoch} {state}{run}, RPO now {}\n",
            strong(&self.service),
            self.rpo_now
        );
        if let Some(refused) = &self.refused {
            line += &format!("  {} {refused}\n", Mark::Bad.paint("refused:"));
        }
        if let Some(degraded) = &self.degraded {
            line += &format!("  {} {degraded}\n", Mark::Bad.paint("degraded:"));
        }
        line
    }
}

/// Shows.
pub fn run(args: &Args, context: &Context) -> Outcome<Status> {
    let site = Site::open_anywhere(context)?;
    let control = Control::open(&site)?;
    let (mut sight, elsewhere) = control.read_all(&site)?;
    let mut status = Status::of(&control, &sight, &elsewhere)?;
    while args.watch && !context.cancel.is_requested() {
        // Home, then clear: a terminal shows one page.
        context.reporter.note(format!("\u{1b}[H\u{1b}[J{}", status.text()));
        control.runtime.block_on(async { SystemTimer.sleep(WATCH_EVERY).await });
        control.read_again(&mut sight)?;
        status = Status::of(&control, &sight, &elsewhere)?;
    }
    Ok(status)
}

impl Status {
    fn of(
        control: &Control,
        sight: &Sight,
        elsewhere: &BTreeMap<ServiceName, Elsewhere>,
    ) -> Outcome<Self> {
        let one = |service: &Service| {
            let view = sight.view(control, service)?;
            let mut status = ServiceStatus::of(service, &view, Sight::now());
            if let Some(elsewhere) = elsewhere.get(&service.name)
                && let Some(failure) = sight.refusal(control, service, elsewhere)?
            {
                let hint = failure.hint_text().unwrap_or_default();
                let code = failure.code().text();
                status.refused = Some(format!("{code}: {failure}. {hint}"));
            }
            Ok(status)
        };
        Ok(Self { services: control.services.values().map(one).collect::<Outcome<_>>()? })
    }
}

impl ServiceStatus {
    fn of(service: &Service, view: &View, now: Duration) -> Self {
        let record = view.record.as_ref().map(|seen| &seen.value);
        let nodes: Vec<NodeShown> = (service.databases.iter())
            .flat_map(|(database, content)| {
                content.nodes.keys().map(|node| NodeShown::of(service, view, database, node, now))
            })
            .collect();
        let writers = nodes.iter().filter(|node| node.role == "primary");
        let other = record.and_then(|record| service.other_than(&record.region));
        let ready = other.map(|other| candidate::check(service, view, other, now));
        let degraded = record
            .and_then(|record| record.degraded.as_ref())
            .map(|degraded| format!("RPO is not held since {}: {}", degraded.since, degraded.why));
        Self {
            service: service.name.to_string(),
            epoch: record.map(|record| record.epoch),
            state: record.map(|record| format!("{:?}", record.state).to_lowercase()),
            region: record.map(|record| record.region.to_string()),
            writers: writers.map(|node| node.node.clone()).collect(),
            run: record.and_then(|record| record.run).map(|run| run.0),
            rpo_now: rpo_now(service, view, &nodes),
            rpo_objective_ms: u64::try_from(service.rpo.as_millis()).unwrap_or(u64::MAX),
            degraded,
            refused: None,
            not_ready: ready.and_then(Result::err).unwrap_or_default(),
            nodes,
        }
    }
}

/// What would be lost if the region were lost now.
fn rpo_now(service: &Service, view: &View, nodes: &[NodeShown]) -> String {
    let Some(record) = view.record.as_ref().map(|seen| &seen.value) else {
        return "unknown".to_owned();
    };
    let objective = match service.rpo.is_zero() {
        true => "0".to_owned(),
        false => duration(service.rpo),
    };
    if record.synchronous.needed > 0 && record.degraded.is_none() {
        return format!(
            "0 (objective {objective}): commits wait for {} other regions",
            record.synchronous.needed
        );
    }
    let behind = nodes.iter().filter_map(|node| node.lag_bytes).min();
    match behind {
        Some(behind) => format!("up to {} of WAL (objective {objective})", bytes(behind)),
        None => format!("unknown (objective {objective}): no standby streams"),
    }
}

impl NodeShown {
    fn of(
        service: &Service,
        view: &View,
        database: &DatabaseName,
        node: &NodeName,
        now: Duration,
    ) -> Self {
        let status = view.node(database, node);
        let silent = status.is_none_or(|seen| seen.age(now) >= candidate::ABSENT_AFTER);
        let region = service.databases.get(database).and_then(|one| one.nodes.get(node));
        let mut shown = Self {
            database: service.id(database).to_string(),
            node: node.to_string(),
            region: region.map(ToString::to_string).unwrap_or_default(),
            role: "silent",
            lsn: None,
            timeline: None,
            lag_bytes: None,
            lease: false,
            progress: String::new(),
        };
        let Some(status) = status.map(|seen| &seen.value).filter(|_| !silent) else { return shown };
        shown.lease = status.lease.is_some();
        shown.progress = match &status.progress {
            Progress::None => String::new(),
            Progress::Working { doing } => doing.clone(),
            Progress::Done { evidence } => evidence.clone(),
            Progress::Failed { why } => why.clone(),
        };
        let (role, lsn, timeline) = match &status.instance {
            Instance::Absent => ("absent", None, None),
            Instance::Down { timeline, shut_down_at } => ("down", *shut_down_at, Some(*timeline)),
            Instance::Unclear => ("unclear", None, None),
            Instance::Standby { timeline, replayed, .. } => {
                ("standby", Some(*replayed), Some(*timeline))
            }
            Instance::Primary { timeline, flushed, .. } => {
                ("primary", Some(*flushed), Some(*timeline))
            }
        };
        shown.role = role;
        shown.lsn = lsn.map(|lsn| lsn.to_string());
        shown.timeline = timeline.map(|timeline| timeline.0);
        shown.lag_bytes = lag(view, database, &status.instance);
        shown
    }
}

fn lag(view: &View, database: &DatabaseName, instance: &Instance) -> Option<u64> {
    let received = instance.furthest()?;
    let holder = view.record.as_ref()?.value.holders.get(database)?;
    match view.node(database, holder)?.value.instance {
        Instance::Primary { flushed, .. } => Some(flushed.0.saturating_sub(received.0)),
        _ => None,
    }
}
