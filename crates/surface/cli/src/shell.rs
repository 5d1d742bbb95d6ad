//! From raw arguments to an exit code: parse, prepare, run, print.

use std::ffi::OsString;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use clap::error::ErrorKind;
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Cancel, Code, Event, Failure, Kind, Outcome};
use signal_hook::consts::{SIGINT, SIGTERM};
use tracing_subscriber::filter::LevelFilter;

use crate::arguments::{Arguments, Global, wants_json};
use crate::commands;
use crate::context::Context;
use crate::exit::Promise;
use crate::output::Output;

/// Runs one command line and returns the exit code that `promise` allows.
pub fn run(arguments: &[OsString], promise: Promise) -> u8 {
    let output = Output::new(wants_json(arguments));
    std::panic::set_hook(Box::new(move |info| tell_panic(output, info)));
    let environment = Environment::system();
    let cancel = Cancel::new();
    let started = environment
        .failpoints()
        .hit("cli.start")
        .map_err(Failure::from)
        .and_then(|()| listen_to_signals(&cancel, promise))
        .and_then(|()| Ok(environment.failpoints().hit("cli.listening")?));
    if let Err(failure) = started {
        return fail(output, promise, &failure);
    }
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return explain_usage(output, promise, &error),
    };
    start_log(&arguments.global);
    let context = Context::new(environment, arguments.global, cancel);
    match commands::run(arguments.command, &context, output) {
        Ok(code) => promise.success(code),
        Err(failure) => fail(output, promise, &failure),
    }
}

fn fail(output: Output, promise: Promise, failure: &Failure) -> u8 {
    if promise == Promise::Fetch && failure.code() == Code::WalAbsent {
        // The usual end of every recovery, and what a standby hears every few seconds.
        output.absent(failure);
    } else {
        output.failure(failure);
    }
    promise.failure(failure)
}

/// The first signal asks the flow to stop at a safe place, the second ends the process. WAL
/// commands end with the first: they are made to be killed, and PostgreSQL is waiting.
fn listen_to_signals(cancel: &Cancel, promise: Promise) -> Outcome<()> {
    let armed = match promise {
        Promise::Guard => return Ok(()),
        Promise::Plain => cancel.flag(),
        Promise::Push | Promise::Fetch => Arc::new(AtomicBool::new(true)),
    };
    let code = i32::from(promise.interrupted());
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the exit is armed by the flag that the second handler sets.
        signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&armed))
            .and_then(|_| signal_hook::flag::register(signal, cancel.flag()))
            .map_err(|error| {
                Failure::new(Code::Internal, "cannot listen to signals").because(error)
            })?;
    }
    Ok(())
}

/// Prints what clap found: help and version as data, everything else as a failure.
fn explain_usage(output: Output, promise: Promise, error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output.page(&error.render().ansi().to_string());
            0
        }
        _ => {
            output.usage(error);
            promise.success(Kind::Usage.exit_code())
        }
    }
}

fn start_log(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, 2) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    if global.json {
        log.json().init();
    } else {
        log.with_ansi(false).init();
    }
}

/// The place of a panic is told when it happens, on whatever thread; see `end_after_panic`.
fn tell_panic(output: Output, info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("no message");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    output.event(&Event::Warning { message: format!("panic at {place}: {message}") });
}

/// Prints the failure of a command that panicked and returns its exit code.
pub fn end_after_panic(arguments: &[OsString], promise: Promise) -> u8 {
    let failure = Failure::new(Code::Internal, "the command panicked")
        .hint("Please report this together with the line above; nothing else needs to be done.");
    fail(Output::new(wants_json(arguments)), promise, &failure)
}
