//! The binary as people, scripts and PostgreSQL meet it.

mod against_postgres;
mod enroll;
mod exit_codes;
mod repositories;
mod streams;

use std::process::{Command, Output};

/// The binary with an environment that holds nothing of the machine's.
fn lifeboat(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    command.args(arguments).env_clear();
    command
}

fn run(arguments: &[&str]) -> Output {
    lifeboat(arguments).output().expect("the binary starts")
}

/// `TRYCMD=overwrite` takes new snapshots.
#[test]
fn commands_print_what_the_snapshots_say() {
    trycmd::TestCases::new().case("tests/snapshots/*.md");
}
