//! Keeping the lease: a local write, then a compare-and-swap, then the guard (R3, R7).

use std::time::Duration;

use lifeboat_quorum::{
    Commit, EpochRecord, EpochState, Goal, Instance, Lease, Revision, Transaction,
};
use lifeboat_telemetry::Code;

use super::Agent;

/// What is awaited is tried so many times as often as a renewal.
const SOONER: u32 = 5;

/// What came of an attempt to renew.
enum Renewal {
    /// Confirmed.
    Kept,
    /// Record or lease are not what was read: read again and try once more at once.
    Changed,
    /// The store did not answer, or there is no reason to hold it.
    Not,
}

impl Agent<'_> {
    /// Renews, for ever, each `renew`.
    pub(super) async fn keep_lease(&self) {
        let renew = self.settings.service.timing.renew;
        loop {
            let began = self.now();
            self.renew_once().await;
            self.rest(began, renew).await;
        }
    }

    pub(super) async fn renew_once(&self) {
        if let Renewal::Changed = self.renew().await {
            // Something else about the record was written: that is no reason to lose a turn.
            if self.read().await.is_ok() {
                self.renew().await;
            }
        }
    }

    /// Until the next renewal; sooner once there is a first lease to get, or a first write that
    /// clients wait for.
    async fn rest(&self, began: Duration, renew: Duration) {
        let soonest = renew / SOONER;
        loop {
            let used = self.now().saturating_sub(began);
            let left = renew.saturating_sub(used);
            if left.is_zero() || (used >= soonest && self.is_awaited()) {
                return;
            }
            self.ports.timer.sleep(left.min(self.settings.poll)).await;
        }
    }

    fn is_awaited(&self) -> bool {
        let Some((record, _)) = self.record() else { return false };
        let first_write = self.instance.borrow().is_primary() && self.writes.get().is_none();
        self.wants(&record) && (!self.is_live() || first_write)
    }

    async fn renew(&self) -> Renewal {
        let Some((record, revision)) = self.record().filter(|(record, _)| self.wants(record))
        else {
            match self.grant() {
                Some(grant) => self.extend_by_grant(&grant).await,
                None => self.let_go(),
            }
            return Renewal::Not;
        };
        let releasing = record.state == EpochState::Releasing;
        if !releasing && !self.may_count_on_instance().await {
            return Renewal::Not;
        }
        // What was read before a freeze may be old; the comparison says so.
        self.commit(&record, revision).await
    }

    /// Whether there is a lease to keep: the record lets us, and an order of its epoch wants it.
    fn wants(&self, record: &EpochRecord) -> bool {
        let settings = self.settings;
        if !record.may_renew(&settings.database, &settings.node) || !self.trusts(record) {
            return false;
        }
        let Some(order) = self.order() else { return false };
        let of_epoch = order.token.epoch == record.epoch && order.token == self.accepted.get();
        match order.goal {
            Goal::Primary { .. } => of_epoch && record.state != EpochState::Releasing,
            // It holds on until it has stopped.
            Goal::Release => of_epoch && self.is_live() && self.instance.borrow().is_primary(),
            _ => false,
        }
    }

    /// A primary is worth a lease if it commits; one that just starts has its own time for that.
    pub(super) async fn may_count_on_instance(&self) -> bool {
        let instance = self.instance.borrow().clone();
        let just_starts = match instance {
            Instance::Primary { .. } => false,
            // What we started and what answers nobody yet has its time; what once wrote has none.
            Instance::Unclear => self.starting.get().is_some(),
            Instance::Standby { .. } | Instance::Down { .. } | Instance::Absent => {
                self.writes.set(None);
                true
            }
        };
        match just_starts {
            true => self.has_time_left(),
            false => self.writes_now().await,
        }
    }

    /// A start or a promotion may take so long without a write. A lease that is lost over it is
    /// asked for again later: nobody else may want it.
    fn has_time_left(&self) -> bool {
        let now = self.now();
        let patience = self.settings.patience;
        let since = self.starting.get().unwrap_or(now);
        let used = now.saturating_sub(since);
        let again = used >= patience * 2 && !self.is_live();
        self.starting.set(Some(if again { now } else { since }));
        used < patience || again
    }

    /// A write that is committed here, in time (R3).
    async fn writes_now(&self) -> bool {
        let wrote = self.ports.instance.probe().await;
        let since = self.writes.get();
        if wrote.is_ok() != since.is_some() {
            self.changed.set(true);
        }
        self.writes.set(wrote.is_ok().then(|| since.unwrap_or_else(|| self.now())));
        match wrote {
            Ok(()) => {
                self.starting.set(None);
                true
            }
            Err(failure) => {
                self.note(format!("no local write was committed: {failure}"));
                // That may pass; a full disk does not, and refuses clients already.
                if failure.code() == Code::StoreFull {
                    (self.ports.deadline)(Duration::ZERO);
                }
                false
            }
        }
    }

    async fn commit(&self, record: &EpochRecord, revision: Revision) -> Renewal {
        let Self { settings, ports, .. } = self;
        let known = self.lease.get();
        let key = settings.keys.lease(&settings.service.name, &settings.database);
        let beat = known.beat.saturating_add(1);
        let node = settings.node.clone();
        let lease = Lease { epoch: record.epoch, node, agent: settings.agent, beat };
        let transaction = Transaction::new()
            .when(settings.keys.epoch(&settings.service.name), revision)
            .when(key.clone(), known.revision)
            .put(key, &lease);
        // From here on the lease may have been renewed, whatever we hear of it.
        let sent = self.now();
        match ports.store.commit(transaction).await {
            Ok(Commit::Done(revision)) => {
                let mut known = self.lease.get();
                known.revision = known.revision.max(revision);
                known.beat = known.beat.max(beat);
                self.lease.set(known);
                self.hold(sent, record).await;
                Renewal::Kept
            }
            Ok(Commit::Conflict) => Renewal::Changed,
            Err(error) => {
                self.note(format!("the lease was not renewed: {error}"));
                if settings.serve_without_quorum && self.is_live() {
                    // The spec excludes automatic failover then: nobody waits for this lease.
                    self.hold(sent, record).await;
                }
                Renewal::Not
            }
        }
    }

    /// The guard hears first: what is told to others must already be true.
    async fn hold(&self, sent: Duration, record: &EpochRecord) {
        let deadline = self.holder.borrow_mut().confirmed(sent);
        self.live_until(deadline, record.state != EpochState::Releasing).await;
    }

    /// The instance may live until then, and is told to others if it `serves`.
    pub(super) async fn live_until(&self, deadline: Duration, serves: bool) {
        // A standby and a stopped instance get their deadline when they are started or promoted.
        let waits = matches!(
            *self.instance.borrow(),
            Instance::Standby { .. } | Instance::Down { .. } | Instance::Absent
        );
        if (self.armed.get() || !waits)
            && let Err(failure) = self.ports.instance.extend(deadline).await
        {
            self.note(format!("the guard does not take its deadline: {failure}"));
            return;
        }
        // Load balancers send nobody to what does not write yet, or is about to stop.
        let serves = self.writes.get().is_some() && serves;
        (self.ports.deadline)(if serves { deadline } else { Duration::ZERO });
        self.changed.set(true);
    }

    fn let_go(&self) {
        let granted = self.granted.take().is_some();
        if self.holder.borrow().deadline().is_some() || granted {
            self.holder.borrow_mut().forget();
            (self.ports.deadline)(Duration::ZERO);
            self.changed.set(true);
        }
        self.starting.set(None);
    }
}
