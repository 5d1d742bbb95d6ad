mod fetch;
mod incarnation;
mod push;
mod world;
