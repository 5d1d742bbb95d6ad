//! synchronous_standby_names, as much of it as is used.

use std::collections::BTreeMap;

/// Whom commits wait for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    needed: usize,
    names: Vec<String>,
}

impl Rule {
    /// Reads `ANY n ("a", b, …)`; nothing is nobody. What is something else is an error here, for
    /// nothing else is ever set.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let bad = || format!("synchronous_standby_names = '{text}'");
        let rest = text.strip_prefix("ANY ").ok_or_else(bad)?;
        let (needed, list) = rest.split_once(" (").ok_or_else(bad)?;
        let list = list.strip_suffix(')').ok_or_else(bad)?;
        let names = list.split(", ").map(|name| name.trim_matches('"').to_owned()).collect();
        Ok(Self { needed: needed.parse().map_err(|_| bad())?, names })
    }

    /// Whether so many of those that count have flushed up to `length`.
    pub fn is_met(&self, flushed: &BTreeMap<String, usize>, length: usize) -> bool {
        self.count(|name| flushed.get(name).is_some_and(|flushed| *flushed >= length))
            >= self.needed
    }

    /// How many of the names something holds for.
    pub fn count(&self, holds: impl Fn(&str) -> bool) -> usize {
        self.names.iter().filter(|name| holds(name)).count()
    }

    /// How many are needed.
    pub fn needed(&self) -> usize {
        self.needed
    }
}
