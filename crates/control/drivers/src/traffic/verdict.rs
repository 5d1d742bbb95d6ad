//! Whether a record may be changed, from what one server shows of it.

use lifeboat_model::RegionName;
use lifeboat_telemetry::{Code, Failure};

use super::Stamp;

/// What one server shows of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Our stamp beside it.
    pub stamp: Option<Stamp>,
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
    /// There is something that a change could not replace: an alias, or somebody else's stamp.
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
    Superseded(Stamp),
    /// It is somebody else's, in words.
    Foreign(String),
}

/// Decides. A record without a stamp is adopted if it leads to one of the regions, and made if there
/// is none; what carries our stamp is repaired; nothing else is touched.
pub fn judge(found: &Found, wanted: &Stamp) -> Verdict {
    if let LeadsTo::Taken(what) = &found.leads_to {
        return Verdict::Foreign(what.clone());
    }
    let Some(stamp) = &found.stamp else {
        return match &found.leads_to {
            LeadsTo::Elsewhere(where_to) => Verdict::Foreign(format!("it leads to {where_to}")),
            _ => Verdict::Set,
        };
    };
    if stamp.service != wanted.service {
        return Verdict::Foreign(format!("it is a record of service {}", stamp.service));
    }
    let disputed = stamp.epoch == wanted.epoch && stamp.region != wanted.region;
    if stamp.epoch > wanted.epoch || disputed {
        return Verdict::Superseded(stamp.clone());
    }
    let there = matches!(&found.leads_to, LeadsTo::Region(region) if *region == wanted.region);
    match stamp == wanted && there && found.flaw.is_none() {
        true => Verdict::Keep,
        false => Verdict::Set,
    }
}

/// A change that came too late.
pub(super) fn superseded(place: &str, stamp: &Stamp, wanted: &Stamp) -> Failure {
    let message = match stamp.epoch == wanted.epoch {
        true => format!(
            "{place} leads to {} for epoch {}, and cannot lead to {} for the same one",
            stamp.region, stamp.epoch, wanted.region
        ),
        false => format!(
            "{place} carries epoch {} for {}: epoch {} is over",
            stamp.epoch, stamp.region, wanted.epoch
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
