//! A receiver that dies anywhere: what it acknowledged is in the spool or in the repository.

use std::fs;
use std::os::unix::fs::FileExt;

use lifeboat_model::Lsn;
use lifeboat_telemetry::Code;

use super::script::{Seen, Server, Stage, code};
use super::written::{SEGMENT, Wal};
use crate::receive::SealRequest;
use crate::receive::seal::seal;

fn wal() -> Wal {
    let mut wal = Wal::new(1, 3 * SEGMENT, 33);
    wal.grow(2 * SEGMENT + 300_000);
    wal
}

const FAILPOINTS: [&str; 4] =
    ["receive.written", "receive.flushed", "receive.shipped", "receive.consolidated"];

#[test]
fn what_was_acknowledged_is_kept_wherever_it_dies() {
    for failpoint in FAILPOINTS {
        let mut stage = Stage::new();
        let wal = wal();
        stage.fails_at(&format!("{failpoint}=error"));
        let (outcome, _, seen) = stage.receive(vec![Server::of(wal.clone())]);
        assert_eq!(code(&outcome), Code::Failpoint, "{failpoint}");
        stage.keeps_what_it_acknowledged(&wal, &seen);
        // And the next run goes on to the end.
        stage.receive(vec![Server::of(wal.clone())]).0.unwrap();
        stage.holds(&wal, wal.end());
    }
}

/// Spoils what was never flushed, as a power cut may: any of it may be missing.
fn cut_power(stage: &Stage, seen: &Seen, seed: u8) {
    let acknowledged = seen.acknowledged.iter().map(|(_, lsn)| *lsn).max();
    let kept = acknowledged.unwrap_or(Lsn::ZERO).max(Lsn(3 * SEGMENT));
    let folder = stage.spool().join("00000001");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let number = u64::from_str_radix(&name[16..], 16).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        // Only the file that was being written: the others were flushed.
        if number != kept.0 / SEGMENT {
            continue;
        }
        let from = kept.0 % SEGMENT;
        for page in (from..SEGMENT).step_by(4096) {
            let to = (page + 4096).min(SEGMENT) & !4095;
            if (page / 4096) % 3 == u64::from(seed) % 3 && to > page {
                file.write_all_at(&vec![seed; (to - page) as usize], page).unwrap();
            }
        }
    }
}

#[test]
fn after_a_power_cut_only_whole_records_count() {
    for seed in 0..6 {
        let mut stage = Stage::new();
        let wal = wal();
        let mut server = Server::of(wal.clone());
        server.pieces = vec![10_000 + usize::from(seed) * 777];
        let goal = Lsn(wal.start.0 + SEGMENT / 2 + u64::from(seed) * 100_000);
        let mut script = stage.script(vec![server.clone()], Some(goal));
        stage.run(&mut script, false).unwrap();
        stage.fails_at("receive.written=error");
        let (outcome, _, second) = stage.receive(vec![server.clone()]);
        assert_eq!(code(&outcome), Code::Failpoint);
        let mut seen = script.seen.take();
        seen.acknowledged.extend(second.acknowledged);
        cut_power(&stage, &seen, seed);
        stage.keeps_what_it_acknowledged(&wal, &seen);
        stage.receive(vec![server]).0.unwrap();
        stage.holds(&wal, wal.end());
    }
}

#[test]
fn a_store_that_is_away_stops_nothing_until_the_spool_is_full() {
    let mut stage = Stage::new();
    let wal = {
        let mut wal = Wal::new(1, 3 * SEGMENT, 33);
        wal.grow(12 * SEGMENT);
        wal
    };
    stage.spool_limit = 6 * SEGMENT;
    let begun = Lsn(wal.start.0 + SEGMENT);
    let mut script = stage.script(vec![Server::of(wal.clone())], Some(wal.end()));
    let (folder, east) = (stage.world.folder.path().join("lost"), stage.world.repository("east"));
    let spool = stage.spool();
    let state = std::cell::Cell::new((0, Lsn::ZERO));
    script.watch = std::rc::Rc::new(move |_, acknowledged| {
        let (step, last) = state.get();
        let same = acknowledged == last;
        match step {
            0 if acknowledged >= begun => {
                fs::rename(&east, &folder).unwrap();
                state.set((1, acknowledged));
            }
            // It stands still: the spool is full, and not beyond its limit.
            1 if same && acknowledged > Lsn(begun.0 + 2 * SEGMENT) => {
                let files = fs::read_dir(spool.join("00000001")).unwrap().count() as u64;
                assert!(files <= 6, "{files} files");
                fs::rename(&folder, &east).unwrap();
                state.set((2, acknowledged));
            }
            step => state.set((step, acknowledged)),
        }
    });
    stage.run(&mut script, false).unwrap();
    let said = stage.said();
    for line in ["the spool is full", "takes nothing", "answers again", "has room again"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    stage.holds(&wal, wal.end());
}

#[test]
fn a_second_receiver_of_the_same_spool_is_refused() {
    let stage = Stage::new();
    let path = stage.spool();
    let _held = crate::receive::folder::Folder::open(path).unwrap();
    assert_eq!(code(&stage.drain()), Code::ReceiverRunning);
}

fn sealed(stage: &Stage, epoch: u64) -> crate::receive::Seal {
    let request = SealRequest {
        environment: &stage.world.environment,
        cancel: &lifeboat_telemetry::Cancel::new(),
        stream: &stage.world.stream,
        region: "east",
        state: &stage.world.state(),
        epoch,
        deadline: std::time::Duration::from_secs(60),
    };
    seal(&request).unwrap()
}

#[test]
fn a_seal_counts_for_ever_and_names_the_last_position() {
    let mut stage = Stage::new();
    let wal = wal();
    let half = Lsn(wal.start.0 + SEGMENT / 2);
    stage.run(&mut stage.script(vec![Server::of(wal.clone())], Some(half)), false).unwrap();
    let seal = sealed(&stage, 3);
    assert!(seal.flushed.is_some_and(|flushed| flushed >= wal.whole(half)));
    // A lower one changes nothing.
    assert_eq!(sealed(&stage, 2), seal);
    for epoch in [0, 3] {
        stage.epoch = epoch;
        let (outcome, _, seen) = stage.receive(vec![Server::of(wal.clone())]);
        assert_eq!(code(&outcome), Code::ReceiverSealed);
        assert!(seen.acknowledged.is_empty());
    }
    stage.epoch = 4;
    stage.receive(vec![Server::of(wal.clone())]).0.unwrap();
    stage.holds(&wal, wal.end());
}

#[test]
fn a_running_receiver_seals_itself_and_ships_what_it_has() {
    let stage = std::rc::Rc::new(Stage::new());
    let wal = wal();
    let order = stage.spool().join("seal.wanted");
    let half = Lsn(wal.start.0 + SEGMENT / 2);
    let mut server = Server::of(wal.clone());
    server.pieces = vec![5000];
    let mut script = stage.script(vec![server], Some(wal.end()));
    script.watch = std::rc::Rc::new(move |_, acknowledged| {
        if acknowledged >= half && !order.exists() {
            fs::write(&order, r#"{"epoch":7}"#).unwrap();
        }
    });
    let outcome = stage.run(&mut script, false);
    assert_eq!(code(&outcome), Code::ReceiverSealed);
    let seal = sealed(&stage, 7);
    let most = script.seen.borrow().acknowledged.iter().map(|(_, lsn)| *lsn).max().unwrap();
    assert!(most < wal.end());
    // What was flushed ends in the middle of a record. Nobody can replay that, and nobody needs to.
    assert!(wal.whole(most) < most);
    assert_eq!(seal.flushed, Some(wal.whole(most)));
    stage.holds(&wal, wal.whole(most));
}
