//! Enrolling a host: a certificate for its key, and bindings for its databases.

use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::binding::{Binding, BindingBody};
use crate::ids::Incarnation;
use crate::keys::{CertificateBody, VaultSecrets, WriterKey, WriterStream};
use crate::layout;
use crate::object::ObjectType;
use crate::regions::Regions;
use crate::repository::encode_body;

/// Somebody else may take numbers at the same time; more than this is no coincidence.
const ATTEMPTS: u32 = 16;

/// Makes a key for this host and certifies it in every region that answers.
pub async fn enroll(
    environment: &Environment,
    regions: &mut Regions,
    secrets: &VaultSecrets,
    label: &str,
) -> Outcome<WriterKey> {
    let writer = WriterKey::create(environment, secrets.vault(), label);
    let body = CertificateBody {
        public_key: writer.public()?,
        label: label.to_owned(),
        issued_at: environment.clock().now(),
    };
    let mut number = 0;
    for repository in regions.all() {
        number = repository.next_key_number("writer-").await?.max(number);
    }
    let root = secrets.root()?;
    for number in number..number + ATTEMPTS {
        let key = layout::certificate(number)?;
        let kind = ObjectType::Certificate;
        let bytes = encode_body(secrets.vault(), &key, kind, &body, Some(&root))?;
        match regions.create_verified(&key, &bytes).await {
            Ok(()) => return Ok(writer),
            Err(failure) if failure.code() == Code::ObjectConflict => {}
            Err(failure) => return Err(failure.within("certifying this host's writer key")),
        }
    }
    Err(Failure::new(Code::ObjectConflict, "no free number for a certificate was found"))
}

/// The newest binding of a database that any region knows.
pub async fn newest_binding(regions: &Regions, database: &str) -> Outcome<Option<Binding>> {
    Ok(regions.bindings(database).await?.pop())
}

/// Binds a database to a cluster: the stream that exists, or the first one. A second, different
/// cluster for a bound database is refused.
pub async fn bind(
    environment: &Environment,
    regions: &mut Regions,
    secrets: &VaultSecrets,
    database: &str,
    system_identifier: u64,
) -> Outcome<WriterStream> {
    if let Some(binding) = newest_binding(regions, database).await? {
        let bound = binding.body.system_identifier;
        if bound != system_identifier {
            let message = format!(
                "{database} is bound to the cluster {bound}, this one is {system_identifier}",
            );
            return Err(Failure::new(Code::BindingConflict, message)
                .hint("Give the other cluster a database of its own in the spec."));
        }
        return Ok(writer_stream(secrets, &binding));
    }
    let incarnation = Incarnation::FIRST;
    grant(environment, regions, secrets, database, (system_identifier, incarnation), 0).await
}

/// Grants an incarnation: from now on it alone may write; all earlier ones are refused. As many
/// numbers as bindings are `lost` here stay free: a region that is away may have them.
pub async fn grant(
    environment: &Environment,
    regions: &mut Regions,
    secrets: &VaultSecrets,
    database: &str,
    (system_identifier, incarnation): (u64, Incarnation),
    lost: u32,
) -> Outcome<WriterStream> {
    let newest = newest_binding(regions, database).await?;
    let number = newest.map_or(1, |newest| newest.number + 1).saturating_add(lost);
    let body = BindingBody {
        database: database.to_owned(),
        system_identifier,
        incarnation,
        stream: secrets.stream(system_identifier, incarnation).stream(),
        granted_at: environment.clock().now(),
    };
    let key = layout::binding(database, number)?;
    let root = secrets.root()?;
    let bytes = encode_body(secrets.vault(), &key, ObjectType::Binding, &body, Some(&root))?;
    regions.create_verified(&key, &bytes).await.map_err(|failure| {
        if failure.code() == Code::ObjectConflict {
            return failure.hint("Somebody bound this database just now: run the command again.");
        }
        failure.within(format!("binding {database}"))
    })?;
    Ok(writer_stream(secrets, &Binding { number, body }))
}

fn writer_stream(secrets: &VaultSecrets, binding: &Binding) -> WriterStream {
    WriterStream {
        system_identifier: binding.body.system_identifier,
        incarnation: binding.body.incarnation,
        binding: binding.number,
        keys: secrets.stream_keys(binding.body.stream),
    }
}
