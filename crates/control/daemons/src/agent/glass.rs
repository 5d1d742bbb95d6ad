//! Writing without a lease, because a person said so while there was no quorum (ADR 0016).
//!
//! The guard's deadline is moved on by the permission instead of the lease, in the same steps and
//! after the same local writes; it ends where the permission does.

use std::time::Duration;

use lifeboat_drivers::Grant;
use lifeboat_quorum::{Instance, Progress, Token};
use lifeboat_telemetry::Outcome;

use super::Agent;
use super::duty::{Step, told};

/// How often it is asked whether somebody has gone on above the permission.
const ASK_EVERY: Duration = Duration::from_secs(30);

impl Agent<'_> {
    /// The permission to write without a lease, while it holds: until it ends, until a higher
    /// epoch is known, until an order of a higher epoch was accepted.
    pub(super) fn grant(&self) -> Option<Grant> {
        let grant = match self.ports.memory.grant() {
            Ok(grant) => grant?,
            Err(failure) => {
                self.note(failure.full_message());
                return None;
            }
        };
        let settings = self.settings;
        let own = grant.service == settings.service.name
            && grant.database == settings.database
            && grant.node == settings.node;
        let live = grant.is_live(&Grant::this_boot(), self.now());
        // A record above it that names this node only has to be taken up by an order.
        let recorded = self.record().is_none_or(|(record, _)| {
            record.epoch < grant.epoch || (record.epoch > grant.epoch && self.is_allowed(&record))
        });
        let heard = self.inquiry.heard().is_none_or(|known| {
            let holder = known.holders.get(&settings.database);
            known.epoch <= grant.epoch || holder == Some(&settings.node)
        });
        let newest = self.accepted.get().epoch <= grant.epoch;
        (own && live && recorded && heard && newest).then_some(grant)
    }

    /// While there is a permission the repositories are asked again and again.
    pub(super) async fn look_out(&self) {
        loop {
            self.ports.timer.sleep(ASK_EVERY).await;
            if self.grant().is_some() {
                self.inquiry.doubt();
            }
        }
    }

    /// Moves the guard's deadline on, as a renewal would.
    pub(super) async fn extend_by_grant(&self, grant: &Grant) {
        if !self.may_count_on_instance().await {
            return;
        }
        let life = self.settings.service.timing.life();
        let deadline = (self.now() + life).min(grant.until());
        self.granted.set(Some(deadline));
        self.live_until(deadline, true).await;
    }

    /// Makes the instance the primary that the permission is for. Durable before anything is done:
    /// nothing below its epoch is carried out any more.
    pub(super) async fn serve_by_grant(&self, grant: &Grant) {
        let token = Token { epoch: grant.epoch, ..Token::default() };
        if self.accepted.get() < token {
            if let Err(failure) = self.ports.memory.remember(token) {
                return self.note(format!("the permission is not used: {failure}"));
            }
            self.accepted.set(token);
            self.inquiry.remember(grant.epoch);
            self.note(format!("writes without a lease, by permission of {}", grant.by));
        }
        let progress = match self.become_primary(grant).await {
            Ok(Step::Done(found)) => {
                let (by, ends) = (&grant.by, grant.ends_at);
                Progress::Done { evidence: format!("{found}, by permission of {by} until {ends}") }
            }
            Ok(Step::Working(doing)) => Progress::Working { doing },
            Err(failure) => Progress::Failed { why: told(&failure) },
        };
        self.set_progress(progress);
    }

    async fn become_primary(&self, grant: &Grant) -> Outcome<Step> {
        let deadline = self.granted.get().filter(|deadline| self.now() < *deadline);
        let Some(deadline) = deadline else {
            return Ok(Step::Working("waits for its deadline".to_owned()));
        };
        let driver = self.ports.instance;
        let instance = self.instance.borrow().clone();
        if let Instance::Standby { streaming, received, replayed, .. } = instance {
            // Nothing more of the old primary, and all that there is (R14).
            driver.follow(None).await?;
            let wanted = grant.required.max(received);
            if streaming || wanted.is_some_and(|wanted| replayed < wanted) {
                return Ok(Step::Working(format!("replays, and is at {replayed}")));
            }
        }
        self.lead(deadline, grant.epoch, grant.required, "").await
    }
}
