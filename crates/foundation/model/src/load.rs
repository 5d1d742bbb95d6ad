//! From a file to a spec: found, read within limits, parsed, checked as a whole.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::finding::{self, Findings, Place};
use crate::reader::Read as _;
use crate::tree::{self, Node, SyntaxError};
use crate::{Finding, Severity, Spec, check};

/// What became of a text: the spec, unless there is an error in it, and all that is to say.
#[derive(Debug)]
pub struct Loaded {
    /// The spec; `None` if any finding is an error.
    pub spec: Option<Spec>,
    /// All findings, those that matter most first.
    pub findings: Vec<Finding>,
    /// The file, for messages.
    pub origin: PathBuf,
}

impl Loaded {
    /// The spec, if nothing in it is an error or unsafe; the other findings do not hinder.
    pub fn accept(self) -> Outcome<Spec> {
        let stops = |severity| self.findings.iter().any(|finding| finding.severity == severity);
        let code = match (&self.spec, stops(Severity::Unsafe)) {
            (Some(_), false) => None,
            (Some(_), true) => Some(Code::SpecUnsafe),
            (None, _) => Some(Code::SpecInvalid),
        };
        match (self.spec, code) {
            (Some(spec), None) => Ok(spec),
            (_, code) => {
                let fatal = |finding: &&Finding| finding.severity <= Severity::Unsafe;
                let lines: Vec<String> =
                    self.findings.iter().filter(fatal).map(Finding::to_string).collect();
                let message = format!(
                    "{} has {} finding(s) that prevent its use",
                    self.origin.display(),
                    lines.len()
                );
                Err(Failure::new(code.unwrap_or(Code::SpecInvalid), message)
                    .hint("Correct what is listed; `lifeboat check` shows all findings.")
                    .details(lines))
            }
        }
    }
}

impl Spec {
    /// Parses and checks a text; `origin` names it in messages.
    pub fn load(text: &str, origin: &Path) -> Loaded {
        let plain = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut findings = Findings::new(plain);
        check_encoding(text, &mut findings);
        let spec = (text.len() <= tree::MAX_BYTES).then(|| read(plain, &mut findings)).flatten();
        let findings = findings.finish();
        let usable = findings.iter().all(|finding| finding.severity != Severity::Error);
        Loaded { spec: spec.filter(|_| usable), findings, origin: origin.to_owned() }
    }

    /// Reads, parses and checks a file.
    pub fn open(path: &Path) -> Outcome<Loaded> {
        let unreadable = |error: std::io::Error| {
            Failure::new(Code::LocalFile, format!("cannot read {}", path.display())).because(error)
        };
        let mut bytes = Vec::new();
        // One byte more than allowed tells that it is too large.
        let limit = tree::MAX_BYTES as u64 + 1;
        File::open(path)
            .map_err(unreadable)?
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let message = format!("{} is not UTF-8 text", path.display());
            Failure::new(Code::SpecInvalid, message)
                .hint("Save the file as UTF-8.")
                .because(error.utf8_error())
        })?;
        Ok(Self::load(&text, path))
    }

    /// The file to read: the flag, LIFEBOAT_SPEC, ./lifeboat.yaml, /etc/lifeboat/lifeboat.yaml.
    pub fn locate(flag: Option<&Path>, environment: &Environment) -> Outcome<PathBuf> {
        let named = flag.map(Path::to_owned);
        let named = named.or_else(|| environment.variable("LIFEBOAT_SPEC").map(PathBuf::from));
        if let Some(path) = named {
            if path.is_file() {
                return Ok(path);
            }
            let message = format!("there is no spec at {}", path.display());
            return Err(
                Failure::new(Code::SpecNotFound, message).hint("Correct --spec or LIFEBOAT_SPEC.")
            );
        }
        let usual = ["lifeboat.yaml", "/etc/lifeboat/lifeboat.yaml"].map(PathBuf::from);
        usual.into_iter().find(|path| path.is_file()).ok_or_else(|| {
            let message = "there is neither ./lifeboat.yaml nor /etc/lifeboat/lifeboat.yaml";
            Failure::new(Code::SpecNotFound, message)
                .hint("Make one with `lifeboat init`, or name one with --spec or LIFEBOAT_SPEC.")
        })
    }
}

fn read(text: &str, findings: &mut Findings<'_>) -> Option<Spec> {
    let tree = match tree::parse(text) {
        Ok(tree) => tree,
        Err(error) => salvage(text, error, findings)?,
    };
    let spec = Spec::read(&tree, &finding::Path::default(), findings)?;
    check::all(&spec, &tree, findings);
    Some(spec)
}

/// Reports a syntax error, and parses the text once more without the top-level section that
/// holds it, for the findings of all other sections.
fn salvage(text: &str, error: SyntaxError, findings: &mut Findings<'_>) -> Option<Node> {
    let lines: Vec<&str> = text.lines().collect();
    let is_start = |line: &&str| line.starts_with(|first: char| first.is_ascii_lowercase());
    let starts: Vec<usize> =
        (0..lines.len()).filter(|at| lines.get(*at).is_some_and(is_start)).collect();
    let without = |section: usize| {
        let from = *starts.get(section)?;
        let to = starts.get(section + 1).copied().unwrap_or(lines.len());
        let kept = |(at, line): (usize, &&str)| {
            if (from..to).contains(&at) { String::new() } else { (*line).to_owned() }
        };
        let rest: Vec<String> = lines.iter().enumerate().map(kept).collect();
        let name = lines.get(from)?.split(':').next()?.trim_end();
        Some((name, tree::parse(&rest.join("\n")).ok()?))
    };
    // An unclosed bracket shows itself at the beginning of the next section.
    let at = starts.partition_point(|start| *start < error.place.line).checked_sub(1);
    let found = at.and_then(|at| without(at).or_else(|| without(at.checked_sub(1)?)));
    let path = found.as_ref().map(|(name, _)| finding::Path::from([*name]));
    let hint = "Correct the syntax here or just above; indent with blanks.";
    hide_line(text, error.place, findings);
    findings.error(&path.unwrap_or_default(), error.place, error.message, hint);
    found.map(|(_, tree)| tree).filter(|tree| !tree.entries().is_empty())
}

/// Nobody knows what a line that is no YAML means: if it speaks of secrets, it is not shown.
fn hide_line(text: &str, place: Place, findings: &mut Findings<'_>) {
    let line = text.lines().nth(place.line.saturating_sub(1)).unwrap_or_default();
    let said = line.to_ascii_lowercase();
    if ["pass", "secret", "token", "key"].iter().any(|word| said.contains(word)) {
        let value = line.split_once(':').map_or(line, |(_, value)| value);
        findings.hide(place, value);
    }
}

/// What would make this file another one elsewhere, or too large to be one.
fn check_encoding(text: &str, findings: &mut Findings<'_>) {
    let whole = finding::Path::default();
    if text.len() > tree::MAX_BYTES {
        let message = format!("the file has more than {} bytes", tree::MAX_BYTES);
        findings.error(&whole, Place::START, message, "Split it: one spec a group of services.");
    }
    if text.starts_with('\u{feff}') {
        let message = "the file begins with a byte order mark";
        findings.error(&whole, Place::START, message, "Save it as UTF-8 without one.");
    }
    if let Some(line) = text.split('\n').position(|line| line.ends_with('\r')) {
        let place = Place { line: line + 1, column: 1 };
        let message = "lines end in CR LF, as on Windows";
        findings.error(&whole, place, message, "Save it with LF line ends.");
    }
}
