//! What no single key shows: the spec as a whole.

mod consistency;
pub(crate) mod coverage;
mod objectives;
mod references;
mod safety;

use crate::finding::{Findings, Path, Severity};
use crate::tree::{Key, Node};
use crate::{DatabaseName, ServiceName, Spec};

/// Adds all findings about a spec whose keys could be read, as far as they could.
pub(crate) fn all(spec: &Spec, tree: &Node, findings: &mut Findings<'_>) {
    let mut remarks = Remarks { tree, findings };
    references::check(tree, remarks.findings);
    consistency::check(spec, &mut remarks);
    safety::check(spec, &mut remarks);
    objectives::check(spec, &mut remarks);
    coverage::check(tree, remarks.findings);
}

/// Findings about keys that are found by their path.
struct Remarks<'a, 'b> {
    tree: &'a Node,
    findings: &'a mut Findings<'b>,
}

impl Remarks<'_, '_> {
    /// Adds a finding, unless it only follows from an error at the same key.
    fn add(&mut self, severity: Severity, path: &Path, message: String, hint: &str) {
        if !self.findings.is_broken(path) {
            let place = self.tree.locate(path);
            self.findings.add(severity, path, place, message, hint);
        }
    }

    /// Adds an error.
    fn error(&mut self, path: &Path, message: impl Into<String>, hint: &str) {
        self.add(Severity::Error, path, message.into(), hint);
    }
}

fn service_path(service: &ServiceName) -> Path {
    Path::from(["services"]).join(service)
}

fn database_path(service: &ServiceName, database: &DatabaseName) -> Path {
    service_path(service).join("databases").join(database)
}

/// Visits every key and list element below a node, parents first; `visit` says whether to go on
/// below.
fn walk(node: &Node, path: &Path, visit: &mut dyn FnMut(&Path, Option<&Key>, &Node) -> bool) {
    for (key, value) in node.entries() {
        let path = path.join(&key.text);
        if visit(&path, Some(key), value) {
            walk(value, &path, visit);
        }
    }
    for (position, value) in node.elements().iter().enumerate() {
        let path = path.item(position);
        if visit(&path, None, value) {
            walk(value, &path, visit);
        }
    }
}

/// How a path relates to a pattern such as `services.*.traffic.[].targets`: `*` stands for any
/// key, `[]` for any list element.
#[derive(Debug, PartialEq, Eq)]
enum Match {
    /// It is what the pattern names, or lies below.
    Within,
    /// It leads there.
    Above,
    /// Neither.
    Apart,
}

fn compare(path: &Path, pattern: &str) -> Match {
    let mut steps = path.0.iter();
    for part in pattern.split('.') {
        let Some(step) = steps.next() else {
            return Match::Above;
        };
        let element = step.starts_with('[');
        let fits = match part {
            "*" => !element,
            "[]" => element,
            name => step == name,
        };
        if !fits {
            return Match::Apart;
        }
    }
    Match::Within
}

/// Whether a path is exactly what a pattern names.
fn is(path: &Path, pattern: &str) -> bool {
    compare(path, pattern) == Match::Within && path.0.len() == pattern.split('.').count()
}
