//! Every name that refers to something must refer to something that exists.

use super::{is, walk};
use crate::finding::{Findings, Path, Place};
use crate::reader::{did_you_mean, shorten};
use crate::tree::{Node, Value};

/// Keys whose value is a name from another part of the spec.
const VALUES: [(&str, &str); 8] = [
    ("services.*.tier", "tiers"),
    ("services.*.home", "regions"),
    ("services.*.standby", "regions"),
    ("services.*.depends_on.[]", "services"),
    ("services.*.databases.*.nodes.*.region", "regions"),
    ("services.*.databases.*.wal.receivers.[]", "regions"),
    ("services.*.databases.*.snapshots.copy_to.[]", "regions"),
    ("services.*.failover.approve.*.of.[]", "people"),
];

/// Keys that are themselves such names.
const KEYS: [(&str, &str); 5] = [
    ("services.*.databases.*.locations.*", "regions"),
    ("services.*.buckets.*.locations.*", "regions"),
    ("services.*.tables.*.locations.*", "regions"),
    ("services.*.workloads.*.locations.*", "regions"),
    ("services.*.traffic.[].targets.*", "regions"),
];

pub(super) fn check(tree: &Node, findings: &mut Findings<'_>) {
    let target = |path: &Path, table: &[(&str, &'static str)]| {
        table.iter().find(|(pattern, _)| is(path, pattern)).map(|(_, section)| *section)
    };
    walk(tree, &Path::default(), &mut |path, key, node| {
        if let (Some(section), Some(key)) = (target(path, &KEYS), key) {
            check_name(&key.text, section, path, key.place, tree, findings);
        }
        if let (Some(section), Value::Text(name)) = (target(path, &VALUES), &node.value) {
            check_name(name, section, path, node.place, tree, findings);
        }
        true
    });
}

fn check_name(
    name: &str,
    section: &str,
    path: &Path,
    place: Place,
    tree: &Node,
    findings: &mut Findings<'_>,
) {
    let declared = tree.get(section);
    if declared.is_some_and(|declared| declared.get(name).is_some())
        || findings.is_broken(path)
        || findings.is_broken(&Path::from([section])) && declared.is_none()
    {
        return;
    }
    let known: Vec<&str> = declared
        .map(Node::entries)
        .unwrap_or_default()
        .iter()
        .map(|(key, _)| key.text.as_str())
        .collect();
    let message = format!("`{section}` has no `{}`", shorten(name));
    let title = format!("`{section}` has");
    findings.error(path, place, message, did_you_mean(name, &known, &title));
}
