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
mod tests;
