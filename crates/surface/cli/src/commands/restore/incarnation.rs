//! Which incarnation of the database a restore reads.

use lifeboat_model::RecoveryTarget;
use lifeboat_repository::access::Access;
use lifeboat_repository::binding::BindingBody;
use lifeboat_repository::ids::StreamId;
use lifeboat_repository::keys::VaultSecrets;
use lifeboat_repository::regions::Regions;
use lifeboat_restore::{RestoreContext, RestorePlan, RestoreRequest, Source};
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::commands::incarnations;
use crate::context::Context;

/// An incarnation that a restore may read.
struct Candidate {
    body: BindingBody,
    /// Its newest backup, be it a damaged one.
    newest_backup: Option<String>,
    /// Whether a binding names it.
    bound: bool,
}

/// Plans from the newest incarnation of the database that leads to the target.
pub(super) fn plan(
    request: &RestoreRequest,
    context: &Context,
    access: &Access<'_>,
    regions: &Regions,
    secrets: &VaultSecrets,
) -> Outcome<(RestorePlan, Source)> {
    let mut failures: Vec<(u64, Failure)> = Vec::new();
    for candidate in candidates(&request.database, access, regions, secrets)?.into_iter().rev() {
        let number = candidate.body.incarnation.0;
        let source = source(candidate.body.stream, context, access, regions, secrets);
        match lifeboat_restore::plan(request, within(context, &source), regions) {
            Ok(mut plan) => {
                plan.notes.extend(failures.iter().map(|(newer, failure)| {
                    format!(
                        "incarnation {number} is read, an older one: incarnation {newer} cannot \
                         serve: {failure}"
                    )
                }));
                if !candidate.bound {
                    plan.notes.push(format!(
                        "no binding names incarnation {number}: it is lost here, and no other \
                         region answers; its backups say that they are of {}",
                        request.database
                    ));
                }
                return Ok((plan, source));
            }
            Err(failure) if is_elsewhere(failure.code()) => failures.push((number, failure)),
            Err(failure) => return Err(failure),
        }
        // The end of an older incarnation is not the newest state, once this one was backed up.
        let ends = matches!(request.target, RecoveryTarget::Latest | RecoveryTarget::Immediate);
        if ends && request.timeline.is_none() && candidate.newest_backup.is_some() {
            break;
        }
    }
    let newest = failures.into_iter().next().map(|(_, failure)| failure);
    Err(newest.unwrap_or_else(|| {
        Failure::new(Code::NoBackup, format!("there is no backup of {}", request.database))
            .hint("Is it the right database, and the right spec? `lifeboat repo stats` shows all.")
    }))
}

/// All incarnations, oldest first. Those whose binding is lost stand where their backups say.
fn candidates(
    database: &str,
    access: &Access<'_>,
    regions: &Regions,
    secrets: &VaultSecrets,
) -> Outcome<Vec<Candidate>> {
    let mut all = Vec::new();
    for binding in incarnations::of(access, regions, database)? {
        let newest_backup = incarnations::newest_backup(access, regions, binding.body.stream)?;
        all.push(Candidate { body: binding.body, newest_backup, bound: true });
    }
    for (newest, body) in incarnations::unbound(access, regions, secrets, database)? {
        let is_older =
            |one: &Candidate| one.newest_backup.as_ref().is_some_and(|other| *other < newest);
        let place = all.iter().rposition(is_older).map_or(0, |place| place + 1);
        all.insert(place, Candidate { body, newest_backup: Some(newest), bound: false });
    }
    Ok(all)
}

/// An older incarnation may have what this one lacks.
fn is_elsewhere(code: Code) -> bool {
    matches!(code, Code::TargetUnreachable | Code::NoBackup | Code::BackupMissing)
}

fn source(
    stream: StreamId,
    context: &Context,
    access: &Access<'_>,
    regions: &Regions,
    secrets: &VaultSecrets,
) -> Source {
    Source::new(
        access.blocking.clone(),
        regions,
        secrets.stream_keys(stream),
        secrets.read_key(),
        context.reporter.clone(),
    )
}

/// What a restore works with.
pub(super) fn within<'a>(context: &'a Context, source: &'a Source) -> RestoreContext<'a> {
    RestoreContext {
        environment: &context.environment,
        source,
        reporter: &context.reporter,
        cancel: &context.cancel,
    }
}
