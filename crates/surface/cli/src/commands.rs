//! The command tree: one file a command, folders as the commands nest.

pub mod adopt;
pub mod agent;
pub mod apply;
pub mod backup;
pub mod backups;
pub mod check;
pub mod completions;
pub mod controller;
pub mod enroll;
pub mod explain;
pub mod explain_decision;
pub mod guard;
pub mod incarnations;
pub mod init;
pub mod key;
pub mod lab;
pub mod moves;
pub mod repo;
pub mod restore;
pub mod runs;
pub mod schema;
pub mod standby;
pub mod status;
pub mod unmanage;
pub mod wal;

use clap::Subcommand;
use lifeboat_telemetry::Outcome;

use crate::context::Context;
use crate::output::{Output, Report};
use backups::Backups;
use enroll::Enroll;
use guard::Guard;
use key::Key;
use lab::Lab;
use repo::Repo;
use runs::Runs;
use standby::Standby;
use wal::Wal;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Init(init::Args),
    Check(check::Args),
    Explain(explain::Args),
    #[command(subcommand)]
    Repo(Repo),
    #[command(subcommand)]
    Key(Key),
    Backup(backup::Args),
    #[command(subcommand)]
    Backups(Backups),
    #[command(subcommand)]
    Wal(Wal),
    Restore(Box<restore::Args>),
    Adopt(adopt::Args),
    #[command(subcommand)]
    Guard(Guard),
    Apply(apply::Args),
    #[command(subcommand)]
    Enroll(Enroll),
    Agent(agent::Args),
    Controller(controller::Args),
    Status(status::Args),
    Switchover(moves::SwitchoverArgs),
    Failover(moves::FailoverArgs),
    Fallback(moves::FallbackArgs),
    #[command(subcommand)]
    Runs(Runs),
    ExplainDecision(explain_decision::Args),
    #[command(subcommand)]
    Standby(Standby),
    Unmanage(unmanage::Args),
    #[command(subcommand)]
    Lab(Lab),
    Schema(schema::Args),
    Completions(completions::Args),
}

/// Runs a command, prints its report and returns its exit code.
pub fn run(command: Command, context: &Context, output: Output) -> Outcome<u8> {
    match command {
        Command::Init(args) => print(output, init::run(&args, context)),
        Command::Check(args) => print(output, check::run(&args, context)),
        Command::Explain(args) => print(output, explain::run(&args)),
        Command::Repo(Repo::Create(_)) => print(output, repo::create::run(context)),
        Command::Repo(Repo::Check(args)) => print(output, repo::check::run(&args, context)),
        Command::Repo(Repo::Stats(_)) => print(output, repo::stats::run(context)),
        Command::Repo(Repo::Prune(args)) => print(output, repo::prune::run(&args, context)),
        Command::Key(Key::Enroll(args)) => print(output, key::enroll::run(&args, context)),
        Command::Key(Key::Add(args)) => print(output, key::add::run(&args, context)),
        Command::Key(Key::List(_)) => print(output, key::list::run(context)),
        Command::Key(Key::Remove(args)) => print(output, key::remove::run(&args, context)),
        Command::Backup(args) => print(output, backup::run(&args, context)),
        Command::Backups(Backups::List(args)) => print(output, backups::list::run(&args, context)),
        Command::Backups(Backups::Show(args)) => print(output, backups::show::run(&args, context)),
        Command::Wal(Wal::Push(args)) => print(output, wal::push::run(&args, context)),
        Command::Wal(Wal::Fetch(args)) => print(output, wal::fetch::run(&args, context)),
        Command::Wal(Wal::Receive(args)) => print(output, wal::receive::run(&args, context)),
        Command::Wal(Wal::Seal(args)) => print(output, wal::seal::run(&args, context)),
        Command::Wal(Wal::Status(args)) => print(output, wal::status::run(&args, context)),
        Command::Wal(Wal::Locate(args)) => print(output, wal::locate::run(&args, context)),
        Command::Wal(Wal::Acknowledge(args)) => {
            print(output, wal::acknowledge::run(&args, context))
        }
        Command::Wal(Wal::Prefetch(args)) => print(output, wal::prefetch::run(&args, context)),
        Command::Restore(args) => print(output, restore::run(&args, context)),
        Command::Adopt(args) => print(output, adopt::run(&args, context)),
        Command::Guard(Guard::Run(args)) => print(output, guard::run::run(&args, context)),
        Command::Guard(Guard::Status(args)) => print(output, guard::status::run(&args, context)),
        Command::Guard(Guard::Manage(args)) => print(output, guard::manage::run(&args, context)),
        Command::Guard(Guard::Unmanage(args)) => {
            print(output, guard::unmanage::run(&args, context))
        }
        Command::Guard(Guard::Init(_)) => print(output, guard::init::run(context)),
        Command::Guard(Guard::Step(_)) => print(output, guard::step::run()),
        Command::Guard(Guard::Borrow(args)) => print(output, guard::borrow::run(&args)),
        Command::Apply(args) => print(output, apply::run(&args, context)),
        Command::Enroll(command) => enroll(&command, context, output),
        Command::Agent(args) => print(output, agent::run(&args, context)),
        Command::Controller(args) => print(output, controller::run(&args, context)),
        Command::Status(args) => print(output, status::run(&args, context)),
        Command::Switchover(args) => print(output, moves::switchover(&args, context)),
        Command::Failover(args) => print(output, moves::failover(&args, context)),
        Command::Fallback(args) => print(output, moves::fallback(&args, context)),
        Command::Runs(Runs::List(args)) => print(output, runs::list::run(&args, context)),
        Command::Runs(Runs::Show(args)) => print(output, runs::show::run(&args, context)),
        Command::Runs(Runs::Resume(args)) => print(output, runs::change::resume(&args, context)),
        Command::Runs(Runs::Skip(args)) => print(output, runs::change::skip(&args, context)),
        Command::Runs(Runs::Abort(args)) => print(output, runs::change::abort(&args, context)),
        Command::ExplainDecision(args) => print(output, explain_decision::run(&args, context)),
        Command::Standby(Standby::Create(args)) => {
            print(output, standby::create::run(&args, context))
        }
        Command::Standby(Standby::Salvage(args)) => {
            print(output, standby::salvage::run(&args, context))
        }
        Command::Unmanage(args) => print(output, unmanage::run(&args, context)),
        Command::Lab(command) => lab(&command, context, output),
        Command::Schema(_) => print(output, schema::run()),
        Command::Completions(args) => print(output, completions::run(&args)),
    }
}

fn enroll(command: &Enroll, context: &Context, output: Output) -> Outcome<u8> {
    match command {
        Enroll::Authority(args) => print(output, enroll::authority::run(args, context)),
        Enroll::Server(args) => print(output, enroll::server::run(args, context)),
        Enroll::Invite(args) => print(output, enroll::invite::run(args, context)),
        Enroll::Host(_) => print(output, enroll::host::run(context)),
        Enroll::Refresh(_) => print(output, enroll::refresh::run(context)),
    }
}

fn lab(command: &Lab, context: &Context, output: Output) -> Outcome<u8> {
    match command {
        Lab::Up(args) => print(output, lab::up::run(args, context)),
        Lab::Status(args) => print(output, lab::status::run(args, context)),
        Lab::Break(args) => print(output, lab::break_fault::run(args, context)),
        Lab::Heal(args) => print(output, lab::heal::run(args, context)),
        Lab::Judge(args) => print(output, lab::judge::run(args, context)),
        Lab::Demo(args) => print(output, lab::demo::run(args, context)),
        Lab::Down(args) => print(output, lab::down::run(args, context)),
        Lab::Enter(args) => Err(lab::enter::run(args, context)),
        Lab::Ledger(args) => lab::part::ledger(args, context),
        Lab::Relay(args) => lab::part::relay(args, context),
    }
}

fn print<R: Report>(output: Output, result: Outcome<R>) -> Outcome<u8> {
    let report = result?;
    output.report(&report)?;
    Ok(report.failure().map_or(0, |failure| failure.kind().exit_code()))
}
