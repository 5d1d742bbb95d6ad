//! One picture of a record from what each of its servers says.

use lifeboat_telemetry::{Code, Failure, Outcome};

use super::{Found, LeadsTo, Pointing};

/// What one server said.
pub(super) struct Answer {
    /// The server, for people.
    pub server: String,
    /// What it shows, or why nothing is known.
    pub found: Outcome<Found>,
}

/// The picture. The highest stamp wins, for it is the newest; who shows anything else dissents.
/// Fails only if no server shows anything.
pub(super) fn picture(answers: Vec<Answer>) -> Outcome<Pointing> {
    let shown = || answers.iter().filter_map(|answer| answer.found.as_ref().ok());
    let epoch_of = |found: &Found| found.stamp.as_ref().map(|stamp| stamp.epoch);
    // Of several with the newest stamp, the first one that leads to a region.
    let rank = |found: &&Found| (epoch_of(found), matches!(found.leads_to, LeadsTo::Region(_)));
    let Some(newest) = shown().rev().max_by_key(rank).cloned() else {
        return Err(nobody(answers));
    };
    let region = match &newest.leads_to {
        LeadsTo::Region(region) => Some(region.clone()),
        _ => None,
    };
    let dissent = answers.iter().filter_map(|answer| match &answer.found {
        Err(failure) => Some(failure.full_message()),
        Ok(found) => {
            let said: Vec<_> =
                dissent(found, &newest).into_iter().chain(found.flaw.clone()).collect();
            (!said.is_empty()).then(|| format!("{} {}", answer.server, said.join(", ")))
        }
    });
    let dissent = dissent.collect();
    Ok(Pointing { epoch: epoch_of(&newest), region, dissent, lagging: Vec::new() })
}

fn dissent(found: &Found, newest: &Found) -> Option<String> {
    match (&found.leads_to, &found.stamp) {
        (LeadsTo::Nowhere, None) => Some("leads nowhere, without a stamp of ours".to_owned()),
        (LeadsTo::Nowhere, Some(_)) => Some("leads nowhere".to_owned()),
        (LeadsTo::Elsewhere(where_to), _) => {
            Some(format!("leads to {where_to}, which is not one region's"))
        }
        (LeadsTo::Taken(what), _) => Some(format!("has something else there: {what}")),
        (LeadsTo::Region(region), None) => {
            let alone = newest.stamp.is_none() && newest.leads_to == found.leads_to;
            (!alone).then(|| format!("leads to {region}, without a stamp of ours"))
        }
        (LeadsTo::Region(region), Some(stamp)) if *region != stamp.region => {
            Some(format!("leads to {region}, but epoch {} is of {}", stamp.epoch, stamp.region))
        }
        (LeadsTo::Region(region), Some(stamp)) if found.stamp != newest.stamp => {
            Some(format!("leads to {region}, for epoch {}", stamp.epoch))
        }
        (LeadsTo::Region(_), Some(_)) => None,
    }
}

/// The failure of all: the first one that says more than that nobody answers.
fn nobody(answers: Vec<Answer>) -> Failure {
    let mut failures: Vec<_> = answers.into_iter().filter_map(|each| each.found.err()).collect();
    let telling = failures.iter().position(|failure| failure.code() != Code::TrafficSilent);
    if failures.is_empty() {
        return Failure::new(Code::TrafficSilent, "the record has no server to ask");
    }
    let first = failures.remove(telling.unwrap_or(0));
    first.details(failures.iter().map(Failure::full_message))
}

/// What a change brought: refused if one server was refused because of its epoch, whatever the
/// others did; else the picture.
pub(super) fn result(mut answers: Vec<Answer>) -> Outcome<Pointing> {
    let late = |answer: &Answer| {
        let failure = answer.found.as_ref().err();
        failure.is_some_and(|failure| failure.code() == Code::TrafficSuperseded)
    };
    if let Some(position) = answers.iter().position(late)
        && let Err(failure) = answers.swap_remove(position).found
    {
        return Err(failure);
    }
    picture(answers)
}

#[cfg(test)]
mod tests;
