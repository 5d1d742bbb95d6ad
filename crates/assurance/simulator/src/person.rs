//! Persons: they give commands at any time, as the command line would.

use std::rc::Rc;
use std::time::Duration;

use lifeboat_environment::{Clock, Timer};
use lifeboat_failover::{Mirror, View, Wanted, start};
use lifeboat_quorum::{Commit, Store};
use lifeboat_workflow::{Change, Kind, StepState};

use crate::chance::Chance;
use crate::mutant::Mutant;
use crate::world::World;

/// What a person may want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Move(Kind),
    Abort,
    Retry,
}

/// Lets persons give a few commands within a span of time.
pub fn arrange(world: &Rc<World>, chance: &mut Chance, span: Duration) {
    for _ in 0..chance.range(1, 5) {
        let at = chance.between(Duration::ZERO, span);
        let command = match chance.below(10) {
            0..5 => Command::Move(Kind::Switchover),
            5..7 => Command::Move(Kind::Failover),
            7 => Command::Move(Kind::Fallback),
            8 => Command::Abort,
            _ => Command::Retry,
        };
        let seat = chance.place(3);
        let world = Rc::clone(world);
        world.plant.sim.clone().after(at, move || give(&world, command, seat));
    }
}

/// Somebody does not wait for the judge.
pub fn fail_over(world: &Rc<World>, seat: usize) {
    give(world, Command::Move(Kind::Failover), seat);
}

/// A person at a host of a domain gives a command.
fn give(world: &Rc<World>, command: Command, seat: usize) {
    let sim = world.plant.sim.clone();
    if world.is_down(seat) {
        return;
    }
    let process = sim.process(world.host(seat), "person");
    sim.note_of(process, format!("wants: {command:?}"));
    let (world, timer) = (Rc::clone(world), sim.timer(process));
    let clock = sim.clock(world.host(seat));
    let timeout = world.scene.service.timing.store_timeout;
    let store = world.etcd.client(process, timeout);
    sim.clone().spawn(process, async move {
        let now = timer.elapsed();
        let read = store.read(world.keys.all(), 0).await;
        let said = match read {
            Err(error) => error.to_string(),
            Ok(snapshot) => {
                let mut mirror = Mirror::new();
                mirror.take(snapshot, now);
                match View::of(&world.scene.service, &world.keys, &mirror) {
                    Err(error) => error.to_string(),
                    Ok(view) => carry_out(&world, command, &view, &store, now, &clock).await,
                }
            }
        };
        sim.note_of(process, format!("is told: {said}"));
    });
}

async fn carry_out(
    world: &World,
    command: Command,
    view: &View,
    store: &dyn Store,
    now: Duration,
    clock: &dyn Clock,
) -> String {
    let service = &world.scene.service;
    let at = clock.now();
    let transaction = match command {
        Command::Move(kind) => {
            let mut view = view.clone();
            if world.mutant == Some(Mutant::TwoRuns)
                && let Some(record) = &mut view.record
            {
                record.value.run = None;
            }
            let view = &view;
            let (by, reason) = ("person".to_owned(), "a person wants it".to_owned());
            let wanted =
                Wanted { kind, to: None, by, reason, failing_since: None, last_worked: None };
            match start(service, view, &world.keys, &wanted, now, at) {
                Ok((_, transaction)) => transaction,
                Err(failure) => return failure.full_message(),
            }
        }
        Command::Abort | Command::Retry => {
            let (Some(record), Some((run, _))) = (&view.record, &view.run) else {
                return "there is no run".to_owned();
            };
            let change = match command {
                Command::Abort if run.can_go_back() => Change::Aborting,
                Command::Retry if run.state() == StepState::Failed => Change::Retried,
                _ => return "that is not possible now".to_owned(),
            };
            let writes = lifeboat_failover::Writes::new(change, "a person wants it");
            let read = (&record.value, record.revision);
            writes.transaction(service, &world.keys, read, run, "person", at)
        }
    };
    match store.commit(transaction).await {
        Ok(Commit::Done(_)) => "done".to_owned(),
        Ok(Commit::Conflict) => "somebody was quicker".to_owned(),
        Err(error) => error.to_string(),
    }
}
