//! What an operator does for BIND after a host went down.

use std::fs;

use lifeboat_telemetry::Outcome;

use crate::layout::{Domain, Layout, ZONE};
use crate::programs;
use crate::shell::tool;
use crate::state::local;

/// BIND serves no zone whose journal does not fit, as a power loss can leave it. Without the journal it
/// serves what the zone was before: Lifeboat writes its records again.
pub fn mend(layout: &Layout, domain: Domain) -> Outcome<()> {
    let zone = layout.disk(domain).join("dns").join("zone.db");
    let journal = zone.with_extension("db.jnl");
    if !journal.exists() {
        return Ok(());
    }
    let check = programs::require("named-checkzone")?;
    if tool(&check, &["-q", "-j", ZONE, &zone.to_string_lossy()]).is_ok() {
        return Ok(());
    }
    fs::remove_file(&journal).map_err(|error| local("cannot remove", &journal).because(error))
}
