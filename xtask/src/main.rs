//! Project tasks in Rust instead of shell: `cargo xtask --help`.

mod bench;
mod demo;
mod failover;
mod install;
mod patroni;
mod schema;
mod services;
mod stream;
mod test;
mod tidy;
mod torture;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the Lifeboat project")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what tests need and this machine lacks.
    Install,
    /// Run every check and test; installs what they need.
    Test {
        /// Arguments for `cargo nextest run`, as in `cargo xtask test -- -E 'test(pg15)'`.
        #[arg(last = true)]
        nextest: Vec<String>,
    },
    /// Tell the whole story on a real cluster, with the real commands.
    Demo(demo::Options),
    /// Measure Lifeboat beside pgBackRest on the same data.
    Bench(bench::Options),
    /// Measure a receiver beside pg_receivewal.
    BenchStream(stream::Options),
    /// Measure how long clients are without a service that moves, in the lab.
    BenchFailover(failover::Options),
    /// Measure Patroni's failover and switchover, as the peer of Lifeboat's.
    BenchPatroni(patroni::Options),
    /// Measure one controller over 1,000 services: CPU, memory, and how soon it decides.
    BenchServices(services::Options),
    /// Break things on purpose for as long as it takes; `cargo xtask test` does a sample of it.
    Torture(torture::Options),
    /// Check the house rules that compilers do not know.
    Tidy,
    /// Write the files that are made from code: the JSON Schema of the spec, the list of errors.
    Schema,
}

fn main() -> ExitCode {
    match run(&Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> Result<()> {
    match task {
        Task::Install => install::run(),
        Task::Test { nextest } => test::run(root(), nextest),
        Task::Demo(options) => demo::run(root(), options),
        Task::Bench(options) => bench::run(root(), options),
        Task::BenchStream(options) => stream::run(root(), options),
        Task::BenchFailover(options) => failover::run(root(), options),
        Task::BenchPatroni(options) => patroni::run(options),
        Task::BenchServices(options) => services::run(root(), options),
        Task::Torture(options) => torture::run(root(), options),
        Task::Tidy => tidy::run(root()),
        Task::Schema => schema::write(root()),
    }
}

/// The workspace, wherever the task was started.
fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}
