//! Objectives that the spec cannot reach, each with its arithmetic.

use super::{Remarks, database_path};
use crate::finding::{Path, Severity};
use crate::spec::{Database, Engine, OnLoss, Service, WalMode, default_flush_every};
use crate::{Spec, TimeSpan};

pub(super) fn check(spec: &Spec, remarks: &mut Remarks<'_, '_>) {
    if spec.regions.len() == 1 {
        remarks.add(
            Severity::Objective,
            &Path::from(["regions"]),
            "1 region: whatever destroys it destroys the backups too".to_owned(),
            "Add a second region with a repository of its own.",
        );
    }
    for (name, service) in &spec.services {
        let Some(objectives) = spec.objectives(service) else {
            continue;
        };
        for (database, settings) in &service.databases {
            let path = database_path(name, database);
            let mut check = Check { rpo: objectives.rpo, path, service, remarks };
            match settings.engine {
                Engine::Postgres | Engine::Patroni => check.wal(settings),
                Engine::Redshift => check.snapshots(settings),
                // RDS ships its log by itself; the snapshots do not bound the loss.
                Engine::Rds => {}
            }
        }
    }
}

/// One database against the RPO of its service.
struct Check<'a, 'b, 'c> {
    rpo: TimeSpan,
    path: Path,
    service: &'a Service,
    remarks: &'a mut Remarks<'b, 'c>,
}

impl Check<'_, '_, '_> {
    fn add(&mut self, keys: &[&str], message: String, hint: &str) {
        let path = keys.iter().fold(self.path.clone(), |path, key| path.join(key));
        self.remarks.add(Severity::Objective, &path, message, hint);
    }

    fn snapshots(&mut self, database: &Database) {
        let Some(snapshots) = &database.snapshots else {
            return;
        };
        let (rpo, every) = (self.rpo, snapshots.every);
        if rpo < every {
            self.add(
                &["snapshots", "every"],
                format!("rpo {rpo} < snapshots.every {every}: up to {every} of work can be lost"),
                &format!("Take snapshots every {rpo} or give the service another tier."),
            );
        }
    }

    fn wal(&mut self, database: &Database) {
        match (database.wal.mode, self.rpo) {
            (WalMode::Archive, TimeSpan::ZERO) => self.add(
                &["wal", "mode"],
                "rpo 0s, but wal.mode archive ships a segment only after it is full or `every` \
                 has passed: commits since then can be lost"
                    .to_owned(),
                "Set `wal: { mode: stream, receivers: […], acknowledge: { remote: 1 } }`, or give \
                 the service another tier.",
            ),
            (WalMode::Archive, _) => self.archive(database),
            (WalMode::Stream, TimeSpan::ZERO) => self.zero_loss(database),
            (WalMode::Stream, _) => self.stream(database),
        }
    }

    fn archive(&mut self, database: &Database) {
        let rpo = self.rpo;
        match database.wal.every {
            None => self.add(
                &["wal", "every"],
                format!(
                    "rpo {rpo}, but without wal.every nothing bounds how long a commit waits in a \
                     segment that is not full"
                ),
                &format!("Set `wal.every` to {rpo} or less, and archive_timeout to the same."),
            ),
            Some(every) if rpo < every => self.add(
                &["wal", "every"],
                format!("rpo {rpo} < wal.every {every}: up to {every} of work can be lost"),
                &format!("Set `wal.every` to {rpo} or less."),
            ),
            Some(_) => {}
        }
    }

    fn stream(&mut self, database: &Database) {
        let rpo = self.rpo;
        let flush = database.wal.flush_every.unwrap_or_else(|| default_flush_every(rpo));
        if rpo < flush {
            self.add(
                &["wal", "flush_every"],
                format!("rpo {rpo} < wal.flush_every {flush}: up to {flush} of work can be lost"),
                &format!("Set `wal.flush_every` to {rpo} or less."),
            );
        }
    }

    fn zero_loss(&mut self, database: &Database) {
        let Some(acknowledge) = &database.wal.acknowledge else {
            self.add(
                &["wal", "acknowledge"],
                "rpo 0s, but without wal.acknowledge a commit waits for no other region".to_owned(),
                "Set `acknowledge: { remote: 1 }`.",
            );
            return;
        };
        let home = &self.service.home;
        if acknowledge.remote == 0 {
            self.add(
                &["wal", "acknowledge", "remote"],
                format!("rpo 0s, but remote: 0 waits for no receiver outside region `{home}`"),
                "Set `remote` to 1 or more.",
            );
        }
        if let OnLoss::DegradeAfter(wait) = acknowledge.on_loss {
            self.add(
                &["wal", "acknowledge", "on_loss"],
                format!(
                    "rpo 0s, but {wait} after the last receiver is lost commits no longer wait: \
                     from then on they can be lost"
                ),
                "Set `on_loss: block`, or give the service another tier.",
            );
        }
    }
}
