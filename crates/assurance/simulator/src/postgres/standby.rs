//! A standby: streams, else reads the archive, replays, and is promoted.

use std::time::Duration;

use lifeboat_environment::Timer;

use super::server::{Mode, Server};
use super::{Request, Streamed};
use crate::repository;
use crate::wal::{Record, Tip};

const PAUSE: Duration = Duration::from_millis(150);
const ANSWER: Duration = Duration::from_millis(700);
const BATCH: usize = 500;

/// Lives until it is a primary.
pub(super) async fn run(server: &Server) {
    let replayer = server.clone();
    server.plant.sim.spawn(server.node.postgres, async move { replay(&replayer).await });
    loop {
        let (mode, upstream) = {
            let memory = server.memory.borrow();
            (memory.mode, memory.upstream.clone())
        };
        match mode {
            Mode::Promoting => return promote(server).await,
            Mode::Standby => {}
            _ => return,
        }
        let came = match upstream.filter(|_| !server.plant.is_unplugged()) {
            Some(upstream) => stream(server, &upstream).await,
            None => {
                server.memory.borrow_mut().streaming = false;
                false
            }
        };
        if !came && !fetch(server).await {
            server.timer.sleep(PAUSE).await;
        }
    }
}

/// One round of the stream; whether it is one.
async fn stream(server: &Server, upstream: &lifeboat_model::NodeName) -> bool {
    let Some(node) = server.plant.node(&server.node.database, upstream) else { return false };
    let tip = server.node.disk.borrow().log.tip();
    let name = server.node.name.to_string();
    let ask = |reply| Request::Stream { name, tip, epoch: None, reply };
    let answer = node.address.ask(server.node.postgres, ANSWER, ask).await;
    // Nothing new within the time is a stream too, if it was one.
    let still = server.memory.borrow().upstream.as_ref() == Some(upstream);
    let (streams, records) = match answer {
        Ok(Streamed::Data(records)) if still => (true, records),
        Ok(_) => (false, Vec::new()),
        Err(crate::message::Unanswered::Timeout) => {
            let quiet = server.memory.borrow().streaming && still;
            (quiet && is_reachable(server, &node).await, Vec::new())
        }
        Err(crate::message::Unanswered::Refused) => (false, Vec::new()),
    };
    if !records.is_empty() {
        flush(server, tip, &records).await;
    }
    server.memory.borrow_mut().streaming = streams;
    streams
}

async fn is_reachable(server: &Server, node: &super::Node) -> bool {
    let ask = |reply| Request::Inspect { reply };
    let answer = node.address.ask(server.node.postgres, ANSWER, ask).await;
    answer.is_ok_and(|instance| instance.is_primary())
}

/// Reads what follows from the own region's repository; whether anything did.
async fn fetch(server: &Server) -> bool {
    let Some(repository) = server.plant.repository(&server.node.region) else { return false };
    let tip = server.node.disk.borrow().log.tip();
    let database = server.node.database.clone();
    let ask = |reply| repository::Request::After { database, id: tip.id, most: BATCH, reply };
    let answer = repository.address.ask(server.node.postgres, ANSWER, ask).await;
    let records = answer.unwrap_or_default();
    if !records.is_empty() {
        flush(server, tip, &records).await;
    }
    !records.is_empty()
}

async fn flush(server: &Server, from: Tip, records: &[Record]) {
    let (least, most) = server.plant.disk(server.node.host);
    server.timer.sleep(server.plant.sim.between(least, most)).await;
    server.node.disk.borrow_mut().log.extend_from(from, records);
}

async fn replay(server: &Server) {
    loop {
        let (least, most) = server.plant.tuning.replay;
        server.timer.sleep(server.plant.sim.between(least, most)).await;
        let received = server.node.disk.borrow().log.len();
        server.memory.borrow_mut().replayed = received;
        if !matches!(server.memory.borrow().mode, Mode::Standby | Mode::Promoting) {
            return;
        }
    }
}

/// Replays what is there, reads what the archive has, and begins a timeline.
async fn promote(server: &Server) {
    while fetch(server).await {}
    let (least, most) = server.plant.tuning.promotion;
    server.timer.sleep(server.plant.sim.between(least, most)).await;
    let known = server.plant.repository(&server.node.region);
    let known = known.map_or(1, |repository| repository.newest_timeline());
    let newest = server.log().timeline().max(known);
    {
        let mut disk = server.node.disk.borrow_mut();
        disk.log.push(Record { id: server.plant.id(), timeline: newest + 1, at: None });
        disk.standby = false;
        server.memory.borrow_mut().replayed = disk.log.len();
    }
    server.memory.borrow_mut().streaming = false;
    server.become_primary();
}
