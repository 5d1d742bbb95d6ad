mod fetch;
mod incarnation;
mod postgres;
mod push;
mod status;
mod world;
