//! A switchover goes back: the old primary serves again, in the same epoch, on its timeline.

use std::time::Duration;

use lifeboat_quorum::{EpochState, Goal, Return, Transition};
use lifeboat_workflow::Change;

use super::{Next, Turn, write};
use crate::{Writes, names};

/// How long the old primary may take to be back before the run ends without it.
const PATIENCE: Duration = Duration::from_secs(60);

impl Turn<'_> {
    /// Fails the step; a switchover goes back by itself, anything else waits for a person.
    pub(super) fn fail(&self, why: impl Into<String>) -> Next {
        let why = why.into();
        match self.run.can_go_back() {
            true => self.turn_back(why),
            false => write(Writes::new(Change::Failed, why)),
        }
    }

    /// Begins to go back: the record says `serving` again, and the old primary is to be one.
    fn turn_back(&self, why: String) -> Next {
        let writes = self.restart_old(Writes::new(Change::Aborting, why));
        match self.record.value.state {
            EpochState::Releasing => self.change(Transition::Resume, writes),
            _ => write(writes),
        }
    }

    fn restart_old(&self, writes: Writes) -> Writes {
        let record = &self.record.value;
        let writes = self.order_nodes(writes, &record.holders, |database| Goal::Primary {
            required: None,
            synchronous_standby_names: names(self.service, database, &record.synchronous),
        });
        self.followers(writes, Return::AsItIs)
    }

    /// Looks whether it is back.
    pub(super) fn go_back(&self) -> Next {
        if self.record.value.state == EpochState::Releasing {
            // A person aborted it: the journal came first.
            let why = self.run.journal.last().map(|entry| entry.evidence.clone());
            return self.turn_back(why.unwrap_or_default());
        }
        let missing: Vec<String> = (self.record.value.holders.iter())
            .filter(|(database, node)| !self.serves(database, node))
            .map(|(_, node)| node.to_string())
            .collect();
        let waited = self.now.saturating_sub(self.observed);
        let evidence = match (missing.as_slice(), waited < PATIENCE) {
            ([], _) => "the old primary serves again, on its timeline".to_owned(),
            (missing, true) => {
                return Next::Wait(format!("goes back: waits for {}", missing.join(", ")));
            }
            (missing, false) => format!("{} did not come back", missing.join(", ")),
        };
        self.change(Transition::Finish, Writes::new(Change::Aborted, evidence))
    }
}
