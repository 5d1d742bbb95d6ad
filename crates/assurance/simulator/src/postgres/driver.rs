//! [`InstanceDriver`] over the model: what an agent can do to the server on its host.

use std::rc::Rc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use lifeboat_drivers::{InstanceDriver, Killed, ShutDown, StartAs};
use lifeboat_environment::Timer;
use lifeboat_model::{Lsn, NodeName};
use lifeboat_quorum::{Instance, Return, Timing};
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::{GuardRequest, Node, Request, Written};
use crate::executor::{ProcessId, SimTimer};
use crate::mutant::Mutant;
use crate::plant::Plant;
use crate::wal;

/// How long a guard may take to answer.
const GUARD: Duration = Duration::from_millis(500);
/// How long a clean shutdown may take.
const RELEASE: Duration = Duration::from_secs(8);
const STOP: Duration = Duration::from_secs(3);

/// The instance of one node, in the hands of an agent.
pub struct SimInstance {
    plant: Plant,
    node: Rc<Node>,
    agent: ProcessId,
    timer: SimTimer,
    timing: Timing,
    /// What is wrong with it on purpose.
    pub mutant: Option<Mutant>,
}

impl SimInstance {
    /// The instance of `node`, for the agent's process.
    pub fn new(plant: &Plant, node: &Rc<Node>, agent: ProcessId, timing: Timing) -> Self {
        let timer = plant.sim.timer(agent);
        let mutant = None;
        Self { plant: plant.clone(), node: Rc::clone(node), agent, timer, timing, mutant }
    }

    async fn tell<A: 'static>(
        &self,
        limit: Duration,
        request: impl FnOnce(crate::message::Reply<A>) -> Request,
    ) -> Outcome<A> {
        let answer = self.node.address.ask(self.agent, limit, request).await;
        answer.map_err(|why| {
            let message = format!("{} does not answer ({why:?})", self.node.name);
            Failure::new(Code::ClusterUnreachable, message)
        })
    }

    async fn guard<A: 'static>(
        &self,
        limit: Duration,
        request: impl FnOnce(crate::message::Reply<A>) -> GuardRequest,
    ) -> Outcome<A> {
        let answer = self.node.guard_address.ask(self.agent, limit, request).await;
        answer.map_err(|why| {
            let message = format!("the guard of {} does not answer ({why:?})", self.node.name);
            Failure::new(Code::GuardSilent, message)
        })
    }

    async fn inspected(&self) -> Outcome<Instance> {
        {
            let disk = self.node.disk.borrow();
            if !disk.exists {
                return Ok(Instance::Absent);
            }
            if !self.node.lives.get() {
                let timeline = wal::timeline(disk.log.timeline());
                return Ok(Instance::Down { timeline, shut_down_at: disk.shut_down.map(wal::lsn) });
            }
            if self.is(Mutant::FenceBeforeDeath) && self.node.killing.get() {
                let timeline = wal::timeline(disk.log.timeline());
                return Ok(Instance::Down { timeline, shut_down_at: None });
            }
        }
        let answer = self.tell(self.timing.probe_timeout, |reply| Request::Inspect { reply }).await;
        let mut instance = answer.unwrap_or(Instance::Unclear);
        if self.is(Mutant::PromoteTooEarly)
            && let Instance::Standby { replayed, .. } = &mut instance
        {
            *replayed = Lsn::MAX;
        }
        Ok(instance)
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// The deadline that the guard is told: a wrong agent adds to it.
    fn wrong(&self, deadline: Duration) -> Duration {
        if self.is(Mutant::HolderFromResponse) {
            return self.timer.elapsed() + self.timing.life();
        }
        deadline
    }

    async fn probed(&self) -> Outcome<()> {
        if self.is(Mutant::NoProbe) {
            return Ok(());
        }
        let id = self.plant.id();
        let write = |reply| Request::Write { id, local: true, reply };
        match self.tell(self.timing.probe_timeout, write).await? {
            Written::Committed => Ok(()),
            Written::ReadOnly => Err(Failure::new(Code::NotPrimary, "it takes no writes")),
        }
    }

    async fn extended(&self, deadline: Duration) -> Outcome<()> {
        let deadline = self.wrong(deadline);
        match self.guard(GUARD, |reply| GuardRequest::Extend { deadline, reply }).await? {
            true => Ok(()),
            false => Err(Failure::new(Code::GuardDeadline, "the deadline has passed already")),
        }
    }

    async fn started(&self, start: StartAs) -> Outcome<()> {
        let (deadline, upstream) = match start {
            StartAs::Standby { upstream } => (None, upstream),
            StartAs::Primary { deadline } => (Some(self.wrong(deadline)), None),
        };
        if self.node.lives.get() {
            return Ok(());
        }
        if deadline.is_none() && !self.node.disk.borrow().exists {
            self.cloned().await?;
        }
        {
            let mut disk = self.node.disk.borrow_mut();
            if deadline.is_some() && disk.standby {
                let message =
                    format!("{} is a standby, and only a promotion ends that", self.node.name);
                return Err(Failure::new(Code::NotPrimary, message));
            }
            disk.standby = deadline.is_none();
        }
        self.guard(GUARD, |reply| GuardRequest::Start { deadline, upstream, reply }).await
    }

    async fn synchronized(&self, names: String, epoch: u64) -> Outcome<()> {
        let names = if self.is(Mutant::NoSynchronousNames) { String::new() } else { names };
        {
            let mut disk = self.node.disk.borrow_mut();
            (disk.names, disk.epoch) = (names, Some(epoch));
        }
        if !self.node.lives.get() {
            return Ok(());
        }
        self.tell(self.timing.probe_timeout, |reply| Request::Reload { reply }).await
    }

    async fn promoted(&self, deadline: Duration) -> Outcome<()> {
        self.extended(deadline).await?;
        match self.tell(self.timing.probe_timeout, |reply| Request::Promote { reply }).await? {
            true => Ok(()),
            false => Err(Failure::new(Code::NotPrimary, "it is no standby that could be promoted")),
        }
    }

    /// Stops it and waits until nothing lives.
    async fn stopped(&self, limit: Duration) -> Outcome<()> {
        if !self.node.lives.get() {
            return Ok(());
        }
        let end = self.timer.elapsed() + limit;
        self.tell(self.timing.probe_timeout, |reply| Request::Stop { reply }).await?;
        while self.node.lives.get() {
            if self.timer.elapsed() > end {
                let message = format!("{} has not stopped in time", self.node.name);
                return Err(Failure::new(Code::DeadlineExceeded, message));
            }
            self.timer.sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn released(&self) -> Outcome<ShutDown> {
        self.stopped(RELEASE).await?;
        let disk = self.node.disk.borrow();
        let Some(end) = disk.shut_down else {
            let message = format!("{} is down, and was not shut down cleanly", self.node.name);
            return Err(Failure::new(Code::ClusterUnreachable, message));
        };
        Ok(ShutDown { timeline: wal::timeline(disk.log.timeline()), end: wal::lsn(end) })
    }

    async fn stopped_or_killed(&self) -> Outcome<()> {
        if self.stopped(STOP).await.is_err() {
            self.fenced().await?;
        }
        Ok(())
    }

    async fn fenced(&self) -> Outcome<Killed> {
        let processes = if self.node.lives.get() { 7 } else { 0 };
        let limit = self.timing.fence_deadline + GUARD;
        let kill = self.guard(limit, |reply| GuardRequest::Kill { reply });
        let took = match self.mutant {
            Some(Mutant::FenceBeforeDeath) => {
                // The request is on its way, and what comes of it is not waited for.
                let sleep = self.timer.sleep(Duration::from_millis(1));
                let _ = futures::future::select(Box::pin(kill), sleep).await;
                Duration::ZERO
            }
            _ => kill.await?,
        };
        Ok(Killed { processes, took })
    }

    async fn came_back(&self, upstream: NodeName, by: Return) -> Outcome<String> {
        if self.node.lives.get() {
            return Err(Failure::new(Code::GuardRefused, "it runs"));
        }
        if by == Return::Clone {
            return self.cloned().await;
        }
        let node = self.plant.node(&self.node.database, &upstream);
        let node = node.ok_or_else(|| Failure::new(Code::Internal, "there is no such node"))?;
        let compare = |reply| Request::Compare { reply };
        let theirs = node.address.ask(self.agent, Duration::from_secs(1), compare).await;
        let Ok(Some(theirs)) = theirs else {
            let message = format!("{upstream} is not there as a primary to compare with");
            return Err(Failure::new(Code::ClusterUnreachable, message));
        };
        let common = self.node.disk.borrow().log.common(&theirs);
        let own = self.node.disk.borrow().log.len();
        if common < own && by == Return::AsItIs && !self.is(Mutant::NoSalvage) {
            let (own, common) = (wal::lsn(own), wal::lsn(common));
            let message = format!("its WAL goes to {own} and left that of {upstream} at {common}");
            return Err(Failure::new(Code::TimelineForeign, message));
        }
        if common < own {
            self.timer.sleep(Duration::from_millis(1500)).await;
            self.plant.discarded(&self.node, common);
            self.node.disk.borrow_mut().log.truncate(common);
        }
        self.node.disk.borrow_mut().standby = true;
        Ok(format!("it follows from {}", wal::lsn(common)))
    }

    async fn cloned(&self) -> Outcome<String> {
        let repository = self.plant.repository(&self.node.region);
        let repository = repository.ok_or_else(|| Failure::new(Code::Internal, "no repository"))?;
        let log = repository.log(&self.node.database);
        let common = self.node.disk.borrow().log.common(&log);
        self.plant.discarded(&self.node, common);
        // A directory that is being restored is none until it is whole.
        self.node.disk.borrow_mut().exists = false;
        self.timer.sleep(Duration::from_secs(3)).await;
        let mut disk = self.node.disk.borrow_mut();
        (disk.exists, disk.standby, disk.shut_down) = (true, true, None);
        disk.log = log;
        Ok(format!("restored up to {}", wal::lsn(disk.log.len())))
    }

    async fn salvaged(&self, fork: Lsn) -> Outcome<String> {
        self.timer.sleep(Duration::from_millis(700)).await;
        let mut disk = self.node.disk.borrow_mut();
        if !disk.exists {
            return Ok("there is no directory any more".to_owned());
        }
        let from = wal::length(fork);
        disk.salvaged_from = Some(disk.salvaged_from.map_or(from, |before| before.min(from)));
        Ok(format!("{} records behind {fork} were set apart", disk.log.len().saturating_sub(from)))
    }
}

impl InstanceDriver for SimInstance {
    fn inspect(&self) -> LocalBoxFuture<'_, Outcome<Instance>> {
        Box::pin(self.inspected())
    }

    fn probe(&self) -> LocalBoxFuture<'_, Outcome<()>> {
        Box::pin(self.probed())
    }

    fn extend(&self, deadline: Duration) -> LocalBoxFuture<'_, Outcome<()>> {
        Box::pin(self.extended(deadline))
    }

    fn start(&self, start: StartAs) -> LocalBoxFuture<'_, Outcome<()>> {
        Box::pin(self.started(start))
    }

    fn follow(&self, upstream: Option<NodeName>) -> LocalBoxFuture<'_, Outcome<()>> {
        let limit = self.timing.probe_timeout;
        Box::pin(self.tell(limit, |reply| Request::Follow { upstream, reply }))
    }

    fn synchronize(&self, names: String, epoch: u64) -> LocalBoxFuture<'_, Outcome<()>> {
        Box::pin(self.synchronized(names, epoch))
    }

    fn promote(&self, deadline: Duration) -> LocalBoxFuture<'_, Outcome<()>> {
        Box::pin(self.promoted(deadline))
    }

    fn release(&self) -> LocalBoxFuture<'_, Outcome<ShutDown>> {
        Box::pin(self.released())
    }

    fn fork(&self) -> LocalBoxFuture<'_, Outcome<Option<Lsn>>> {
        let fork = self.node.disk.borrow().log.fork();
        Box::pin(async move { Ok((fork > 0).then(|| wal::lsn(fork))) })
    }

    fn stop(&self) -> LocalBoxFuture<'_, Outcome<()>> {
        Box::pin(self.stopped_or_killed())
    }

    fn fence(&self) -> LocalBoxFuture<'_, Outcome<Killed>> {
        Box::pin(self.fenced())
    }

    fn come_back(&self, upstream: NodeName, by: Return) -> LocalBoxFuture<'_, Outcome<String>> {
        Box::pin(self.came_back(upstream, by))
    }

    fn salvage(&self, fork: Lsn) -> LocalBoxFuture<'_, Outcome<String>> {
        Box::pin(self.salvaged(fork))
    }

    fn readiness(&self) -> LocalBoxFuture<'_, Outcome<Vec<String>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}
