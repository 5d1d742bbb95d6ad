//! The lab: two regions and a witness on one machine, from real parts, and what breaks them.
//!
//! [`up`] builds it in a directory, [`fault`] breaks it, [`ledger`] is the application whose
//! clients remember every answer, and [`oracle`] judges what they were told.

pub mod demo;
pub mod disk;
pub mod down;
pub mod enter;
mod etcd;
pub mod evidence;
pub mod fault;
pub mod host;
mod http;
mod kernel;
pub mod layout;
pub mod ledger;
mod network;
pub mod oracle;
pub mod parts;
mod postgres;
pub mod process;
pub mod programs;
pub mod relay;
pub mod reports;
mod shell;
pub mod state;
pub mod status;
pub mod up;
