mod passing;
mod script;
mod written;

mod dying;
mod servers;
mod timelines;
