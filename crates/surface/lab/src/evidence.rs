//! What the oracle judges, gathered from a lab.

use std::collections::BTreeSet;

use lifeboat_telemetry::Outcome;

use crate::host::Host;
use crate::layout::{Domain, Layout};
use crate::ledger::History;
use crate::oracle::{Evidence, Move, Row, Survivor};
use crate::parts::LEDGER;
use crate::postgres::{all_rows, is_primary};

/// Ends the clients and gathers everything; `moves` are the reports of what was moved.
pub fn gather(host: &mut Host<'_>, moves: Option<Vec<Move>>) -> Outcome<Evidence> {
    // Only then is nothing under way, and every answer noted.
    host.end(Domain::Clients, LEDGER)?;
    Ok(Evidence {
        history: History::read(&host.layout().history())?,
        survivor: survivor(host.layout()),
        disturbances: host.held.state.disturbances.clone(),
        moves,
    })
}

/// The primary and its rows; none unless exactly one node takes writes and tells all its rows.
fn survivor(layout: &Layout) -> Option<Survivor> {
    let mut primaries = Domain::REGIONS.into_iter().filter(|region| is_primary(layout, *region));
    let (Some(region), None) = (primaries.next(), primaries.next()) else { return None };
    let question = "SELECT writer, session, sequence FROM entries";
    let found = all_rows(layout, region, "books", question).ok()?;
    let rows: Option<BTreeSet<Row>> = found
        .iter()
        .map(|row| {
            let number = |column| u64::try_from(row.try_get::<_, i64>(column).ok()?).ok();
            Some((row.try_get(0).ok()?, number(1)?, number(2)?))
        })
        .collect();
    Some(Survivor { node: format!("{region}-1"), rows: rows? })
}
