//! Whether a record may be changed, from what one server shows of it.

use lifeboat_model::RegionName;
use lifeboat_telemetry::{Code, Failure};

use super::Mark;

/// What one server shows of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Our mark beside it.
    pub mark: Option<Mark>,
    /// Where it leads.
    pub leads_to: LeadsTo,
    /// What is not as it should be, wherever it leads: a time to live, a server in maintenance.
    pub flaw: Option<String>,
}

/// Where a record leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeadsTo {
    /// Nowhere: it has no address.
    Nowhere,
    /// To all targets of a region and to nothing else.
    Region(RegionName),
    /// To something that is no region's.
    Elsewhere(String),
    /// There is something that a change could not replace: an alias, or somebody else's mark.
    Taken(String),
}

/// What may be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it shall be.
    Keep,
    /// It may be set.
    Set,
    /// It carries a higher epoch, or the same one for another region: whoever wants to change it
    /// knows less than whoever did.
    Superseded(Mark),
    /// It is somebody else's, in words.
    Foreign(String),
}

/// Decides. A record without a mark is adopted if it leads to one of the regions, and made if there
/// is none; what carries our mark is repaired; nothing else is touched.
pub fn judge(found: &Found, wanted: &Mark) -> Verdict {
    if let LeadsTo::Taken(what) = &found.leads_to {
        return Verdict::Foreign(what.clone());
    }
    let Some(mark) = &found.mark else {
        return match &found.leads_to {
            LeadsTo::Elsewhere(where_to) => Verdict::Foreign(format!("it leads to {where_to}")),
            _ => Verdict::Set,
        };
    };
    if mark.service != wanted.service {
        return Verdict::Foreign(format!("it is a record of service {}", mark.service));
    }
    let disputed = mark.epoch == wanted.epoch && mark.region != wanted.region;
    if mark.epoch > wanted.epoch || disputed {
        return Verdict::Superseded(mark.clone());
    }
    let there = matches!(&found.leads_to, LeadsTo::Region(region) if *region == wanted.region);
    match mark == wanted && there && found.flaw.is_none() {
        true => Verdict::Keep,
        false => Verdict::Set,
    }
}

/// A change that came too late.
pub(super) fn superseded(place: &str, mark: &Mark, wanted: &Mark) -> Failure {
    let message = match mark.epoch == wanted.epoch {
        true => format!(
            "{place} leads to {} for epoch {}, and cannot lead to {} for the same one",
            mark.region, mark.epoch, wanted.region
        ),
        false => format!(
            "{place} carries epoch {} for {}: epoch {} is over",
            mark.epoch, mark.region, wanted.epoch
        ),
    };
    Failure::new(Code::TrafficSuperseded, message)
        .hint("Nothing was changed there. `lifeboat status` says which epoch serves.")
}

/// A change of what is not ours.
pub(super) fn foreign(place: &str, why: &str) -> Failure {
    Failure::new(Code::TrafficForeign, format!("{place} is not changed: {why}"))
        .hint("Let it lead to the targets of one region, as the spec has them, to hand it over.")
}

#[cfg(test)]
mod tests;
