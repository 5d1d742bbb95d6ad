//! Lifeboat beside pgBackRest on the same data, in interleaved rounds: `cargo xtask bench`.

mod contender;
mod ground;
mod measure;
mod report;

use std::path::Path;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use contender::{Contender, Mode};
use ground::Ground;
use measure::{Measured, measure};
pub use report::median;
use report::{Report, Round};

/// What to measure and how often.
#[derive(Debug, Args)]
pub struct Options {
    /// Rounds; in each, every tool does the task once, and who begins takes turns.
    #[arg(long, default_value_t = 7)]
    pairs: usize,
    /// Size of the cluster; 1 is about 3 GB.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Only these tasks.
    #[arg(long)]
    task: Vec<Task>,
    /// Only this tool; there are no ratios then.
    #[arg(long)]
    tool: Option<Tool>,
}

/// A thing that both tools do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Task {
    /// A full backup into an empty repository.
    Full,
    /// A restore into an empty directory.
    Restore,
    /// A restore over a copy of which 5 % of the pages were overwritten.
    Delta,
    /// 64 segments through archive_command, as PostgreSQL's archiver calls it.
    Push,
    /// 64 segments through restore_command.
    Fetch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tool {
    Lifeboat,
    Pgbackrest,
}

/// Measures everything that was asked for and prints it.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    if options.pairs == 0 {
        bail!("--pairs must be at least 1");
    }
    let mut ground = Ground::new(options.scale)?;
    let lifeboat = options.tool.is_none_or(|tool| tool == Tool::Lifeboat);
    let pgbackrest = options.tool.is_none_or(|tool| tool == Tool::Pgbackrest);
    let mut contenders = Vec::new();
    if lifeboat {
        contenders.push(Contender::lifeboat(root, &ground)?);
    }
    if pgbackrest {
        contenders.push(Contender::pgbackrest(&ground, Mode::Synchronous)?);
        contenders.push(Contender::pgbackrest(&ground, Mode::Asynchronous)?);
    }
    let mut report = Report::new(options.scale, ground.describe()?);
    for task in Task::value_variants() {
        if options.task.is_empty() || options.task.contains(task) {
            let rounds = rounds(*task, options.pairs, &mut ground, &contenders)?;
            report.add(*task, rounds);
        }
    }
    report.write(root)
}

/// Interleaved rounds of one task.
fn rounds(
    task: Task,
    count: usize,
    ground: &mut Ground,
    contenders: &[Contender],
) -> Result<Vec<Round>> {
    let wal = matches!(task, Task::Push | Task::Fetch);
    // Only WAL has an asynchronous way.
    let takes_part = |one: &&Contender| wal || one.mode() == Mode::Synchronous;
    let mut contenders: Vec<&Contender> = contenders.iter().filter(takes_part).collect();
    prepare(task, ground, &contenders)?;
    let mut rounds = Vec::new();
    for number in 1..=count {
        let mut round = Round::default();
        for contender in &contenders {
            let measured = once(task, ground, contender, number)?;
            eprintln!("bench: {task:?} {number}/{count} {}: {measured}", contender.name());
            round.results.insert(contender.name().to_owned(), measured);
        }
        rounds.push(round);
        contenders.rotate_left(1);
    }
    Ok(rounds)
}

/// What a task needs before its first round.
fn prepare(task: Task, ground: &mut Ground, contenders: &[&Contender]) -> Result<()> {
    match task {
        Task::Full => ground.start(),
        Task::Restore | Task::Delta => {
            for contender in contenders {
                if !contender.has_backup() {
                    ground.start()?;
                    full(ground, contender)?;
                }
                if task == Task::Delta {
                    restore(ground, contender, false)?;
                }
            }
            ground.stop()
        }
        Task::Push => ground.make_segments(),
        Task::Fetch => {
            ground.make_segments()?;
            for contender in contenders {
                push(ground, contender)?;
                ground.fetch_last(contender)?;
                contender.save_state()?;
            }
            Ok(())
        }
    }
}

fn once(task: Task, ground: &Ground, contender: &Contender, number: usize) -> Result<Measured> {
    match task {
        Task::Full => full(ground, contender),
        Task::Restore => restore(ground, contender, false),
        Task::Delta => {
            let target = contender.target();
            let changed = ground::diverge(&target, number)?;
            let measured = restore(ground, contender, true)?;
            ground::assert_healed(&changed)?;
            Ok(measured)
        }
        Task::Push => push(ground, contender),
        Task::Fetch => fetch(ground, contender),
    }
}

fn full(ground: &Ground, contender: &Contender) -> Result<Measured> {
    contender.reset()?;
    ground.archive_with(contender)?;
    let mut measured = measure(ground, |runner| runner.run(&mut contender.backup()?))?;
    measured.stored_bytes = Some(contender.stored_bytes()?);
    Ok(measured)
}

fn restore(ground: &Ground, contender: &Contender, delta: bool) -> Result<Measured> {
    let target = contender.target();
    if !delta {
        contender.empty_target()?;
    }
    measure(ground, |runner| runner.run(&mut contender.restore(&target, delta)?))
}

/// Drains 64 segments in the archiver's way: one process after the other, each for the oldest
/// segment that is ready.
fn push(ground: &Ground, contender: &Contender) -> Result<Measured> {
    contender.reset()?;
    let segments = ground.segments();
    let Some((first, rest)) = segments.split_first() else { bail!("there is no WAL") };
    // The first push of a new repository does work that later ones do not.
    ground.mark_ready(std::slice::from_ref(first))?;
    measure(ground, |runner| runner.run(&mut contender.push(first)?))?;
    ground.mark_ready(rest)?;
    let mut measured = measure(ground, |runner| {
        for name in rest {
            runner.run(&mut contender.push(name)?)?;
            ground.mark_done(name)?;
        }
        Ok(())
    })?;
    measured.stored_bytes = Some(contender.stored_bytes()?);
    Ok(measured)
}

/// Fetches 64 segments one after the other, as a recovery that replays in no time.
fn fetch(ground: &Ground, contender: &Contender) -> Result<Measured> {
    contender.restore_state()?;
    let segments = ground.segments();
    let Some((_, wanted)) = segments.split_last() else { bail!("there is no WAL") };
    let measured = measure(ground, |runner| {
        for name in wanted {
            runner.run(&mut contender.fetch(name, &ground.fetched(name))?)?;
        }
        Ok(())
    })?;
    ground.assert_fetched(wanted)?;
    Ok(measured)
}
