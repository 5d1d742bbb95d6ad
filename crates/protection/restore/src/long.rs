//! A file of many batches, cut leaf by leaf.

use std::collections::VecDeque;
use std::sync::Arc;

use lifeboat_repository::tree::LeafRef;

use crate::batch::{Batch, Piece, RestoredFile};

/// How far a long file has been cut.
pub(crate) struct LongFile {
    pub file: Arc<RestoredFile>,
    /// The lane that its batches go to.
    pub lane: usize,
    leaves: VecDeque<LeafRef>,
    next_leaf: u64,
    pieces: VecDeque<Piece>,
}

impl LongFile {
    /// A file that nothing was cut from.
    pub(crate) fn new(file: Arc<RestoredFile>, lane: usize, leaves: Vec<LeafRef>) -> Self {
        let pieces = VecDeque::new();
        Self { file, lane, leaves: leaves.into(), next_leaf: 0, pieces }
    }

    /// The leaf that has to be cut before there is a batch, and its number.
    pub(crate) fn wanted(&mut self) -> Option<(u64, LeafRef)> {
        if !self.pieces.is_empty() {
            return None;
        }
        let number = self.next_leaf;
        let leaf = self.leaves.pop_front()?;
        self.next_leaf += 1;
        Some((number, leaf))
    }

    /// Takes the pieces of a leaf.
    pub(crate) fn add(&mut self, pieces: Vec<Piece>) {
        self.pieces.extend(pieces);
    }

    /// Whether everything was handed out.
    pub(crate) fn is_done(&self) -> bool {
        self.pieces.is_empty() && self.leaves.is_empty()
    }

    /// As many pieces as a worker takes at once.
    pub(crate) fn batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        while !batch.is_full()
            && let Some(piece) = self.pieces.pop_front()
        {
            batch.add(piece);
        }
        batch
    }
}
