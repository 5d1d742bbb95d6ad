mod fetch;
mod incarnation;
mod push;
mod status;
mod world;
