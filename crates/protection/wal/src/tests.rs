mod fetch;
mod fragments;
mod incarnation;
mod postgres;
mod push;
mod status;
pub(crate) mod world;
