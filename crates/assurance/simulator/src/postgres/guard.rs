//! The guard: until when its server may live.
//!
//! The rule of deadlines is production's. Its two processes that watch each other are one here, that
//! is never frozen alone, and whose death kills the server.

use std::rc::Rc;
use std::time::Duration;

use lifeboat_daemons::guard::Declined;
use lifeboat_environment::Timer;

use super::server::Server;
use super::{GuardRequest, Node};
use crate::message::Reply;
use crate::mutant::Mutant;
use crate::plant::Plant;

/// How often it looks whether what it kills is gone.
const LOOK: Duration = Duration::from_millis(2);

/// Starts the guard of a node; its server does not run.
pub fn start(plant: &Plant, node: &Rc<Node>) {
    let mut listener = node.guard_address.listen();
    let (plant, node) = (plant.clone(), Rc::clone(node));
    plant.clone().sim.spawn(node.guard, async move {
        loop {
            let request = listener.next().await;
            handle(&plant, &node, request);
        }
    });
}

fn handle(plant: &Plant, node: &Rc<Node>, request: GuardRequest) {
    match request {
        GuardRequest::Start { deadline, upstream, reply } => {
            if !node.lives.get() && !node.killing.get() && node.disk.borrow().exists {
                node.deadline.borrow_mut().clear();
                let taken = deadline.is_none_or(|deadline| extend(plant, node, deadline).is_ok());
                if taken {
                    watch(plant, node);
                    Server::start(plant, node, upstream);
                }
            }
            reply.send(());
        }
        GuardRequest::Extend { deadline, reply } => {
            let taken = node.lives.get() && !node.killing.get();
            let taken = taken && extend(plant, node, deadline).is_ok();
            if taken {
                watch(plant, node);
            }
            reply.send(taken);
        }
        GuardRequest::Kill { reply } => kill(plant, node, "fenced", Some(reply)),
    }
}

/// Production's rule of deadlines.
fn extend(plant: &Plant, node: &Node, to: Duration) -> Result<Duration, Declined> {
    let now = plant.sim.timer(node.guard).elapsed();
    node.deadline.borrow_mut().extend(now, to)
}

/// Looks at the deadline when it is there.
fn watch(plant: &Plant, node: &Rc<Node>) {
    let Some(deadline) = node.deadline.borrow().until() else { return };
    if plant.mutant == Some(Mutant::NoDeadline) {
        return;
    }
    let (plant, node) = (plant.clone(), Rc::clone(node));
    let timer = plant.sim.timer(node.guard);
    plant.clone().sim.spawn(node.guard, async move {
        timer.sleep(deadline.saturating_sub(timer.elapsed())).await;
        let over = node.deadline.borrow().passed(timer.elapsed());
        if over && node.lives.get() {
            kill(&plant, &node, "its deadline is over", None);
        }
    });
}

/// Kills every process; they go on for as long as that takes.
fn kill(plant: &Plant, node: &Rc<Node>, why: &'static str, reply: Option<Reply<Duration>>) {
    let takes = plant.sim.between(Duration::from_millis(1), plant.tuning.kill);
    let again = node.killing.replace(true);
    let (plant, node) = (plant.clone(), Rc::clone(node));
    let timer = plant.sim.timer(node.guard);
    plant.clone().sim.spawn(node.guard, async move {
        if again {
            // Its processes have their signal already: a second one makes nothing quicker.
            let began = timer.elapsed();
            while node.killing.get() {
                timer.sleep(LOOK).await;
            }
            if let Some(reply) = reply {
                reply.send(timer.elapsed().saturating_sub(began));
            }
            return;
        }
        timer.sleep(takes).await;
        node.deadline.borrow_mut().clear();
        node.die(&plant, why);
        if let Some(reply) = reply {
            reply.send(takes);
        }
    });
}

/// The guard died: whoever watches it kills the server.
pub fn died(plant: &Plant, node: &Rc<Node>) {
    plant.sim.kill(node.guard);
    let takes = plant.sim.between(Duration::from_millis(1), plant.tuning.kill);
    let (after, node) = (plant.clone(), Rc::clone(node));
    plant.sim.after(takes, move || {
        node.deadline.borrow_mut().clear();
        node.die(&after, "its guard died");
        start(&after, &node);
    });
}
