//! `lifeboat check`: the spec against itself, then against reality.

mod host;
mod line;
mod postgres;
mod repositories;
mod streaming;

use std::path::PathBuf;

use lifeboat_model::spec::WalMode;
use lifeboat_model::{Finding, Severity, Spec};
use lifeboat_objects::Blocking;
use lifeboat_telemetry::{Code, Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::output::{Mark, Report, strong};
use crate::site::Site;

pub use line::{Line, Lines, Verdict};

/// Check the spec, and this host, databases and repositories against it
///
/// First the spec as a whole: every finding with its place. Then reality: does PostgreSQL answer
/// and allow a backup, is its WAL archived, do the repositories answer, are they one vault, what
/// could a thief of this host's keys read. Each line is PASS, WARN, FAIL or NOT TESTED and says
/// what to change. Exit code 1 if a line is FAIL; with --strict also if the spec asks for
/// protection that this version does not give.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat check
  runuser -u postgres -- lifeboat check --here east
  lifeboat check --strict --json")]
pub struct Args {
    /// Fail also on what is NOT PROTECTED YET
    #[arg(long)]
    strict: bool,
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Checked {
    /// The spec.
    spec: PathBuf,
    /// What is to say about the spec itself.
    findings: Vec<SpecFinding>,
    /// What is to say about reality; empty if the spec cannot be used.
    lines: Vec<Line>,
    #[serde(skip)]
    failure: Option<Failure>,
    #[serde(skip)]
    drawn: Vec<String>,
}

/// A remark on the spec.
#[derive(Debug, Serialize, JsonSchema)]
struct SpecFinding {
    /// `error`, `unsafe`, `objective` or `not-protected`.
    severity: &'static str,
    /// The key, as in `services.payments.tier`.
    path: String,
    /// What is wrong.
    message: String,
    /// What to do.
    hint: String,
    /// The line, from 1.
    line: usize,
    /// The column, from 1.
    column: usize,
    /// That line of the spec.
    excerpt: String,
}

impl SpecFinding {
    fn new(finding: &Finding) -> Self {
        Self {
            severity: match finding.severity {
                Severity::Error => "error",
                Severity::Unsafe => "unsafe",
                Severity::Objective => "objective",
                Severity::NotProtected => "not-protected",
            },
            path: finding.path.clone(),
            message: finding.message.clone(),
            hint: finding.hint.clone(),
            line: finding.line,
            column: finding.column,
            excerpt: finding.excerpt.clone(),
        }
    }
}

impl Report for Checked {
    const COMMAND: &'static str = "check";

    fn text(&self) -> String {
        let count = match self.drawn.len() {
            0 => "nothing to say".to_owned(),
            1 => "1 finding".to_owned(),
            many => format!("{many} findings"),
        };
        let spec = strong(&self.spec.display().to_string());
        let mut text = format!("{spec}: {count}\n");
        for drawn in &self.drawn {
            text.push_str(&format!("\n{drawn}\n"));
        }
        text.push_str(&line::text(&self.lines));
        text
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Checks everything that can be checked from here.
pub fn run(args: &Args, context: &Context) -> Outcome<Checked> {
    let origin = Spec::locate(context.global.spec.as_deref(), &context.environment)?;
    let loaded = Spec::open(&origin)?;
    let mut checked = Checked {
        spec: origin.clone(),
        findings: loaded.findings.iter().map(SpecFinding::new).collect(),
        drawn: loaded.findings.iter().map(draw).collect(),
        lines: Vec::new(),
        failure: None,
    };
    let spec = match loaded.accept() {
        Ok(spec) => spec,
        Err(failure) => {
            // The findings are in the report already.
            checked.failure = Some(Failure::new(failure.code(), failure.message()).hint(
                "Correct the findings above; the rest is checked once the spec can be used.",
            ));
            return Ok(checked);
        }
    };
    let site = Site::with(context, origin, spec)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let mut lines = Lines::default();
    context.reporter.note("checking this host");
    host::check(&site, context, &mut lines);
    context.cancel.check()?;
    context.reporter.note("checking the repositories");
    repositories::check(&access, &mut lines);
    for (id, database) in site.spec.databases() {
        context.cancel.check()?;
        context.reporter.note(format!("checking {id}"));
        postgres::check(&site, &access, (&id, database), &mut lines);
        if database.wal.mode == WalMode::Stream {
            streaming::check(&site, &access, (&id, database), &mut lines);
        }
    }
    checked.lines = lines.finish();
    checked.failure = judge(&checked, args.strict);
    Ok(checked)
}

fn draw(finding: &Finding) -> String {
    let label = finding.severity.to_string();
    let mark = match finding.severity {
        Severity::Error | Severity::Unsafe => Mark::Bad,
        Severity::Objective | Severity::NotProtected => Mark::Doubtful,
    };
    finding.to_string().replacen(&label, &mark.paint(&label), 1)
}

fn judge(checked: &Checked, strict: bool) -> Option<Failure> {
    let failed = checked.lines.iter().filter(|line| line.verdict == Verdict::Fail).count();
    if failed > 0 {
        let message = format!("{failed} of {} checks failed", checked.lines.len());
        return Some(
            Failure::new(Code::CheckFailed, message)
                .hint("Change what the lines marked FAIL say, then run it again."),
        );
    }
    let missing =
        checked.findings.iter().filter(|finding| finding.severity == "not-protected").count();
    (strict && missing > 0).then(|| {
        let message = format!("{missing} key(s) of the spec are not protected yet");
        Failure::new(Code::NotProtectedYet, message)
            .hint("Take them out of the spec, or leave out --strict and know what is missing.")
    })
}

#[cfg(test)]
mod tests;
