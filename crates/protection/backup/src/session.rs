//! Claiming a writer session: a number that no other backup of this database has.

use std::collections::BTreeSet;

use lifeboat_environment::Environment;
use lifeboat_repository::binding;
use lifeboat_repository::crypt::SigningKey;
use lifeboat_repository::ids::StreamId;
use lifeboat_repository::layout;
use lifeboat_repository::regions::Regions;
use lifeboat_repository::session::{SESSION_LIFE, SessionBody, epoch_of, manifest_name};
use lifeboat_telemetry::{Code, Failure, Outcome};

/// Somebody else may take numbers at the same time; more than this is no coincidence.
const ATTEMPTS: u32 = 16;

/// Creates the session object under the next free epoch in every region; returns the name of the
/// manifest that this backup will create.
pub async fn claim(
    environment: &Environment,
    regions: &mut Regions,
    database: &str,
    stream: StreamId,
    writer: &str,
    signer: &SigningKey,
) -> Outcome<String> {
    let mut epoch = highest_epoch(regions, database, stream).await? + 1;
    for _ in 0..ATTEMPTS {
        let now = environment.clock().now();
        let session = SessionBody {
            manifest: manifest_name(epoch),
            writer: writer.to_owned(),
            started_at: now,
            expires_at: now + SESSION_LIFE,
        };
        let (key, bytes) = session.encode(regions.vault().id, stream, signer)?;
        match regions.create(&key, &bytes).await {
            Ok(()) => return Ok(session.manifest),
            Err(failure) if failure.code() == Code::ObjectConflict => epoch += 1,
            Err(failure) => return Err(failure.within("claiming a writer session")),
        }
    }
    Err(Failure::new(Code::BackupRunning, "no free session number was found")
        .hint("Many backups of this database start at once: look for a runaway schedule."))
}

/// The highest epoch that any region knows, of sessions and of manifests, over all incarnations of
/// the database: a backup's name is never given out twice.
async fn highest_epoch(regions: &mut Regions, database: &str, stream: StreamId) -> Outcome<u32> {
    let found = regions.ask(async |repository| repository.found_bindings(database).await);
    let bindings = binding::merge(found.await?)?;
    let mut streams = BTreeSet::from([stream]);
    streams.extend(bindings.iter().map(|binding| binding.body.stream));
    let highest = regions.ask(async |repository| {
        let mut highest = 0;
        for prefix in streams.iter().flat_map(|stream| {
            ["sessions/", "manifests/"].map(|folder| layout::stream(*stream) + folder)
        }) {
            let keys = repository.store().list(&prefix).await?;
            let names = keys.iter().filter_map(|(key, _)| key.as_str().strip_prefix(&prefix));
            highest = names.filter_map(epoch_of).max().unwrap_or(0).max(highest);
        }
        Ok(highest)
    });
    Ok(highest.await?.into_iter().max().unwrap_or(0))
}
