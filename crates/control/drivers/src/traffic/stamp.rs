//! What stands beside a record: for which service, epoch and region it was set.

use std::fmt;

use lifeboat_model::{RegionName, ServiceName};

/// The version of the text, its first word.
const FIRST_WORD: &str = "lifeboat=1";

/// Who set a record, and for which epoch. As text
/// `lifeboat=1 service=SERVICE epoch=NUMBER region=REGION`, at most 180 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The service.
    pub service: ServiceName,
    /// Its epoch.
    pub epoch: u64,
    /// The region that holds the epoch.
    pub region: RegionName,
}

impl Stamp {
    /// Reads exactly what [`Stamp`] prints; anything else is somebody else's, or a later version's.
    pub fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut value = |key: &str| words.next()?.strip_prefix(key);
        let first = value("")? == FIRST_WORD;
        let service = value("service=")?.parse().ok()?;
        let number = value("epoch=")?;
        let region = value("region=")?.parse().ok()?;
        let epoch = number.parse::<u64>().ok().filter(|epoch| epoch.to_string() == number)?;
        (first && words.next().is_none()).then_some(Self { service, epoch, region })
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, epoch, region } = self;
        write!(formatter, "{FIRST_WORD} service={service} epoch={epoch} region={region}")
    }
}

#[cfg(test)]
mod tests;
