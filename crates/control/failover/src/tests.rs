//! Deciding, over views that are written by hand.

mod advance;
mod judge;
mod upkeep;
mod world;
