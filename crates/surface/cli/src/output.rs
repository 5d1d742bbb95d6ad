//! Standard output carries data, standard error the rest; `--json` makes both readable to machines.

mod markup;

use std::io::{self, ErrorKind, Write};

use lifeboat_telemetry::{Code, Event, Failure, Outcome, bytes};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

pub use markup::{Mark, emphasis, moment, page, strong, table};

/// The version of the JSON envelope.
const ENVELOPE: u32 = 1;

/// What a command hands back; its JSON form is a contract and is only ever added to.
pub trait Report: Serialize + JsonSchema {
    /// The command as typed, as in `repo create`.
    const COMMAND: &'static str;

    /// The report as a person reads it, with its newline at the end.
    fn text(&self) -> String;

    /// What is not well although the command did its work; decides the exit code.
    fn failure(&self) -> Option<&Failure> {
        None
    }
}

/// Where results and failures are printed, and how.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Prints for machines or for people.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints the result of a command, and what is not well with it.
    pub fn report<R: Report>(self, report: &R) -> Outcome<()> {
        let printed =
            if self.json { print_json(&report_document(report)) } else { print(&report.text()) };
        printed.map_err(|error| {
            Failure::new(Code::LocalFile, "cannot write to standard output").because(error)
        })?;
        if let (false, Some(failure)) = (self.json, report.failure()) {
            self.failure(failure);
        }
        Ok(())
    }

    /// Prints a page that is the same with and without `--json`, as the help is.
    pub fn page(self, text: &str) {
        // Nobody is left to be told that standard output is gone.
        let _ = print(text);
    }

    /// Prints why a command failed.
    pub fn failure(self, failure: &Failure) {
        let _ = if self.json {
            print_json(&json!({ "lifeboat": ENVELOPE, "error": failure_value(failure) }))
        } else {
            anstream::stderr().write_all(failure_text(failure).as_bytes())
        };
    }

    /// Prints in one line that a file is not there, which is an answer and no trouble.
    pub fn absent(self, failure: &Failure) {
        if self.json {
            self.failure(failure);
        } else {
            self.event(&Event::Note { message: format!("absent: {}", failure.message()) });
        }
    }

    /// Prints what is wrong with the command line.
    pub fn usage(self, error: &clap::Error) {
        if self.json {
            self.failure(&usage_failure(error));
        } else {
            let label = format!("error[{}]:", Code::Usage);
            let text = error.render().ansi().to_string().replacen("error:", &label, 1);
            let _ = anstream::stderr().write_all(text.as_bytes());
        }
    }

    /// Prints one event of a long operation, without a bar.
    pub fn event(self, event: &Event) {
        let _ = if self.json {
            serde_json::to_writer(io::stderr(), event)
                .map_err(io::Error::from)
                .and_then(|()| io::stderr().write_all(b"\n"))
        } else {
            anstream::stderr().write_all(event_text(event).as_bytes())
        };
    }
}

/// How far a receiver is, in one line.
pub fn streamed(event: &Event) -> String {
    let Event::Streamed {
        timeline,
        received_lsn,
        durable_lsn,
        shipped_lsn,
        waiting_bytes,
        bytes_per_second,
    } = event
    else {
        return String::new();
    };
    format!(
        "timeline {timeline}: received {received_lsn}, durable {durable_lsn}, shipped \
         {shipped_lsn} ({} waiting, {}/s)",
        bytes(*waiting_bytes),
        bytes(*bytes_per_second),
    )
}

/// A reader that went away, as `head` does, has all that it wanted.
fn forgive_broken_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = anstream::stdout().lock();
    forgive_broken_pipe(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

fn print_json(document: &Value) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    forgive_broken_pipe(writeln!(stdout, "{document}").and_then(|()| stdout.flush()))
}

fn report_document<R: Report>(report: &R) -> Value {
    let mut document = json!({ "lifeboat": ENVELOPE, "command": R::COMMAND, "result": report });
    if let Some(failure) = report.failure() {
        document["error"] = failure_value(failure);
    }
    document
}

fn failure_value(failure: &Failure) -> Value {
    json!({
        "code": failure.code().text(),
        "message": failure.full_message(),
        "hint": failure.hint_text(),
        "details": failure.detail_lines(),
    })
}

fn usage_failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let message = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    Failure::new(Code::Usage, message)
        .hint("Run the command with --help to see what it takes.")
        .details(lines.filter(|line| !line.starts_with("For more")).map(str::to_owned))
}

fn failure_text(failure: &Failure) -> String {
    let mut text = format!(
        "{} {}\n",
        Mark::Bad.paint(&format!("error[{}]:", failure.code())),
        strong(failure.message())
    );
    for cause in causes(failure) {
        text.push_str(&format!("  cause: {cause}\n"));
    }
    for line in failure.detail_lines() {
        text.push_str(&format!("  {}\n", line.replace('\n', "\n  ")));
    }
    if let Some(hint) = failure.hint_text() {
        text.push_str(&format!("  {} {hint}\n", emphasis("hint:")));
    }
    text.push_str(&format!("  {} lifeboat explain {}\n", emphasis("explain:"), failure.code()));
    text
}

/// What led to the failure, outermost first; libraries often repeat their source in their message.
fn causes(failure: &Failure) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    let mut next = std::error::Error::source(failure);
    while let Some(error) = next {
        let said = error.to_string();
        if !causes.iter().any(|cause| cause.contains(&said)) {
            causes.push(said);
        }
        next = error.source();
    }
    causes
}

fn event_text(event: &Event) -> String {
    match event {
        Event::Warning { message } => format!("{} {message}\n", Mark::Doubtful.paint("warning:")),
        Event::Note { message } => format!("{message}\n"),
        Event::Started { step, .. } => format!("{step}\n"),
        Event::Streamed { .. } => format!("{}\n", streamed(event)),
        Event::Finished { .. } | Event::Advanced { .. } => String::new(),
    }
}

#[cfg(test)]
mod tests;
