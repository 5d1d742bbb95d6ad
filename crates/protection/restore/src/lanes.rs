//! How batches reach the workers. Two threads that write to one file wait for each other inside
//! the kernel, and burn processor time while they do: a file of many batches has a lane of its own,
//! which one worker prefers. What is short goes to a common lane, and who has nothing else to do
//! takes from the lanes of others.

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, bounded};

use crate::batch::Batch;

/// Batches that wait in a lane; each holds the runs of 16 MiB, and one keeps a worker busy.
const WAITING: usize = 2;

/// Where batches go in.
pub(crate) struct Feed {
    lanes: Vec<Sender<Batch>>,
    common: Sender<Batch>,
}

/// Where one worker takes them out.
pub(crate) struct Intake {
    /// Its own lane, the common one, those of others; without those that are closed and empty.
    lanes: Vec<Receiver<Batch>>,
}

/// One lane a worker, and the common one.
pub(crate) fn lanes(workers: usize) -> (Feed, Vec<Intake>) {
    let (common, common_end) = bounded(WAITING);
    let (lanes, ends): (Vec<_>, Vec<_>) = (0..workers).map(|_| bounded(WAITING)).unzip();
    let intakes = (0..workers).map(|own| {
        let others = (1..workers).map(|step| (own + step) % workers);
        let mut lanes = vec![ends[own].clone(), common_end.clone()];
        lanes.extend(others.map(|other: usize| ends[other].clone()));
        Intake { lanes }
    });
    let intakes = intakes.collect();
    (Feed { lanes, common }, intakes)
}

impl Feed {
    /// How many files may have a lane at a time.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Waits for room in the common lane. If no worker is left, the batch is lost, and the
    /// failure of one of them says why.
    pub(crate) fn send(&self, batch: Batch) {
        let _ = self.common.send(batch);
    }

    /// Waits until one of the lanes `offered` has room, and tells which of them, by its position.
    pub(crate) fn room(&self, offered: impl Iterator<Item = usize>) -> usize {
        let mut select = Select::new();
        for lane in offered {
            select.send(&self.lanes[lane]);
        }
        select.ready()
    }

    /// Puts a batch into a lane that has room.
    pub(crate) fn send_in(&self, lane: usize, batch: Batch) {
        let _ = self.lanes[lane].send(batch);
    }
}

impl Intake {
    /// The next batch; `None` once everything was handed out.
    pub(crate) fn next(&mut self) -> Option<Batch> {
        loop {
            // In order of preference; of what was looked at twice, nothing is missed.
            for lane in 0..self.lanes.len().min(2) {
                match self.lanes[lane].try_recv() {
                    Ok(batch) => return Some(batch),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
                }
            }
            if self.lanes.is_empty() {
                return None;
            }
            let mut select = Select::new();
            for lane in &self.lanes {
                select.recv(lane);
            }
            let ready = select.select();
            let index = ready.index();
            match ready.recv(&self.lanes[index]) {
                Ok(batch) => return Some(batch),
                Err(_) => drop(self.lanes.remove(index)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
}
