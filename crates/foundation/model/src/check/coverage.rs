//! NOT PROTECTED YET: what a spec asks for and this version does not do.
//!
//! A feature that arrives moves its rows from [`NOT_YET`] to [`ACTS_ON`].

use super::{Match, compare, is, walk};
use crate::finding::{Findings, Path, Severity};
use crate::tree::{Node, Value};

/// What this version acts on, with all that lies below unless [`NOT_YET`] names it.
pub(crate) const ACTS_ON: [&str; 19] = [
    "lifeboat",
    "state",
    "regions.*.repository",
    "encryption",
    "tiers.*",
    "services.*.tier",
    "services.*.home",
    "services.*.standby",
    "services.*.rto",
    "services.*.rpo",
    "services.*.databases.*.engine",
    "services.*.databases.*.nodes.*",
    "services.*.databases.*.backup",
    "services.*.databases.*.wal",
    "services.*.databases.*.endpoint",
    "services.*.traffic.[]",
    "services.*.failover",
    "witness",
    "quorum",
];

/// What it does not act on. `KEY=VALUE` means only that value.
const NOT_YET: [(&str, &str); 28] = [
    ("people.*", "nobody's role or approval is checked"),
    ("alerts.channels.[]", "nobody is told: watch exit codes and `lifeboat status`"),
    ("alerts.rules", "nothing is measured against these limits"),
    ("regions.*.repository.classes", "all data stays in the store's default class"),
    ("encryption.slots.[].kms", "this slot is not made and opens nothing"),
    ("encryption.slots.[].command", "this slot is not made and opens nothing"),
    ("services.*.strategy", "nothing but the data is prepared in the other region"),
    ("services.*.depends_on", "services are not started in this order"),
    ("services.*.configuration", "these files are not backed up"),
    ("services.*.buckets.*", "the bucket is neither copied nor kept nor restored"),
    ("services.*.tables.*", "the table is neither copied nor kept nor restored"),
    ("services.*.workloads.*", "the workload is neither started nor scaled nor watched"),
    ("services.*.traffic.[].driver=route53", "the record is not changed when the service moves"),
    ("services.*.traffic.[].driver=cloudflare", "the record is not changed when the service moves"),
    ("services.*.traffic.[].token", "nothing is told to Cloudflare"),
    ("services.*.failover.approvals", "nobody is asked before it moves"),
    ("services.*.failover.approve", "nobody is asked before a step"),
    ("services.*.drills.[]", "this is not rehearsed"),
    ("services.*.databases.*.engine=patroni", "a Patroni cluster is not backed up"),
    ("services.*.databases.*.engine=rds", "an RDS database is not backed up"),
    ("services.*.databases.*.engine=redshift", "a Redshift database is not backed up"),
    ("services.*.databases.*.locations", "nothing is done with what the cloud runs there"),
    ("services.*.databases.*.snapshots", "no snapshot is taken or copied"),
    ("services.*.databases.*.nodes.*.patroni", "Patroni is not asked"),
    ("services.*.databases.*.backup.schedule", "no backup starts by itself: use cron or a timer"),
    ("services.*.databases.*.backup.full_every", "each backup reads every page anyway"),
    ("services.*.databases.*.retention", "nothing expires and nothing is locked"),
    ("services.*.databases.*.verify", "no backup is restored to prove it"),
];

pub(super) fn check(tree: &Node, findings: &mut Findings<'_>) {
    walk(tree, &Path::default(), &mut |path, key, node| {
        let place = key.map_or(node.place, |key| key.place);
        if asks_nothing(node) {
            return false;
        }
        let Some(reason) = not_protected(path, node) else {
            return true;
        };
        if !findings.is_broken(path) {
            let hint = "Protect it by other means until a version does.";
            findings.add(Severity::NotProtected, path, place, reason, hint);
        }
        false
    });
}

/// An empty list or map promises nothing.
fn asks_nothing(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::List(elements) => elements.is_empty(),
        _ => false,
    }
}

/// Why a key is not acted on; `None` if it is, or if it only holds keys that are.
pub(crate) fn not_protected(path: &Path, node: &Node) -> Option<&'static str> {
    let said = |value: &str| matches!(&node.value, Value::Text(text) if text == value);
    let row = NOT_YET.iter().find(|(pattern, _)| match pattern.split_once('=') {
        Some((pattern, value)) => is(path, pattern) && said(value),
        None => is(path, pattern),
    });
    if let Some((_, reason)) = row {
        return Some(reason);
    }
    let known = ACTS_ON.iter().chain(NOT_YET.iter().map(|(pattern, _)| pattern));
    let leads_somewhere = known
        .map(|pattern| pattern.split_once('=').map_or(*pattern, |(pattern, _)| pattern))
        .any(|pattern| compare(path, pattern) != Match::Apart);
    (!leads_somewhere).then_some("this version does nothing with this key")
}
