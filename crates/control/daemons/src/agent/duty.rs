//! Making the instance what the record and the order say.
//!
//! Two things need no order: an instance that takes writes without a lease is killed, and a holder
//! whose epoch is revoked is too.

use std::time::Duration;

use lifeboat_drivers::StartAs;
use lifeboat_model::{Lsn, NodeName};
use lifeboat_quorum::{Desired, EpochRecord, EpochState, Goal, Instance, Progress, Return, Token};
use lifeboat_telemetry::Outcome;

use super::Agent;
use crate::inquiry::spoken;

/// How long an order that failed rests before it is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What was done about an order just now.
pub(super) enum Step {
    /// It is as wanted.
    Done(String),
    /// On the way.
    Working(String),
}

impl Agent<'_> {
    /// Does what is to be done, for ever.
    pub(super) async fn do_duty(&self) {
        loop {
            self.do_once().await;
            self.ports.timer.sleep(self.settings.poll).await;
        }
    }

    pub(super) async fn do_once(&self) {
        match self.ports.instance.inspect().await {
            Ok(instance) => self.set_instance(instance),
            Err(failure) => {
                self.note(format!("the instance cannot be inspected: {failure}"));
                self.set_instance(Instance::Unclear);
            }
        }
        let recorded = self.record().map_or(0, |(record, _)| record.epoch);
        match self.grant().filter(|grant| grant.epoch > recorded) {
            Some(grant) => self.serve_by_grant(&grant).await,
            None if !self.mirror.borrow().is_read() => {}
            None if self.keep_safe().await => {}
            None => self.obey().await,
        }
    }

    /// Kills what may not write. Says whether there was something to kill.
    async fn keep_safe(&self) -> bool {
        let (primary, unclear) = match *self.instance.borrow() {
            Instance::Primary { .. } => (true, false),
            Instance::Unclear => (false, true),
            _ => (false, false),
        };
        let record = self.record().map(|(record, _)| record);
        let holds = |record: &EpochRecord| {
            record.holders.get(&self.settings.database) == Some(&self.settings.node)
        };
        let revoked = record
            .as_ref()
            .is_some_and(|record| holds(record) && record.state == EpochState::Revoking);
        // A holder without a lease has until the guard's deadline to get one: an agent that was
        // restarted kills nothing.
        let foreign = !record
            .as_ref()
            .is_some_and(|record| record.may_renew(&self.settings.database, &self.settings.node));
        let older = primary && record.as_ref().is_some_and(|record| self.refusal(record).is_some());
        let why = match (revoked && (primary || unclear), primary && foreign && !self.is_live()) {
            (true, _) => "its epoch is being revoked",
            (_, true) => "it takes writes, and is not the holder",
            _ if older => "it takes writes, and a higher epoch than its own was begun",
            _ => return false,
        };
        self.note(format!("killing the instance: {why}"));
        match self.ports.instance.fence().await {
            Ok(killed) => {
                self.note(format!("{} processes are gone", killed.processes));
                self.armed.set(false);
                self.set_instance(Instance::Unclear);
            }
            Err(failure) => self.note(format!("the instance cannot be killed: {failure}")),
        }
        true
    }

    /// Carries the order out, if it is one that may be.
    async fn obey(&self) {
        let refusal = self.record().and_then(|(record, _)| self.refusal(&record));
        if let Some(failure) = refusal {
            let why = spoken(&failure);
            self.note(why.clone());
            return self.set_progress(Progress::Failed { why });
        }
        let Some(order) = self.order().filter(|order| self.may_begin(&order.goal)) else { return };
        if !self.accept(&order) || self.rests(order.token) {
            return;
        }
        let progress = match self.carry_out(&order).await {
            Ok(Step::Done(evidence)) => Progress::Done { evidence },
            Ok(Step::Working(doing)) => Progress::Working { doing },
            Err(failure) => Progress::Failed { why: told(&failure) },
        };
        let failures = match (&progress, self.failed.get()) {
            (Progress::Failed { .. }, Some((token, _, failures))) if token == order.token => {
                failures.saturating_add(1)
            }
            _ => 0,
        };
        let failed = matches!(progress, Progress::Failed { .. });
        self.failed.set(failed.then(|| (order.token, self.now(), failures)));
        self.set_progress(progress);
    }

    /// What failed is tried again soon at first, then less and less often.
    fn rests(&self, token: Token) -> bool {
        self.failed.get().is_some_and(|(failed, at, failures)| {
            let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(6)).min(LONGEST_PAUSE);
            failed == token && self.now().saturating_sub(at) < pause
        })
    }

    /// Nothing below the highest token is carried out, also after a restart: it is durable first.
    fn accept(&self, order: &Desired<Goal>) -> bool {
        if order.token == self.accepted.get() {
            return true;
        }
        let remembered = self.ports.memory.highest().and_then(|highest| {
            if order.token > highest {
                self.ports.memory.remember(order.token)?;
            }
            Ok(order.token >= highest)
        });
        match remembered {
            Ok(true) => {
                self.accepted.set(order.token);
                self.set_progress(Progress::None);
                true
            }
            Ok(false) => {
                self.note(format!("an old order is refused: {}", order.token));
                false
            }
            Err(failure) => {
                self.note(format!("no order is carried out: {failure}"));
                false
            }
        }
    }

    async fn carry_out(&self, order: &Desired<Goal>) -> Outcome<Step> {
        match &order.goal {
            Goal::Primary { required, synchronous_standby_names } => {
                self.be_primary(order, *required, synchronous_standby_names).await
            }
            Goal::Follow { upstream, by } => self.follow(upstream, *by).await,
            Goal::Hold { complete } => self.hold_still(*complete).await,
            Goal::Release => self.release().await,
            Goal::Fence => {
                let killed = self.ports.instance.fence().await?;
                self.armed.set(false);
                let took = killed.took.as_millis();
                Ok(Step::Done(format!("{} processes killed in {took} ms", killed.processes)))
            }
            Goal::Down => self.stay_down().await,
            Goal::Salvage { fork } => self.ports.instance.salvage(*fork).await.map(Step::Done),
        }
    }

    async fn be_primary(
        &self,
        order: &Desired<Goal>,
        required: Option<Lsn>,
        names: &str,
    ) -> Outcome<Step> {
        let record = self.record().map(|(record, _)| record);
        let allowed = record
            .is_some_and(|record| self.is_allowed(&record) && record.epoch == order.token.epoch);
        let deadline = self.holder.borrow().deadline().filter(|_| allowed && self.is_live());
        match deadline {
            Some(deadline) => self.lead(deadline, order.token.epoch, required, names).await,
            None => Ok(Step::Working("waits for its lease".to_owned())),
        }
    }

    /// Makes the instance the primary of an epoch, until `deadline`.
    pub(super) async fn lead(
        &self,
        deadline: Duration,
        epoch: u64,
        required: Option<Lsn>,
        names: &str,
    ) -> Outcome<Step> {
        let driver = self.ports.instance;
        let instance = self.instance.borrow().clone();
        match instance {
            Instance::Primary { timeline, flushed, .. } => {
                driver.synchronize(names.to_owned(), epoch).await?;
                if self.fork.get().is_none() {
                    self.fork.set(driver.fork().await?);
                }
                match self.writes.get().is_some() {
                    true => Ok(Step::Done(format!("primary on timeline {timeline} at {flushed}"))),
                    false => Ok(Step::Working("waits for its first write".to_owned())),
                }
            }
            Instance::Standby { replayed, .. } => {
                if required.is_some_and(|required| replayed < required) {
                    return Ok(Step::Working(format!("replays, and is at {replayed}")));
                }
                driver.synchronize(names.to_owned(), epoch).await?;
                self.armed.set(true);
                driver.promote(deadline).await?;
                Ok(Step::Working(format!("promotes at {replayed}")))
            }
            Instance::Down { .. } => {
                self.armed.set(true);
                driver.start(StartAs::Primary { deadline }).await?;
                Ok(Step::Working("starts".to_owned()))
            }
            Instance::Unclear => Ok(Step::Working("starts, or does not answer".to_owned())),
            Instance::Absent => Ok(Step::Working("there is no data directory".to_owned())),
        }
    }

    async fn follow(&self, upstream: &NodeName, by: Return) -> Outcome<Step> {
        let driver = self.ports.instance;
        let start = StartAs::Standby { upstream: Some(upstream.clone()) };
        let instance = self.instance.borrow().clone();
        self.armed.set(false);
        self.fork.set(None);
        match instance {
            Instance::Standby { streaming, replayed, .. } => {
                driver.follow(Some(upstream.clone())).await?;
                *self.not_ready.borrow_mut() = driver.readiness().await.unwrap_or_default();
                match streaming {
                    true => Ok(Step::Done(format!("streams from {upstream}, at {replayed}"))),
                    false => Ok(Step::Working(format!("does not stream yet, at {replayed}"))),
                }
            }
            Instance::Down { .. } | Instance::Absent => {
                driver.come_back(upstream.clone(), by).await?;
                driver.start(start).await?;
                Ok(Step::Working("starts".to_owned()))
            }
            Instance::Unclear => Ok(Step::Working("starts, or does not answer".to_owned())),
            // It was killed before this, or keeps_safe does it now.
            Instance::Primary { .. } => Ok(Step::Working("takes writes still".to_owned())),
        }
    }

    /// R14: nothing more by streaming; what is required comes from the repository.
    async fn hold_still(&self, complete: Option<Lsn>) -> Outcome<Step> {
        let driver = self.ports.instance;
        let instance = self.instance.borrow().clone();
        match instance {
            Instance::Standby { streaming, received, replayed, .. } => {
                driver.follow(None).await?;
                if streaming {
                    return Ok(Step::Working("ends its streaming".to_owned()));
                }
                let wanted = complete.max(received);
                match wanted.is_some_and(|wanted| replayed < wanted) {
                    true => Ok(Step::Working(format!("replays, and is at {replayed}"))),
                    false => Ok(Step::Done(format!("has replayed up to {replayed}"))),
                }
            }
            Instance::Down { .. } | Instance::Absent => {
                driver.start(StartAs::Standby { upstream: None }).await?;
                Ok(Step::Working("starts from the repository".to_owned()))
            }
            Instance::Unclear => Ok(Step::Working("starts, or does not answer".to_owned())),
            Instance::Primary { .. } => Ok(Step::Working("takes writes still".to_owned())),
        }
    }

    async fn release(&self) -> Outcome<Step> {
        let down = match *self.instance.borrow() {
            Instance::Down { shut_down_at, .. } => Some(shut_down_at),
            _ => None,
        };
        match down {
            Some(Some(end)) => Ok(Step::Done(format!("was shut down at {end}"))),
            Some(None) => Ok(Step::Done("is down, and was not shut down cleanly".to_owned())),
            None => {
                let shut_down = self.ports.instance.release().await?;
                Ok(Step::Working(format!("is shut down at {}", shut_down.end)))
            }
        }
    }

    async fn stay_down(&self) -> Outcome<Step> {
        match *self.instance.borrow() {
            Instance::Down { .. } | Instance::Absent => {
                return Ok(Step::Done("is down".to_owned()));
            }
            _ => {}
        }
        self.ports.instance.stop().await?;
        Ok(Step::Working("stops".to_owned()))
    }
}

/// A failure in one line, with what it lists.
pub(super) fn told(failure: &lifeboat_telemetry::Failure) -> String {
    let mut text = failure.full_message();
    for line in failure.detail_lines() {
        text.push_str("; ");
        text.push_str(line);
    }
    text
}
