//! House rules that a machine can check: `cargo xtask tidy`.

mod code;
mod dependencies;
mod documents;
mod text;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use walkdir::{DirEntry, WalkDir};

/// Checks every rule and prints all findings.
pub fn run(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let packages = dependencies::packages(root)?;
    let mut findings = dependencies::check(&packages);
    findings.extend(code::check(&tree));
    findings.extend(text::check(&tree));
    findings.extend(documents::check(&tree));
    findings.sort();
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    if !findings.is_empty() {
        bail!("{} house rules are broken", findings.len());
    }
    Ok(())
}

/// One broken rule at one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: impl Into<String>, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.into(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, message } = self;
        match line {
            0 => write!(formatter, "{path}: {message}"),
            line => write!(formatter, "{path}:{line}: {message}"),
        }
    }
}

/// The text files of the project, by path relative to its root.
struct Tree {
    root: PathBuf,
    files: Vec<File>,
}

struct File {
    path: String,
    text: String,
}

impl Tree {
    fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for entry in WalkDir::new(root).sort_by_file_name().into_iter().filter_entry(is_ours) {
            let entry = entry?;
            if !entry.file_type().is_file() || !is_text(entry.path()) {
                continue;
            }
            let path = entry.path().strip_prefix(root)?.to_string_lossy().into_owned();
            let text = fs::read_to_string(entry.path())
                .with_context(|| format!("{path} is not UTF-8 text"))?;
            files.push(File { path, text });
        }
        Ok(Self { root: root.to_owned(), files })
    }

    fn with_ending<'a>(&'a self, ending: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |file| file.path.ends_with(ending))
    }
}

fn is_ours(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    // Samples below testdata are broken on purpose.
    let foreign = matches!(name.as_ref(), "target" | ".git" | "node_modules" | "testdata");
    entry.depth() == 0 || !foreign
}

fn is_text(path: &Path) -> bool {
    const ENDINGS: [&str; 8] = ["rs", "md", "toml", "yaml", "yml", "json", "sql", "sh"];
    let ending = path.extension().map(|ending| ending.to_string_lossy().into_owned());
    match ending {
        Some(ending) => ENDINGS.contains(&ending.as_str()),
        None => path.ends_with(".ci/run"),
    }
}

#[cfg(test)]
mod tests;
