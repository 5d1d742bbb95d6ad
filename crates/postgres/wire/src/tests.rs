//! The core over recorded and invented bytes, the shell over pipes, and both over real servers.

mod conninfo;
mod hostile;
mod login;
mod pipe;
mod record;
mod security;
mod server;
mod sessions;
mod streams;
mod transcript;
