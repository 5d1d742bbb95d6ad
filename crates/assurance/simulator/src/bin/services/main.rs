//! One production controller over many services, in real time: `cargo xtask bench-services`.
//!
//! The controller is a process of its own, so that what is measured is its own: CPU and memory by
//! /proc. Its store, its endpoints, two more observers a service and all agents live in this
//! process, the world, at the other end of a socket.

mod controller;
mod process;
mod report;
mod rounds;
mod services;
mod wire;
mod world;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use futures::future::{Either, select, try_join};
use tokio::net::UnixListener;

use process::Used;
use report::Report;
use rounds::Rounds;
use world::World;

#[derive(Parser)]
struct Arguments {
    /// How many services.
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// For how long the controller is measured while nothing happens.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How often one service alone fails.
    #[arg(long, default_value_t = 5)]
    singles: usize,
    /// Prints what the controller says.
    #[arg(long)]
    noisy: bool,
    /// This is the controller, and there is the world.
    #[arg(long, hide = true)]
    world: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether all bars are met.
fn run(arguments: &Arguments) -> Result<bool> {
    let Arguments { services, seconds, singles, noisy, world } = arguments;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(socket) = world {
        runtime.block_on(controller::run(socket, *services, *noisy))?;
        return Ok(true);
    }
    ensure!(*services >= 10, "--services must be at least 10");
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("world");
    let report = runtime.block_on(async {
        let listener = UnixListener::bind(&socket)?;
        let child = start(&socket, arguments)?;
        measure(listener, &child, *services, *singles, Duration::from_secs(*seconds)).await
    })?;
    report.print()
}

/// The controller's process; it ends with this one.
struct Controller(Child);

impl Drop for Controller {
    fn drop(&mut self) {
        // It has nothing to lose, and may be gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(socket: &Path, arguments: &Arguments) -> Result<Controller> {
    let own = std::env::current_exe()?;
    let mut command = Command::new(own);
    command.args(["--services", &arguments.services.to_string()]).arg("--world").arg(socket);
    command.args(arguments.noisy.then_some("--noisy"));
    Ok(Controller(command.spawn().context("cannot start the controller")?))
}

async fn measure(
    listener: UnixListener,
    child: &Controller,
    services: usize,
    singles: usize,
    steady: Duration,
) -> Result<Report> {
    let world = Rc::new(World::new(&services::all(services)?)?);
    let (stream, _) = listener.accept().await?;
    let rounds = Rounds::new(&world, Used::of(child.0.id()), Used::of(std::process::id()));
    let goes_on = try_join(world.live(), world::serve(&world, stream));
    let script = rounds.run(singles, steady);
    match select(Box::pin(script), Box::pin(goes_on)).await {
        Either::Left((report, _)) => report,
        Either::Right((ended, _)) => match ended {
            Ok(_) => anyhow::bail!("the world has ended"),
            Err(error) => Err(error),
        },
    }
}
