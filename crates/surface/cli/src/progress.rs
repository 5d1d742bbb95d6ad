//! Readers of progress events: a bar on a terminal, a line now and then elsewhere, JSON lines.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Event, Progress, Reporter, bytes, rate};

use crate::arguments::Global;
use crate::output::{Output, streamed};

/// How often a log shows that the work goes on.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// How often a log shows how far a receiver is.
const STREAMED_EVERY: Duration = Duration::from_secs(60);
/// How often a machine is told.
const EVENT_EVERY: Duration = Duration::from_millis(250);

const TEMPLATE_OPEN: &str = "{spinner} {msg} {bytes} ({bytes_per_sec})";
const TEMPLATE_STREAM: &str = "{spinner} {msg}";
const TEMPLATE_TOTAL: &str = "{msg} {wide_bar} {bytes}/{total_bytes} ({bytes_per_sec}, {eta} left)";

/// The reader that the flags and the terminal ask for.
pub fn reporter(environment: &Environment, global: &Global) -> Reporter {
    let output = Output::new(global.json);
    if global.quiet {
        Reporter::new(WarningsOnly(output))
    } else if !global.json && std::io::stderr().is_terminal() {
        Reporter::new(Bar::new(output))
    } else {
        let every = if global.json { EVENT_EVERY } else { LINE_EVERY };
        Reporter::new(Lines::new(environment.clone(), output, global.json, every))
    }
}

/// With `--quiet` people still learn what they should not miss.
struct WarningsOnly(Output);

impl Progress for WarningsOnly {
    fn event(&self, event: Event) {
        if matches!(event, Event::Warning { .. }) {
            self.0.event(&event);
        }
    }
}

/// Bytes, rate and time left on a terminal.
struct Bar {
    output: Output,
    bar: Mutex<ProgressBar>,
}

impl Bar {
    fn new(output: Output) -> Self {
        Self { output, bar: Mutex::new(ProgressBar::hidden()) }
    }
}

impl Progress for Bar {
    fn event(&self, event: Event) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { step, total_bytes } => *bar = draw(step, total_bytes),
            Event::Advanced { bytes } => bar.inc(bytes),
            Event::Finished { .. } => bar.finish_and_clear(),
            Event::Streamed { .. } => {
                if bar.is_hidden() || bar.is_finished() {
                    *bar = draw_stream();
                }
                bar.set_message(streamed(&event));
            }
            Event::Note { .. } | Event::Warning { .. } => {
                bar.suspend(|| self.output.event(&event));
            }
        }
    }
}

fn draw(step: String, total_bytes: u64) -> ProgressBar {
    let (bar, template) = match total_bytes {
        0 => (ProgressBar::no_length(), TEMPLATE_OPEN),
        total => (ProgressBar::new(total), TEMPLATE_TOTAL),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    // The templates are constants that a test parses; a plain bar is good enough otherwise.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(step);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn draw_stream() -> ProgressBar {
    let bar = ProgressBar::no_length();
    bar.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE_STREAM) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Lines for logs and machines, few enough to read.
struct Lines {
    environment: Environment,
    output: Output,
    json: bool,
    every: Duration,
    state: Mutex<Step>,
}

/// The step that is under way.
#[derive(Debug, Default)]
struct Step {
    name: String,
    total_bytes: u64,
    done_bytes: u64,
    untold_bytes: u64,
    started: Duration,
    told: Duration,
}

impl Lines {
    fn new(environment: Environment, output: Output, json: bool, every: Duration) -> Self {
        Self { environment, output, json, every, state: Mutex::default() }
    }

    fn tell(&self, step: &mut Step, now: Duration) {
        step.told = now;
        let bytes = std::mem::take(&mut step.untold_bytes);
        let event = if self.json {
            Event::Advanced { bytes }
        } else {
            Event::Note { message: progress_line(step, now) }
        };
        self.output.event(&event);
    }
}

impl Progress for Lines {
    fn event(&self, event: Event) {
        let mut step = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.environment.clock().elapsed();
        match &event {
            Event::Advanced { bytes } => {
                step.done_bytes = step.done_bytes.saturating_add(*bytes);
                step.untold_bytes = step.untold_bytes.saturating_add(*bytes);
                if now.saturating_sub(step.told) >= self.every {
                    self.tell(&mut step, now);
                }
                return;
            }
            Event::Started { step: name, total_bytes } => {
                let (name, total_bytes) = (name.clone(), *total_bytes);
                *step = Step { name, total_bytes, started: now, told: now, ..Step::default() };
            }
            // The sum of what a machine is told must be what was done.
            Event::Finished { .. } if step.untold_bytes > 0 => self.tell(&mut step, now),
            // Machines get them all, a log gets one now and then.
            Event::Streamed { .. } if !self.json => {
                let silent = now.saturating_sub(step.told) < STREAMED_EVERY;
                if silent && step.told > Duration::ZERO {
                    return;
                }
                step.told = now;
            }
            Event::Streamed { .. }
            | Event::Finished { .. }
            | Event::Note { .. }
            | Event::Warning { .. } => {}
        }
        self.output.event(&event);
    }
}

fn progress_line(step: &Step, now: Duration) -> String {
    let of = match step.total_bytes {
        0 => String::new(),
        total => format!(" of {}", bytes(total)),
    };
    let speed = rate(step.done_bytes, now.saturating_sub(step.started));
    format!("{}: {}{of} ({speed})", step.name, bytes(step.done_bytes))
}

#[cfg(test)]
mod tests;
