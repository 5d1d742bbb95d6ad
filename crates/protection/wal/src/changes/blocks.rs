//! A set of blocks of one file, as runs.

/// Consecutive blocks, the last one included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first block.
    pub first: u32,
    /// The last block.
    pub last: u32,
}

/// New blocks wait until there are as many as runs, at least so many: sorting them in then costs
/// each block a constant.
const WAITING: usize = 256;

/// A set of blocks.
#[derive(Debug, Clone, Default)]
pub struct Blocks {
    /// Ascending; no two touch.
    runs: Vec<Run>,
    /// What is not in the runs yet.
    recent: Vec<u32>,
}

impl Blocks {
    /// Adds a block.
    pub fn insert(&mut self, block: u32) {
        // A file that is filled grows its last run.
        if let Some(last) = self.runs.last_mut()
            && block >= last.first
            && block <= last.last.saturating_add(1)
        {
            last.last = last.last.max(block);
            return;
        }
        if self.recent.last() != Some(&block) {
            self.recent.push(block);
        }
        if self.recent.len() >= self.runs.len().max(WAITING) {
            self.settle();
        }
    }

    /// Adds what `later` has.
    pub fn extend(&mut self, mut later: Self) {
        self.settle();
        later.settle();
        self.runs = union(&self.runs, &later.runs);
    }

    /// Adds a run that follows all that is there. `None` if it does not.
    pub(super) fn push(&mut self, run: Run) -> Option<()> {
        let follows =
            self.runs.last().is_none_or(|last| run.first.checked_sub(1) > Some(last.last));
        (follows && run.first <= run.last).then(|| self.runs.push(run))
    }

    /// Puts the recent blocks in order.
    pub(super) fn settle(&mut self) {
        if self.recent.is_empty() {
            return;
        }
        self.recent.sort_unstable();
        let recent: Vec<_> =
            self.recent.drain(..).map(|block| Run { first: block, last: block }).collect();
        self.runs = union(&self.runs, &recent);
    }

    /// The runs, ascending; no two touch.
    pub fn runs(&self) -> Vec<Run> {
        let mut blocks = self.clone();
        blocks.settle();
        blocks.runs
    }

    /// Whether it has the block.
    pub fn contains(&self, block: u32) -> bool {
        let at = self.runs.partition_point(|run| run.last < block);
        self.runs.get(at).is_some_and(|run| run.first <= block) || self.recent.contains(&block)
    }

    /// How much memory it takes, in runs.
    pub(super) fn weight(&self) -> usize {
        self.runs.len() + self.recent.len()
    }
}

impl PartialEq for Blocks {
    fn eq(&self, other: &Self) -> bool {
        self.runs() == other.runs()
    }
}

impl Eq for Blocks {}

/// Merges two ascending lists of runs.
fn union(left: &[Run], right: &[Run]) -> Vec<Run> {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    let mut merged: Vec<Run> = Vec::with_capacity(left.len().max(right.len()));
    loop {
        let next = match (left.peek(), right.peek()) {
            (Some(one), Some(other)) if one.first <= other.first => left.next(),
            (Some(_), None) => left.next(),
            (_, Some(_)) => right.next(),
            (None, None) => return merged,
        };
        let Some(next) = next else { return merged };
        match merged.last_mut() {
            Some(last) if next.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(next.last);
            }
            _ => merged.push(*next),
        }
    }
}
