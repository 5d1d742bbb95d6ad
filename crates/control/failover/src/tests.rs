//! Deciding, over views that are written by hand.

mod adopt;
mod advance;
mod judge;
mod predict;
mod report;
mod upkeep;
mod voices;
mod world;
