//! What happened to one fork of one relation.

use super::blocks::{Blocks, Run};

/// What happened to one fork of one relation within a span.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Relation {
    /// Its file came into being: nothing that was there before under this name counts.
    pub created: bool,
    /// Its file is gone at the end of the span.
    pub dropped: bool,
    /// The fewest blocks that a truncation left. What lies behind may all have changed: where the
    /// file grew again, nothing tells of pages that are empty.
    pub truncated_to: Option<u32>,
    /// Too much changed to keep count of it.
    pub(super) overflown: bool,
    /// Blocks that records refer to.
    pub(super) blocks: Blocks,
}

/// Which blocks of a fork may differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// None.
    Nothing,
    /// All.
    Everything,
    /// These.
    Blocks {
        /// Ascending; no two touch.
        runs: Vec<Run>,
        /// All from this one on.
        from: Option<u32>,
    },
}

impl Changed {
    /// Whether the block may differ.
    pub fn contains(&self, block: u32) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Blocks { runs, from } => {
                let at = runs.partition_point(|run| run.last < block);
                from.is_some_and(|from| block >= from)
                    || runs.get(at).is_some_and(|run| run.first <= block)
            }
        }
    }
}

impl Relation {
    /// Every block may have changed.
    pub fn is_whole(&self) -> bool {
        self.created || self.overflown
    }

    /// Which blocks may differ.
    pub fn changed(&self) -> Changed {
        if self.is_whole() {
            return Changed::Everything;
        }
        match (self.blocks.runs(), self.truncated_to) {
            (runs, None) if runs.is_empty() => Changed::Nothing,
            (runs, from) => Changed::Blocks { runs, from },
        }
    }

    pub(super) fn insert(&mut self, block: u32) {
        if !self.is_whole() {
            self.blocks.insert(block);
        }
    }

    pub(super) fn create(&mut self) {
        *self = Self { created: true, ..Self::default() };
    }

    pub(super) fn overflow(&mut self) {
        self.overflown = true;
        self.blocks = Blocks::default();
    }

    pub(super) fn truncate(&mut self, blocks: u32) {
        self.truncated_to = Some(self.truncated_to.map_or(blocks, |it| it.min(blocks)));
    }

    /// Adds what happened later.
    pub(super) fn extend(&mut self, later: Self) {
        if later.created {
            *self = later;
            return;
        }
        self.dropped |= later.dropped;
        if let Some(blocks) = later.truncated_to {
            self.truncate(blocks);
        }
        if later.overflown {
            self.overflow();
        }
        if !self.is_whole() {
            self.blocks.extend(later.blocks);
        }
    }
}
