//! Processes of the lab itself: the application, and the relay of bad links.

use lifeboat_lab::layout::Layout;
use lifeboat_lab::{ledger, relay, state};
use lifeboat_telemetry::Outcome;

use super::Place;
use crate::context::Context;

/// Which lab.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
}

/// Writes into the ledger until it is told to end.
pub fn ledger(args: &Args, context: &Context) -> Outcome<u8> {
    ledger::run(&layout(args, context)?, &context.environment, &context.cancel)?;
    Ok(0)
}

/// Carries packets until it is told to end.
pub fn relay(args: &Args, context: &Context) -> Outcome<u8> {
    relay::run(&layout(args, context)?, &context.environment, &context.cancel)?;
    Ok(0)
}

fn layout(args: &Args, context: &Context) -> Outcome<Layout> {
    let root = args.place.root(&context.environment)?;
    let state = state::read(&root)?;
    Ok(Layout::new(root, state.isolation))
}
