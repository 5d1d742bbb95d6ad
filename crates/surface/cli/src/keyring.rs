//! Keys of a database's streams, for commands that read what backups and WAL are.

use lifeboat_model::DatabaseId;
use lifeboat_repository::access::Access;
use lifeboat_repository::ids::StreamId;
use lifeboat_repository::keys::{StreamKeys, VaultSecrets, WriterKey};
use lifeboat_repository::regions::Regions;
use lifeboat_telemetry::Outcome;

/// This host's writer key for its own stream; an open slot for every other one.
pub struct Keyring<'a> {
    access: &'a Access<'a>,
    regions: &'a Regions,
    database: String,
    writer: Option<WriterKey>,
    secrets: Option<VaultSecrets>,
}

impl<'a> Keyring<'a> {
    /// The keys for one database; no slot is opened yet.
    pub fn new(access: &'a Access<'a>, regions: &'a Regions, id: &DatabaseId) -> Self {
        let writer = access.writer(regions).ok();
        Self { access, regions, database: id.to_string(), writer, secrets: None }
    }

    /// The keys of a stream.
    pub fn of(&mut self, stream: StreamId) -> Outcome<StreamKeys> {
        let writer = self.writer.as_ref().and_then(|writer| writer.stream(&self.database));
        if let Some(own) = writer.filter(|own| own.keys.stream() == stream) {
            return Ok(own.keys.clone());
        }
        // Stretching a passphrase takes a while: once is enough.
        let secrets = match self.secrets.take() {
            Some(secrets) => secrets,
            None => self.access.secrets(self.regions)?,
        };
        Ok(self.secrets.insert(secrets).stream_keys(stream))
    }
}
