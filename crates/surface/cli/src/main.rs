//! The one binary: lifeboat.
//!
//! `shell` parses the command line and prints; each file of `commands` is one command.

mod arguments;
mod commands;
mod context;
mod control;
mod exit;
mod keyring;
mod output;
mod progress;
mod record;
mod shell;
mod site;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::panic::catch_unwind;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // PostgreSQL reads the exit code of `wal push` and `wal fetch`; what it may see is settled
    // before anything can go wrong, the parsing of the arguments included.
    let promise = exit::Promise::of(&arguments);
    let code = catch_unwind(|| shell::run(&arguments, promise))
        .unwrap_or_else(|_| shell::end_after_panic(&arguments, promise));
    ExitCode::from(code)
}
