//! When a service may be moved without a person.

use lifeboat_quorum::{EpochRecord, EpochState};
use lifeboat_workflow::Kind;

use super::Checks;
use crate::plant::Plant;

impl Checks {
    /// R5: what failed before an epoch served is no reason to end it. Whoever judges has seen it
    /// serve for as long as a service has to fail.
    pub(super) fn look_at_judge(
        &self,
        plant: &Plant,
        before: Option<&EpochRecord>,
        after: &EpochRecord,
    ) {
        let now = plant.sim.now();
        let mut state = self.state.borrow_mut();
        let served = before.is_some_and(|before| {
            before.epoch == after.epoch && before.state == EpochState::Serving
        });
        let since = state.serving.filter(|_| served);
        let serves = after.state == EpochState::Serving;
        state.serving = serves.then(|| since.unwrap_or(now));
        let begun = before.and_then(|before| after.run.filter(|_| before.run.is_none()));
        let plan = begun.and_then(|run| state.plans.get(&run));
        let judged = plan.is_some_and(|plan| plan.kind == Kind::Failover && plan.by != "person");
        // The clocks of some mutants lie about how long anything has lasted.
        if !judged || plant.mutant.is_some() || state.restored {
            return;
        }
        let lasted = now.saturating_sub(since.unwrap_or(now));
        // Clocks differ, by as much as the margin of a lease covers.
        if lasted < plant.tuning.unhealthy * 9 / 10 {
            plant.sim.fail(format!(
                "a controller moves epoch {} after it has served for {lasted:?}, and {:?} are needed",
                after.epoch, plant.tuning.unhealthy
            ));
        }
    }
}
