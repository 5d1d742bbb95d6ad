//! Hears the agent's own calls, and from them what the endpoint may say.

use std::time::Duration;

use futures::future::LocalBoxFuture;
use lifeboat_drivers::{InstanceDriver, Killed, ShutDown, StartAs};
use lifeboat_environment::Timer;
use lifeboat_model::{Lsn, NodeName};
use lifeboat_quorum::{Instance, Return};
use lifeboat_telemetry::Outcome;

use super::Word;

/// How long what was seen last may be believed. An agent looks several times a second.
const FRESH: Duration = Duration::from_secs(5);

/// A timer whose user is at work as long as it waits for no more than it said.
pub struct WatchedTimer<'a> {
    timer: &'a dyn Timer,
    word: Word,
}

impl<'a> WatchedTimer<'a> {
    /// Watches who waits on `timer`.
    pub fn new(timer: &'a dyn Timer, word: Word) -> Self {
        Self { timer, word }
    }
}

impl Timer for WatchedTimer<'_> {
    fn elapsed(&self) -> Duration {
        self.timer.elapsed()
    }

    fn sleep(&self, duration: Duration) -> LocalBoxFuture<'static, ()> {
        self.word.agent_until(self.timer.elapsed() + duration + FRESH);
        self.timer.sleep(duration)
    }
}

/// An instance of which each look tells whether it is a standby that streams.
pub struct WatchedInstance<'a> {
    instance: &'a dyn InstanceDriver,
    timer: &'a dyn Timer,
    word: Word,
}

impl<'a> WatchedInstance<'a> {
    /// Watches what `instance` shows.
    pub fn new(instance: &'a dyn InstanceDriver, timer: &'a dyn Timer, word: Word) -> Self {
        Self { instance, timer, word }
    }

    async fn look(&self) -> Outcome<Instance> {
        let began = self.timer.elapsed();
        let seen = self.instance.inspect().await;
        let streams = matches!(seen, Ok(Instance::Standby { streaming: true, .. }));
        self.word.replica_until(if streams { began + FRESH } else { Duration::ZERO });
        seen
    }
}

impl InstanceDriver for WatchedInstance<'_> {
    fn inspect(&self) -> LocalBoxFuture<'_, Outcome<Instance>> {
        Box::pin(self.look())
    }

    fn probe(&self) -> LocalBoxFuture<'_, Outcome<()>> {
        self.instance.probe()
    }

    fn extend(&self, deadline: Duration) -> LocalBoxFuture<'_, Outcome<()>> {
        self.instance.extend(deadline)
    }

    fn start(&self, start: StartAs) -> LocalBoxFuture<'_, Outcome<()>> {
        self.instance.start(start)
    }

    fn follow(&self, upstream: Option<NodeName>) -> LocalBoxFuture<'_, Outcome<()>> {
        self.instance.follow(upstream)
    }

    fn synchronize(&self, names: String, epoch: u64) -> LocalBoxFuture<'_, Outcome<()>> {
        self.instance.synchronize(names, epoch)
    }

    fn promote(&self, deadline: Duration) -> LocalBoxFuture<'_, Outcome<()>> {
        self.word.replica_until(Duration::ZERO);
        self.instance.promote(deadline)
    }

    fn release(&self) -> LocalBoxFuture<'_, Outcome<ShutDown>> {
        // Who is about to stop takes no new clients; those that ask before it is over are refused.
        self.word.primary_until(Duration::ZERO);
        self.instance.release()
    }

    fn stop(&self) -> LocalBoxFuture<'_, Outcome<()>> {
        self.word.replica_until(Duration::ZERO);
        self.instance.stop()
    }

    fn fence(&self) -> LocalBoxFuture<'_, Outcome<Killed>> {
        self.word.primary_until(Duration::ZERO);
        self.instance.fence()
    }

    fn come_back(&self, upstream: NodeName, by: Return) -> LocalBoxFuture<'_, Outcome<String>> {
        self.instance.come_back(upstream, by)
    }

    fn salvage(&self, fork: Lsn) -> LocalBoxFuture<'_, Outcome<String>> {
        self.instance.salvage(fork)
    }

    fn fork(&self) -> LocalBoxFuture<'_, Outcome<Option<Lsn>>> {
        self.instance.fork()
    }

    fn readiness(&self) -> LocalBoxFuture<'_, Outcome<Vec<String>>> {
        self.instance.readiness()
    }
}
