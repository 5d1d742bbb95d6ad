//! The end of a backup: the commit point, and the entry in the audit log.

use std::collections::BTreeMap;

use lifeboat_audit::Act;
use lifeboat_repository::ids::Digest;
use lifeboat_repository::manifest::{Description, Manifest, ManifestBody, Predecessor};
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::describe;
use crate::run::BackupContext;

/// Creates the manifest in every region; what it names is durable there.
pub fn write_manifest(
    context: &BackupContext<'_>,
    regions: &mut Regions,
    name: &str,
    object_table: Vec<Digest>,
    description: &Description,
) -> Outcome<()> {
    let keys = &context.stream.keys;
    let manifests = context.blocking.run(regions.nearest().manifests(keys.stream()))?.sound;
    let predecessor = manifests
        .last()
        .map(|last| Predecessor { name: last.body.name.clone(), digest: last.digest });
    let body = ManifestBody {
        name: name.to_owned(),
        predecessor,
        committed_at: context.environment.clock().now(),
        object_table,
        wal: describe::wal_names(&description.wal, description.cluster.wal_segment_bytes)?,
        sealed: String::new(),
    };
    let signer = context.writer.signing()?;
    let (key, bytes) = Manifest::encode(keys, context.environment, &signer, body, description)?;
    context.blocking.run(regions.create_verified(&key, &bytes)).map_err(|failure| {
        if failure.code() != Code::ObjectConflict {
            return failure.within("committing the backup");
        }
        // The maintainer put a tombstone there after the session had expired.
        Failure::new(Code::SessionRevoked, format!("the session of backup {name} was ended"))
            .because(failure)
            .hint("It ran longer than 24 hours or was stopped for so long; take it again.")
    })
}

/// Records the backup. It exists already: a log that cannot be written is only warned of.
pub fn record(
    context: &BackupContext<'_>,
    regions: &mut Regions,
    name: &str,
    description: &Description,
) {
    let facts = [
        ("backup", name.to_owned()),
        ("start", description.wal.start.to_string()),
        ("stop", description.wal.stop.to_string()),
        ("stored_bytes", description.sizes.stored_bytes.to_string()),
    ];
    let done = Act {
        act: "backup".to_owned(),
        subject: description.database.clone(),
        facts: BTreeMap::from(facts.map(|(name, value)| (name.to_owned(), value))),
    };
    let recorded = lifeboat_audit::record(context.environment, regions, context.writer, done);
    if let Err(failure) = context.blocking.run(recorded) {
        context.reporter.warn(format!("the audit log could not be written: {failure}"));
    }
}
