//! Tests of the whole format on a small repository that a seed makes.

mod bytes;
mod changes;
mod damage;
mod fragments;
mod golden;
mod keys;
mod regions;
mod sample;
