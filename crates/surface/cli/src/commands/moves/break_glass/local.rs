//! The nodes of this host: what they are, what their agent remembers and is permitted.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_drivers::postgres::PostgresInstance;
use lifeboat_drivers::{
    FileMemory, Grant, InstanceDriver, KnownEpoch, Memory, ReceiverDriver, ReceiverProcess,
    ReceiverSettings,
};
use lifeboat_environment::{SystemTimer, Timer};
use lifeboat_failover::Service;
use lifeboat_model::{DatabaseName, Lsn, NodeName, RegionName};
use lifeboat_quorum::{Instance, Nodes};
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::NodeShown;
use crate::commands::agent::{is_running, memory_of_node};
use crate::commands::standby;
use crate::context::Context;
use crate::control::Control;
use crate::site::Site;

/// How long a receiver may take to ship what it holds.
const SHIPPING: Duration = Duration::from_secs(15);
/// How long a promotion is waited for.
const PROMOTION: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(200);

/// The nodes that shall write, all of this host.
pub(super) struct Local<'a> {
    site: &'a Site<'a>,
    control: &'a Control,
    service: &'a Service,
    nodes: Vec<Node>,
}

struct Node {
    database: DatabaseName,
    name: NodeName,
    driver: PostgresInstance,
    memory: FileMemory,
}

impl<'a> Local<'a> {
    /// Refuses where it is not this host that must do it, or where nobody here would.
    pub(super) fn find(
        site: &'a Site<'a>,
        control: &'a Control,
        service: &'a Service,
        to: &RegionName,
        nodes: &Nodes,
    ) -> Outcome<Self> {
        let names: Vec<&str> = nodes.values().map(NodeName::as_str).collect();
        let names = names.join(", ");
        if site.here.as_ref() != Some(to) {
            let message = format!("without a quorum only {to} itself can take {}", service.name);
            return Err(Failure::new(Code::MoveRefused, message)
                .hint(format!("Run it on the host of {names}, with --here {to}.")));
        }
        let mut found = Vec::new();
        for (database, node) in nodes {
            let id = service.id(database);
            let settings = standby::settings(site, (&id, site.spec.database(&id)?), Some(node))?;
            if !settings.data()?.is_dir() {
                let message = format!("the data directory of {node} of {id} is not on this host");
                return Err(Failure::new(Code::MoveRefused, message)
                    .hint(format!("Run it on the host of {names}.")));
            }
            found.push(Node {
                database: database.clone(),
                name: node.clone(),
                driver: PostgresInstance::new(settings)?,
                memory: memory_of_node(site, node),
            });
        }
        if !is_running(site, to)? {
            let message = format!("no agent of {to} runs on this host");
            return Err(Failure::new(Code::MoveRefused, message).hint(format!(
                "Start `lifeboat agent --here {to}`: it promotes and guards, with or without a \
                 quorum."
            )));
        }
        let local = Self { site, control, service, nodes: found };
        local.refuse_what_cannot_write()?;
        Ok(local)
    }

    fn refuse_what_cannot_write(&self) -> Outcome<()> {
        for node in &self.nodes {
            let what = match self.control.runtime.block_on(node.driver.inspect())? {
                Instance::Standby { .. } | Instance::Primary { .. } | Instance::Down { .. } => {
                    continue;
                }
                Instance::Absent => "has no data directory",
                Instance::Unclear => "does not answer",
            };
            let message = format!("{} of {} {what}", node.name, self.service.id(&node.database));
            return Err(Failure::new(Code::MoveRefused, message)
                .hint("Repair that first; `lifeboat standby create` makes a standby."));
        }
        Ok(())
    }

    /// The highest epoch that the agents of these nodes know.
    pub(super) fn remembered(&self) -> Outcome<u64> {
        let mut highest = 0;
        for node in &self.nodes {
            highest = highest.max(node.memory.highest()?.epoch);
        }
        Ok(highest)
    }

    /// The permission that these nodes have, if it is theirs in the highest epoch of all.
    pub(super) fn present(&self, known: Option<&KnownEpoch>) -> Outcome<Option<Grant>> {
        let now = self.site.context().environment.clock().elapsed();
        let boot = Grant::this_boot();
        let mut present = None;
        for node in &self.nodes {
            let newest = |grant: &Grant| {
                known.is_some_and(|known| {
                    known.epoch == grant.epoch
                        && known.holders.get(&node.database) == Some(&node.name)
                })
            };
            let remembered = node.memory.highest()?.epoch;
            // One that has ended is no more than a trace of what was.
            let grant = node.memory.grant()?.filter(|grant| grant.is_live(&boot, now));
            match grant.filter(|grant| newest(grant) && remembered <= grant.epoch) {
                Some(grant) => present = Some(grant),
                None => return Ok(None),
            }
        }
        Ok(present)
    }

    /// Seals what receives here, and says up to where everything must be replayed. What does not
    /// work is told: without a quorum there is nothing to wait for.
    pub(super) fn seal(&self, epoch: u64, remarks: &mut Vec<String>) -> Option<Lsn> {
        let mut required = None;
        for node in &self.nodes {
            let content = self.service.databases.get(&node.database);
            let here = self.site.here.as_ref();
            let receives = here.is_some_and(|here| {
                content.is_some_and(|content| content.receivers.contains(here))
            });
            if !receives {
                continue;
            }
            match self.seal_one(node, epoch) {
                Ok((at, true)) => {
                    required = required.max(at);
                    let at = at.map_or_else(|| "nothing".to_owned(), |at| at.to_string());
                    remarks.push(format!("The receiver of {} is sealed at {at}.", node.database));
                }
                Ok((_, false)) => remarks.push(format!(
                    "The receiver of {} is sealed, and its repository has not all that it holds: \
                     what was acknowledged may be missing.",
                    node.database
                )),
                Err(failure) => remarks.push(format!(
                    "The receiver of {} is not sealed: {}. What was acknowledged may be missing.",
                    node.database,
                    failure.full_message()
                )),
            }
        }
        required
    }

    fn seal_one(&self, node: &Node, epoch: u64) -> Outcome<(Option<Lsn>, bool)> {
        let settings = node.driver.settings();
        let receiver = ReceiverProcess::new(ReceiverSettings {
            environment: settings.environment.clone(),
            spec: Arc::clone(&settings.spec),
            spec_path: settings.spec_path.clone(),
            program: settings.program.clone(),
            state: settings.state.clone(),
            database: settings.database.clone(),
            region: settings.node()?.region.clone(),
        })?;
        // It may receive for an epoch that no repository has.
        let epoch = epoch.max(receiver.running().unwrap_or_default());
        let end = SystemTimer.elapsed() + SHIPPING;
        loop {
            let sealed = self.control.runtime.block_on(receiver.seal(epoch))?;
            if sealed.shipped || SystemTimer.elapsed() >= end {
                return Ok((sealed.flushed, sealed.shipped));
            }
            self.site.context().cancel.check()?;
        }
    }

    /// Leaves a permission for each node.
    pub(super) fn permit(&self, grant: impl Fn(&DatabaseName, &NodeName) -> Grant) -> Outcome<()> {
        self.nodes
            .iter()
            .try_for_each(|node| node.memory.permit(&grant(&node.database, &node.name)))
    }

    /// Waits until all of them write.
    pub(super) fn wait(&self, context: &Context) -> Outcome<()> {
        context.reporter.note("the agent promotes below the guard …");
        let end = SystemTimer.elapsed() + PROMOTION;
        loop {
            let mut missing = None;
            for node in &self.nodes {
                let found = self.control.runtime.block_on(node.driver.inspect())?;
                if !found.is_primary() {
                    missing = Some(&node.name);
                }
            }
            let Some(missing) = missing else { return Ok(()) };
            context.cancel.check()?;
            if SystemTimer.elapsed() >= end {
                let message = format!("{missing} does not write yet");
                return Err(Failure::new(Code::RunStopped, message).hint(
                    "Its agent goes on with it: see what it says. Running the command again only \
                     extends the permission.",
                ));
            }
            self.control.runtime.block_on(async { SystemTimer.sleep(LOOK).await });
        }
    }

    /// What they are now.
    pub(super) fn shown(&self) -> Outcome<Vec<NodeShown>> {
        let one = |node: &Node| {
            let state = match self.control.runtime.block_on(node.driver.inspect())? {
                Instance::Absent => "absent".to_owned(),
                Instance::Down { .. } => "down".to_owned(),
                Instance::Unclear => "unclear".to_owned(),
                Instance::Standby { replayed, .. } => format!("standby, replayed up to {replayed}"),
                Instance::Primary { timeline, flushed, .. } => {
                    format!("primary on timeline {timeline} at {flushed}")
                }
            };
            let database = self.service.id(&node.database).to_string();
            Ok(NodeShown { database, node: node.name.to_string(), state })
        };
        self.nodes.iter().map(one).collect()
    }
}
