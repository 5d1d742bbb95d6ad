//! The lines of a check.

use lifeboat_telemetry::{Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use crate::output::{Mark, emphasis, strong};

/// What became of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// It works, and a person should look.
    Warn,
    /// It does not work.
    Fail,
    /// It could not be looked at; nothing is claimed.
    NotTested,
}

impl Verdict {
    fn label(self) -> String {
        match self {
            Self::Pass => Mark::Good.paint("PASS      "),
            Self::Warn => Mark::Doubtful.paint("WARN      "),
            Self::Fail => Mark::Bad.paint("FAIL      "),
            Self::NotTested => Mark::Unknown.paint("NOT TESTED"),
        }
    }
}

/// One check.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Line {
    /// What was looked at: this host, a repository, a database.
    pub subject: String,
    /// The check, as in `wal_level`.
    pub check: String,
    /// What became of it.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to change.
    pub advice: Option<String>,
}

/// Collects lines about one subject after the other.
#[derive(Debug, Default)]
pub struct Lines {
    subject: String,
    lines: Vec<Line>,
}

impl Lines {
    /// From now on lines are about `subject`.
    pub fn about(&mut self, subject: impl Into<String>) {
        self.subject = subject.into();
    }

    /// Adds a line that is well.
    pub fn pass(&mut self, check: &str, message: impl Into<String>) {
        self.add(check, Verdict::Pass, message.into(), None);
    }

    /// Adds a line that a person should look at.
    pub fn warn(&mut self, check: &str, message: impl Into<String>, advice: impl Into<String>) {
        self.add(check, Verdict::Warn, message.into(), Some(advice.into()));
    }

    /// Adds a line that is not well.
    pub fn fail(&mut self, check: &str, message: impl Into<String>, advice: impl Into<String>) {
        self.add(check, Verdict::Fail, message.into(), Some(advice.into()));
    }

    /// Adds a line about what could not be looked at.
    pub fn not_tested(&mut self, check: &str, why: impl Into<String>) {
        self.add(check, Verdict::NotTested, why.into(), None);
    }

    /// Adds a line for a failure; returns the value if there is none.
    pub fn need<T>(&mut self, check: &str, outcome: Outcome<T>) -> Option<T> {
        outcome.map_err(|failure| self.failure(check, &failure)).ok()
    }

    /// Adds a line for a failure.
    pub fn failure(&mut self, check: &str, failure: &Failure) {
        let message = format!("{} [{}]", failure.full_message(), failure.code());
        self.add(check, Verdict::Fail, message, failure.hint_text().map(str::to_owned));
    }

    /// All lines.
    pub fn finish(self) -> Vec<Line> {
        self.lines
    }

    fn add(&mut self, check: &str, verdict: Verdict, message: String, advice: Option<String>) {
        let subject = self.subject.clone();
        self.lines.push(Line { subject, check: check.to_owned(), verdict, message, advice });
    }
}

/// The lines below their subjects, and the count of each verdict.
pub fn text(lines: &[Line]) -> String {
    let width = lines.iter().map(|line| line.check.len()).max().unwrap_or_default();
    let mut text = String::new();
    let mut subject = None;
    for line in lines {
        if subject != Some(&line.subject) {
            text.push_str(&format!("\n{}\n", strong(&line.subject)));
            subject = Some(&line.subject);
        }
        let label = line.verdict.label();
        text.push_str(&format!("  {label}  {:width$}  {}\n", line.check, line.message));
        if let Some(advice) = &line.advice {
            let indent = " ".repeat(width + 16);
            text.push_str(&format!("{indent}{} {advice}\n", emphasis("->")));
        }
    }
    if !lines.is_empty() {
        let count = |verdict| lines.iter().filter(|line| line.verdict == verdict).count();
        text.push_str(&format!(
            "\n{} PASS, {} WARN, {} FAIL, {} NOT TESTED\n",
            count(Verdict::Pass),
            count(Verdict::Warn),
            count(Verdict::Fail),
            count(Verdict::NotTested),
        ));
    }
    text
}
