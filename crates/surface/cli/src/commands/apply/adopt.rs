//! `lifeboat apply --adopt`: an epoch above all, where the store came back with an older one.

use lifeboat_drivers::{EpochArchive, RepositoryEpochs};
use lifeboat_environment::{SystemTimer, Timer};
use lifeboat_failover::{Adoption, Elsewhere, Seen, Service, adopt, adoption, withdraw};
use lifeboat_quorum::{EpochRecord, FenceProof};
use lifeboat_telemetry::{Code, Failure, Outcome, duration};

use super::{AppliedService, Args, allowed};
use crate::context::Context;
use crate::control::{Control, FENCE_STATEMENT, Sight, person};

const HINT: &str = "Somebody else is at work on it: see `lifeboat status`, then run it again.";

/// What an adoption acts through.
pub(super) struct Adopter<'a> {
    pub(super) args: &'a Args,
    pub(super) context: &'a Context,
    pub(super) control: &'a Control,
    pub(super) epochs: &'a RepositoryEpochs,
}

impl Adopter<'_> {
    /// The old epoch is taken away and its lease waited out; then the new one begins, in the
    /// repositories first. Safe to repeat wherever it ended.
    pub(super) fn adopt(
        &self,
        service: &Service,
        mut sight: Sight,
        elsewhere: &Elsewhere,
    ) -> Outcome<AppliedService> {
        let Self { args, context, control, epochs } = self;
        let least = self.record(&sight, service)?.value.epoch;
        let whom = allowed(args, adoption(service, elsewhere, least, args.to.as_ref())?)?;
        if args.dry_run {
            return Ok(AppliedService::new(service, &whom));
        }
        let record = self.record(&sight, service)?;
        control.commit(withdraw(service, &control.keys, &record)?, HINT)?;
        self.wait_out(service, &mut sight)?;
        let record = self.record(&sight, service)?;
        let at = context.environment.clock().now();
        let proof = self.proof(&whom);
        let (next, transaction) = adopt(service, &control.keys, &record, &whom, proof, at)?;
        control.runtime.block_on(epochs.record(&service.name, &next))?;
        control.commit(transaction, HINT)?;
        Ok(AppliedService::new(service, &whom))
    }

    fn record(&self, sight: &Sight, service: &Service) -> Outcome<Seen<EpochRecord>> {
        sight.view(self.control, service)?.record.ok_or_else(|| {
            Failure::new(Code::MoveRefused, format!("{} has no epoch any more", service.name))
                .hint(HINT)
        })
    }

    /// Whoever held the old epoch cannot write when this returns.
    fn wait_out(&self, service: &Service, sight: &mut Sight) -> Outcome<()> {
        let Self { control, context, .. } = self;
        let lease = duration(service.timing.lease);
        context.reporter.note(format!("{}: waits out a lease of {lease}", service.name));
        loop {
            control.read_again(sight)?;
            let view = sight.view(control, service)?;
            let now = SystemTimer.elapsed();
            let over = |database| view.waiter(database).is_over(&service.timing, now);
            if service.databases.keys().all(over) {
                return Ok(());
            }
            context.cancel.check()?;
            control.runtime.block_on(async { SystemTimer.sleep(control.poll()).await });
        }
    }

    fn proof(&self, whom: &Adoption) -> FenceProof {
        match whom.moves {
            true => FenceProof::Person {
                name: person(self.context),
                statement: FENCE_STATEMENT.to_owned(),
            },
            false => FenceProof::LeaseOver {
                waited_ms: u64::try_from(self.control.timing.lease.as_millis()).unwrap_or(u64::MAX),
            },
        }
    }
}
