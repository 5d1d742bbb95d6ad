//! What the oracle judges, gathered from a lab.

use std::collections::BTreeSet;
use std::time::Duration;

use lifeboat_telemetry::Outcome;

use crate::host::Host;
use crate::layout::{Domain, Layout};
use crate::ledger::History;
use crate::oracle::{Evidence, Row, Survivor};
use crate::parts::LEDGER;
use crate::postgres::{all_rows, is_primary};
use crate::reports;

/// A run that is at work comes to its end within this, or its report is missing.
const RUNS: Duration = Duration::from_secs(30);

/// Ends the clients, gathers everything, and starts the clients again.
pub fn gather(host: &mut Host<'_>) -> Outcome<Evidence> {
    // Only then is nothing under way, and every answer noted.
    host.end(Domain::Clients, LEDGER)?;
    let gathered = look(host);
    host.start(Domain::Clients, LEDGER)?;
    gathered
}

fn look(host: &Host<'_>) -> Outcome<Evidence> {
    let reports = finished(host);
    let mut disturbances = host.held.state.disturbances.clone();
    if let Ok(reports) = &reports {
        disturbances.extend(reports.begun.iter().cloned());
    }
    Ok(Evidence {
        history: History::read(&host.layout().history())?,
        survivor: survivor(host.layout()),
        disturbances,
        moves: reports.ok().map(|reports| reports.moves),
    })
}

/// The reports, once no run is at work any more.
fn finished(host: &Host<'_>) -> Outcome<reports::Reports> {
    let clock = host.environment.clock();
    let begin = clock.elapsed();
    loop {
        let read = reports::read(host);
        let waits = read.as_ref().is_ok_and(|reports| !reports.unfinished.is_empty());
        if !waits || clock.elapsed().saturating_sub(begin) > RUNS {
            return read;
        }
        host.cancel.check()?;
        clock.sleep(Duration::from_millis(200));
    }
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
