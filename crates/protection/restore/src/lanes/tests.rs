use std::thread;

use super::*;

fn batch(bytes: u64) -> Batch {
    Batch { pieces: Vec::new(), bytes }
}

#[test]
fn a_worker_prefers_its_own_lane_and_then_the_common_one() {
    let (feed, mut intakes) = lanes(2);
    feed.send_in(0, batch(10));
    feed.send_in(1, batch(20));
    feed.send(batch(30));
    assert_eq!(intakes[1].next().map(|batch| batch.bytes), Some(20));
    assert_eq!(intakes[1].next().map(|batch| batch.bytes), Some(30));
    assert_eq!(intakes[1].next().map(|batch| batch.bytes), Some(10));
    drop(feed);
    assert!(intakes[1].next().is_none());
}

#[test]
fn every_batch_is_taken_once_by_whoever_is_free() {
    let (feed, intakes) = lanes(3);
    let taken: u64 = thread::scope(|scope| {
        let workers = intakes.into_iter().map(|mut intake| {
            scope.spawn(move || {
                std::iter::from_fn(|| intake.next()).map(|batch| batch.bytes).sum::<u64>()
            })
        });
        let workers: Vec<_> = workers.collect();
        for number in 1..=300 {
            match number % 3 {
                0 => feed.send(batch(number)),
                _ => {
                    let lane = 1 - feed.room([1, 0].into_iter());
                    feed.send_in(lane, batch(number));
                }
            }
        }
        drop(feed);
        workers.into_iter().map(|worker| worker.join().expect("a worker")).sum()
    });
    assert_eq!(taken, 300 * 301 / 2);
}

#[test]
fn nobody_waits_for_workers_that_are_gone() {
    let (feed, intakes) = lanes(1);
    drop(intakes);
    for number in 0..10 {
        feed.send(batch(number));
        let lane = feed.room([0].into_iter());
        feed.send_in(lane, batch(number));
    }
}
