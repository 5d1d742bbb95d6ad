//! Entries of the audit log for what commands did. An entry that cannot be written never undoes
//! the act: it is told.

use lifeboat_audit::Act;
use lifeboat_repository::access::Access;
use lifeboat_repository::regions::Regions;

use crate::context::Context;

/// Records an act in the chain of this host's writer key.
pub fn record<'a>(
    context: &Context,
    access: &Access<'_>,
    regions: &mut Regions,
    (act, subject): (&str, String),
    facts: impl IntoIterator<Item = (&'a str, String)>,
) {
    let facts = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let done = Act { act: act.to_owned(), subject, facts };
    let skipped = regions.skipped().len();
    let recorded = access.writer(regions).and_then(|writer| {
        let environment = &context.environment;
        access.blocking.run(lifeboat_audit::record(environment, regions, &writer, done))
    });
    if let Err(failure) = recorded {
        context.reporter.warn(format!("this is not in the audit log: {failure}"));
        return;
    }
    for missed in regions.skipped().iter().skip(skipped) {
        let (region, failure) = (&missed.region, &missed.failure);
        context.reporter.warn(format!("this is not in the audit log of {region}: {failure}"));
    }
}
