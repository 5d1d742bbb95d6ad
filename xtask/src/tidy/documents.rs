//! Rules over the documentation as a whole.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::{File, Finding, Tree};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = links(tree);
    findings.extend(error_pages(tree));
    findings.extend(decisions(tree));
    findings.extend(architecture(tree));
    findings
}

/// A relative link leads to a file of the project.
fn links(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, line, target) in all_links(tree) {
        match resolve(&file.path, &target) {
            Some(path) if tree.root.join(&path).exists() => {}
            _ => findings.push(Finding::new(
                file.path.clone(),
                line,
                format!("the link to {target} leads nowhere"),
            )),
        }
    }
    findings
}

/// Every page of an error code can be reached by a reader of the documentation.
fn error_pages(tree: &Tree) -> Vec<Finding> {
    let linked: Vec<PathBuf> = all_links(tree)
        .iter()
        .filter_map(|(file, _, target)| resolve(&file.path, target))
        .collect();
    tree.with_ending(".md")
        .filter(|file| file.path.starts_with("docs/errors/"))
        .filter(|file| !linked.iter().any(|path| path == Path::new(&file.path)))
        .map(|file| Finding::new(file.path.clone(), 0, "no page links to this error"))
        .collect()
}

/// A decision record is `docs/adr/NNNN-title.md`, each number once.
fn decisions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for file in tree.with_ending(".md") {
        let Some(name) = file.path.strip_prefix("docs/adr/") else {
            continue;
        };
        if name == "README.md" {
            continue;
        }
        let number = name.split_once('-').map(|(number, _)| number).unwrap_or_default();
        if number.len() != 4 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            findings.push(Finding::new(file.path.clone(), 0, "the name is not NNNN-title.md"));
        } else if let Some(first) = seen.insert(number, name) {
            let message = format!("{number} is the number of {first} already");
            findings.push(Finding::new(file.path.clone(), 0, message));
        }
    }
    findings
}

/// ARCHITECTURE.md names every crate, as `folder/crate` or, in its tree, as `crate/`.
fn architecture(tree: &Tree) -> Vec<Finding> {
    let page = tree.files.iter().find(|file| file.path == "ARCHITECTURE.md");
    let text = page.map(|file| file.text.as_str()).unwrap_or_default();
    let manifests = tree.with_ending("/Cargo.toml").filter_map(|file| {
        let folder = file.path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?;
        folder.split_once('/')
    });
    manifests
        .filter(|(folder, name)| !text.contains(&format!("{folder}/{name}")))
        .filter(|(_, name)| !text.contains(&format!(" {name}/")))
        .map(|(folder, name)| {
            Finding::new("ARCHITECTURE.md", 0, format!("does not name crates/{folder}/{name}"))
        })
        .collect()
}

/// Every relative link of every Markdown file: where it stands and what it names.
fn all_links(tree: &Tree) -> Vec<(&File, usize, String)> {
    let mut found = Vec::new();
    for file in tree.with_ending(".md") {
        let mut fenced = false;
        for (number, line) in file.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            }
            if !fenced {
                let targets = links_in(line).into_iter();
                found.extend(targets.map(|target| (file, number + 1, target)));
            }
        }
    }
    found
}

/// Targets of `[text](target)`, without anchors; code spans and absolute links left out.
fn links_in(line: &str) -> Vec<String> {
    // Every second piece between backticks is code.
    let prose: Vec<&str> = line.split('`').step_by(2).collect();
    let prose = prose.join(" ");
    let mut targets = Vec::new();
    for rest in prose.split("](").skip(1) {
        let Some((target, _)) = rest.split_once(')') else {
            continue;
        };
        let target = target.split_whitespace().next().unwrap_or_default();
        let target = target.split('#').next().unwrap_or_default();
        if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
            targets.push(target.to_owned());
        }
    }
    targets
}

/// Where a link leads, relative to the root; nothing if it leaves the project.
fn resolve(from: &str, target: &str) -> Option<PathBuf> {
    let mut path = PathBuf::from(from);
    path.pop();
    for part in Path::new(target).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir => path.pop().then_some(())?,
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests;
