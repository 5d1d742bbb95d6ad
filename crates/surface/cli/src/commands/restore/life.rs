//! Which life of the database a restore reads.

use lifeboat_model::RecoveryTarget;
use lifeboat_repository::access::Access;
use lifeboat_repository::binding::Binding;
use lifeboat_repository::keys::VaultSecrets;
use lifeboat_repository::layout;
use lifeboat_repository::regions::Regions;
use lifeboat_restore::{RestoreContext, RestorePlan, RestoreRequest, Source};
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::commands::lives;
use crate::context::Context;

/// Plans from the newest life of the database that leads to the target.
pub(super) fn plan(
    request: &RestoreRequest,
    context: &Context,
    access: &Access<'_>,
    regions: &Regions,
    secrets: &VaultSecrets,
) -> Outcome<(RestorePlan, Source)> {
    let mut failures: Vec<(u64, Failure)> = Vec::new();
    for life in lives::of(access, regions, &request.database)?.into_iter().rev() {
        let source = source(&life, context, access, regions, secrets);
        match lifeboat_restore::plan(request, within(context, &source), regions) {
            Ok(mut plan) => {
                plan.notes.extend(failures.iter().map(|(number, failure)| {
                    format!("an earlier life is read, for life {number} cannot serve: {failure}")
                }));
                return Ok((plan, source));
            }
            Err(failure) if is_elsewhere(failure.code()) => {
                failures.push((life.body.incarnation.0, failure));
            }
            Err(failure) => return Err(failure),
        }
        // The end of an earlier life is not the newest state, once this one was backed up.
        let ends = matches!(request.target, RecoveryTarget::Latest | RecoveryTarget::Immediate);
        if ends && request.timeline.is_none() && has_backups(&life, access, regions)? {
            break;
        }
    }
    let newest = failures.into_iter().next().map(|(_, failure)| failure);
    Err(newest.unwrap_or_else(|| {
        Failure::new(Code::NoBackup, format!("there is no backup of {}", request.database))
            .hint("Is it the right database, and the right spec? `lifeboat repo stats` shows all.")
    }))
}

/// Whether any region has a backup of this life, be it a damaged one.
fn has_backups(life: &Binding, access: &Access<'_>, regions: &Regions) -> Outcome<bool> {
    let prefix = format!("{}manifests/", layout::stream(life.body.stream));
    for repository in regions.all() {
        if !access.blocking.run(repository.store().list(&prefix))?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// An earlier life may have what this one lacks.
fn is_elsewhere(code: Code) -> bool {
    matches!(code, Code::TargetUnreachable | Code::NoBackup | Code::BackupMissing)
}

fn source(
    life: &Binding,
    context: &Context,
    access: &Access<'_>,
    regions: &Regions,
    secrets: &VaultSecrets,
) -> Source {
    Source::new(
        access.blocking.clone(),
        regions,
        secrets.stream_keys(life.body.stream),
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
