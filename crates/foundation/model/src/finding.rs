//! What is to say about a spec, each with its place in the file.

use std::fmt;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The spec does not say what it should; nothing works with it.
    Error,
    /// The spec would endanger data; refused (DESIGN F10).
    Unsafe,
    /// The spec asks for an objective that it cannot reach.
    Objective,
    /// The spec asks for protection that this version does not give.
    NotProtected,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Error => "error",
            Self::Unsafe => "UNSAFE",
            Self::Objective => "objective out of reach",
            Self::NotProtected => "NOT PROTECTED YET",
        })
    }
}

/// One remark on a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// The key it is about, as in `services.payments.tier`; empty for the file as a whole.
    pub path: String,
    /// What is wrong: a lowercase fragment.
    pub message: String,
    /// What to do: a sentence.
    pub hint: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// That line of the file, cut where it is very long.
    pub excerpt: String,
}

impl fmt::Display for Finding {
    /// The finding with its excerpt and a mark below the column.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, path, message, hint, line, column, excerpt } = self;
        let colon = if path.is_empty() { "" } else { ": " };
        writeln!(formatter, "{severity}: {path}{colon}{message}")?;
        let margin = line.to_string().len();
        // Of a long line the part before the column and some more.
        let skip =
            if excerpt.chars().count() > WINDOW { column.saturating_sub(WINDOW / 2) } else { 0 };
        let mut shown: String = excerpt.chars().skip(skip).take(WINDOW).collect();
        if skip > 0 {
            shown = std::iter::once('…').chain(shown.chars().skip(1)).collect();
        }
        if excerpt.chars().count() > skip + WINDOW {
            shown.push('…');
        }
        writeln!(formatter, "{line} | {}", shown.trim_end())?;
        let mark = column.saturating_sub(skip);
        if mark <= shown.chars().count() {
            writeln!(formatter, "{:margin$} | {:>mark$}", "", "^")?;
        }
        write!(formatter, "{:margin$} = {hint}", "")
    }
}

/// Where something stands in the file; lines and columns count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Place {
    /// The beginning of the file, for what concerns it as a whole.
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

/// The steps to a key: names of keys, and list positions as `[0]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Path(pub(crate) Vec<String>);

impl Path {
    /// The path one step deeper.
    pub(crate) fn join(&self, step: impl fmt::Display) -> Self {
        let mut steps = self.0.clone();
        steps.push(step.to_string());
        Self(steps)
    }

    /// The path to an element of the list at this path.
    pub(crate) fn item(&self, position: usize) -> Self {
        self.join(format_args!("[{position}]"))
    }
}

impl<const N: usize> From<[&str; N]> for Path {
    fn from(steps: [&str; N]) -> Self {
        Self(steps.into_iter().map(str::to_owned).collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            let dot = if position == 0 || step.starts_with('[') { "" } else { "." };
            write!(formatter, "{dot}{step}")?;
        }
        Ok(())
    }
}

/// The findings of one text, in the making.
#[derive(Debug)]
pub(crate) struct Findings<'a> {
    text: &'a str,
    list: Vec<Finding>,
    broken: Vec<String>,
    hidden: Vec<(Place, String)>,
}

/// More than a person reads at once; a hostile file shall not fill the memory.
const MAX_FINDINGS: usize = 1000;
/// A longer line is not written by people.
const MAX_EXCERPT: usize = 1000;
/// What a terminal shows of a line without breaking it.
const WINDOW: usize = 90;

impl<'a> Findings<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, list: Vec::new(), broken: Vec::new(), hidden: Vec::new() }
    }

    pub(crate) fn add(
        &mut self,
        severity: Severity,
        path: &Path,
        place: Place,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        if self.list.len() >= MAX_FINDINGS {
            return;
        }
        let line = self.text.lines().nth(place.line.saturating_sub(1)).unwrap_or_default();
        if severity == Severity::Error {
            self.mark_broken(path);
        }
        self.list.push(Finding {
            severity,
            path: path.to_string(),
            message: message.into(),
            hint: hint.into(),
            line: place.line,
            column: place.column,
            excerpt: line.trim_end().to_owned(),
        });
    }

    /// A mistake in the file.
    pub(crate) fn error(
        &mut self,
        path: &Path,
        place: Place,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Severity::Error, path, place, message, hint);
    }

    /// Whether something at or below a path is in error already, so that what follows from it
    /// need not be said.
    pub(crate) fn is_broken(&self, path: &Path) -> bool {
        let path = path.to_string();
        self.broken.iter().any(|broken| {
            let below = broken.strip_prefix(&path);
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// Says nothing, but keeps others from saying that a key is missing which was only misspelt.
    pub(crate) fn mark_broken(&mut self, path: &Path) {
        self.broken.push(path.to_string());
    }

    /// Keeps a literal secret out of the excerpts of its line.
    pub(crate) fn hide(&mut self, place: Place, secret: &str) {
        self.hidden.push((place, secret.to_owned()));
    }

    /// All findings: what matters most first, then in the order of the file.
    pub(crate) fn finish(mut self) -> Vec<Finding> {
        for finding in &mut self.list {
            for (place, secret) in self.hidden.iter().filter(|(at, _)| at.line == finding.line) {
                finding.excerpt = mask(&finding.excerpt, secret, place.column);
            }
            finding.excerpt = finding.excerpt.chars().take(MAX_EXCERPT).collect();
        }
        self.list.sort_by_key(|finding| (finding.severity, finding.line, finding.column));
        self.list
    }
}

/// The line with stars for a secret; where it is written with escapes, for all that follows.
fn mask(line: &str, secret: &str, column: usize) -> String {
    if !secret.is_empty() && line.contains(secret) {
        return line.replace(secret, &"*".repeat(secret.chars().count()));
    }
    let stars = |(at, character)| if at + 1 < column { character } else { '*' };
    line.chars().enumerate().map(stars).collect()
}
