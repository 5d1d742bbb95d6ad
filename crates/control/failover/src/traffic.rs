//! Traffic follows the record: each look at a serving epoch leads to it, or says why not (R21).

use futures::future::join_all;
use lifeboat_drivers::{Pointing, TrafficDriver};
use lifeboat_quorum::{EpochRecord, EpochState};

/// What a look at one traffic record brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficState {
    /// The record, for people.
    pub name: String,
    /// Where it leads after the look; none if that is not known.
    pub pointing: Option<Pointing>,
    /// Why it does not lead to the record's region; none if it does, at every server that answers.
    pub missing: Option<String>,
    /// What others had done to it, and was put right.
    pub repaired: Vec<String>,
    /// What is left to tell: servers that do not answer, resolvers that still remember.
    pub remarks: Vec<String>,
}

/// Looks at all records of a service, at once, and leads them to a serving epoch. Any other epoch
/// is led to by nobody, and nothing is touched.
///
/// `settled` says that this epoch was led to before: then it is observed first, so that what others
/// did is seen before it is undone. What a driver refuses, because it carries a later epoch or is
/// somebody else's, stays as it is.
pub async fn reconcile(
    record: &EpochRecord,
    drivers: &[Box<dyn TrafficDriver + '_>],
    settled: bool,
) -> Vec<TrafficState> {
    if record.state != EpochState::Serving {
        return Vec::new();
    }
    join_all(drivers.iter().map(|driver| look(record, driver.as_ref(), settled))).await
}

async fn look(record: &EpochRecord, driver: &dyn TrafficDriver, settled: bool) -> TrafficState {
    let mut drift = Vec::new();
    if settled {
        match driver.observe().await {
            Ok(seen) if seen.dissent.is_empty() && leads_there(record, &seen) => {
                return told(driver, record, seen);
            }
            // Somebody moved on, and this record is about to be read again.
            Ok(seen) if seen.epoch > Some(record.epoch) => return told(driver, record, seen),
            Ok(seen) => drift = seen.dissent,
            Err(failure) => return untold(driver, failure.full_message()),
        }
    }
    let pointing = match driver.point(record.region.clone(), record.epoch).await {
        Ok(pointing) => pointing,
        Err(failure) => {
            let state = untold(driver, failure.full_message());
            return TrafficState { remarks: drift, ..state };
        }
    };
    if drift.is_empty() {
        return told(driver, record, pointing);
    }
    // What is not seen any more was put right; a change tells of what is left in other words.
    let seen = driver.observe().await.unwrap_or(pointing);
    drift.retain(|line| !seen.dissent.contains(line));
    TrafficState { repaired: drift, ..told(driver, record, seen) }
}

fn leads_there(record: &EpochRecord, pointing: &Pointing) -> bool {
    pointing.epoch == Some(record.epoch) && pointing.region.as_ref() == Some(&record.region)
}

fn told(driver: &dyn TrafficDriver, record: &EpochRecord, pointing: Pointing) -> TrafficState {
    let missing =
        (!leads_there(record, &pointing)).then(|| match (&pointing.region, pointing.epoch) {
            (_, Some(epoch)) if epoch > record.epoch => format!("it carries epoch {epoch} already"),
            (Some(region), _) if *region != record.region => format!("it leads to {region}"),
            (None, _) => "it leads nowhere that is known".to_owned(),
            _ => "it does not carry the epoch".to_owned(),
        });
    let remarks = pointing.dissent.iter().chain(&pointing.lagging).cloned().collect();
    TrafficState {
        name: driver.name(),
        pointing: Some(pointing),
        missing,
        repaired: Vec::new(),
        remarks,
    }
}

fn untold(driver: &dyn TrafficDriver, why: String) -> TrafficState {
    let (repaired, remarks) = (Vec::new(), Vec::new());
    TrafficState { name: driver.name(), pointing: None, missing: Some(why), repaired, remarks }
}

#[cfg(test)]
mod tests;
