//! Carrying a plan out: each value is read back, and a value that does not hold is taken back.

use std::time::Duration;

use lifeboat_environment::Environment;
use lifeboat_model::Lsn;
use lifeboat_objects::Blocking;
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::plan::{Plan, Standing, Way};
use super::rule::Rule;
use super::survey::{broken, names};
use crate::connect::Connection;
use crate::senders::{flushed_here, senders};

const POLL: Duration = Duration::from_millis(100);
/// Servers read their configuration within milliseconds; a busy one gets more.
const PATIENCE: Duration = Duration::from_secs(15);

/// Something that wants to be seen: a commit that waits for nobody, for it must not hang here.
const MARK: &str = "
    BEGIN; SET LOCAL synchronous_commit = local;
    SELECT pg_logical_emit_message(true, 'lifeboat', 'acknowledge'); COMMIT";

/// A server that is being changed.
pub struct Change<'a> {
    /// Time.
    pub environment: &'a Environment,
    /// Runs what waits.
    pub blocking: &'a Blocking,
    /// The writing server.
    pub connection: &'a Connection,
}

impl Change<'_> {
    /// Carries a plan out. Returns the position from which on commits are protected by its rule.
    pub fn apply(&self, plan: &Plan) -> Outcome<Lsn> {
        match plan.way {
            Way::Protect => self.protect(plan)?,
            Way::Restore => self.set(&plan.after)?,
            Way::Reset => self.reset(&plan.after)?,
        }
        self.blocking.run(flushed_here(self.connection))
    }

    fn protect(&self, plan: &Plan) -> Outcome<()> {
        self.prove(plan)?;
        let mut held = plan.before.clone();
        for value in plan.between.iter().chain([&plan.after]) {
            let verified = self.set(value).and_then(|()| {
                self.environment.failpoints().hit("acknowledge.set")?;
                self.verify(value, &plan.receivers)
            });
            if let Err(failure) = verified {
                // Better unprotected as before than a server in which every commit waits.
                match held == plan.before && !plan.by_alter_system {
                    true => self.reset(&held)?,
                    false => self.set(&held)?,
                }
                let now = if held.is_empty() { "empty" } else { &held };
                return Err(failure.within(format!("synchronous_standby_names is {now} again")));
            }
            held.clone_from(value);
            if plan.between.as_ref() == Some(value) {
                // The new ones have all that the old ones have, before those are let go.
                self.prove(plan)?;
            }
        }
        Ok(())
    }

    fn reset(&self, expected: &str) -> Outcome<()> {
        self.alter("ALTER SYSTEM RESET synchronous_standby_names", expected)
    }

    fn set(&self, value: &str) -> Outcome<()> {
        let literal = value.replace('\'', "''");
        let command = format!("ALTER SYSTEM SET synchronous_standby_names = '{literal}'");
        self.alter(&command, value)
    }

    /// Changes the setting, reloads, and waits until the server says that it holds.
    fn alter(&self, command: &str, expected: &str) -> Outcome<()> {
        let connection = self.connection;
        let said = async {
            connection.client().batch_execute(command).await?;
            connection.client().batch_execute("SELECT pg_reload_conf()").await
        };
        self.blocking
            .run(said)
            .map_err(|error| connection.failure_as(Code::ClusterSettings, &error))?;
        let holds = || Ok(self.blocking.run(names(connection))?.value == expected);
        if self.wait(holds)? {
            return Ok(());
        }
        let found = self.blocking.run(names(connection))?;
        let message = format!(
            "after ALTER SYSTEM and a reload, synchronous_standby_names is `{}` from the {}",
            found.value, found.source
        );
        Err(Failure::new(Code::ClusterSettings, message)
            .details(self.blocking.run(broken(connection)))
            .hint("Correct the server's configuration files, then run it again."))
    }

    /// Waits until PostgreSQL itself counts enough receivers as synchronous.
    fn verify(&self, value: &str, receivers: &[Standing]) -> Outcome<()> {
        let Some(rule) = Rule::parse(value) else { return Ok(()) };
        let counted = || {
            let senders = self.blocking.run(senders(self.connection))?;
            let counted = senders.iter().filter(|sender| {
                sender.is_synchronous()
                    && rule.counts(&sender.application_name)
                    // Of receivers, only those that are what their name says.
                    && receivers.iter().all(|one| {
                        one.name != sender.application_name || sender.slot.as_ref() == Some(&one.name)
                    })
            });
            Ok(counted.count() >= rule.needed())
        };
        if self.wait(counted)? {
            return Ok(());
        }
        let message = format!("PostgreSQL does not count enough receivers for {value}");
        Err(Failure::new(Code::AcknowledgeRefused, message)
            .hint("A receiver went away meanwhile: `lifeboat wal status` shows each."))
    }

    /// Sees a commit become durable with enough receivers: what a state says may be a minute old.
    fn prove(&self, plan: &Plan) -> Outcome<()> {
        let needed = Rule::parse(&plan.after).map_or(0, |rule| rule.needed());
        if plan.receivers.is_empty() || needed == 0 {
            return Ok(());
        }
        let mark = self.blocking.run(self.connection.client().batch_execute(MARK));
        mark.map_err(|error| self.connection.failure_as(Code::ClusterSettings, &error))?;
        let mark = self.blocking.run(flushed_here(self.connection))?;
        let durable = || {
            let senders = self.blocking.run(senders(self.connection))?;
            let durable = plan.receivers.iter().filter(|one| {
                senders.iter().any(|sender| {
                    sender.slot.as_ref() == Some(&one.name) && sender.flushed >= Some(mark)
                })
            });
            Ok(durable.count() >= needed)
        };
        if self.wait(durable)? {
            return Ok(());
        }
        let message = format!(
            "fewer than {needed} receivers made WAL up to {mark} durable within {} s",
            PATIENCE.as_secs()
        );
        Err(Failure::new(Code::AcknowledgeRefused, message).hint(
            "They are connected and do not acknowledge: look at their logs and disks. Nothing \
             was changed by this step.",
        ))
    }

    fn wait(&self, mut holds: impl FnMut() -> Outcome<bool>) -> Outcome<bool> {
        let clock = self.environment.clock();
        let end = clock.elapsed().saturating_add(PATIENCE);
        loop {
            if holds()? {
                return Ok(true);
            }
            if clock.elapsed() >= end {
                return Ok(false);
            }
            clock.sleep(POLL);
        }
    }
}
