//! A race that tells whether a store creates exclusively.

use bytes::Bytes;
use futures::future::join_all;
use lifeboat_telemetry::Outcome;

use crate::fault::Fault;
use crate::{Key, Store};

const RACERS: u8 = 8;

/// What a store can do, as measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fitness {
    /// Of several creates of one name exactly one wins, and its bytes stay.
    pub exclusive_create: bool,
    /// These credentials may delete.
    pub deletes: bool,
}

impl Store {
    /// Races creates of one new name below `key_prefix`, and removes it if that is allowed.
    pub async fn probe(&self, key_prefix: &str) -> Outcome<Fitness> {
        let race = || async {
            let name = format!("probe-{:016x}", self.environment().random().next_u64());
            let Ok(key) = Key::new(format!("{key_prefix}{name}")) else {
                return Err(Fault::unknown("the prefix makes no key"));
            };
            let exclusive = self.race(&key).await;
            let deletes = self.backend().delete(&key).await.is_ok();
            Ok(Fitness { exclusive_create: exclusive?, deletes })
        };
        let fitness = self.attempts().run("probe exclusive creates", 0, race).await;
        fitness.map_err(|ended| ended.or_missing(key_prefix, self.name()))
    }

    async fn race(&self, key: &Key) -> Result<bool, Fault> {
        let bytes = |racer: u8| Bytes::from(vec![racer; 64]);
        let answers =
            join_all((0..RACERS).map(|racer| self.backend().put(key, bytes(racer)))).await;
        let mut winners = Vec::new();
        for (racer, answer) in (0..RACERS).zip(answers) {
            match answer {
                Ok(()) => winners.push(racer),
                Err(Fault::Exists) => {}
                // Whether this one won is not known: the race says nothing.
                Err(other) => return Err(other),
            }
        }
        match (winners.as_slice(), self.fetch(key, None).await) {
            // Racers may disturb each other so that none wins.
            ([], Err(Fault::Absent)) => Err(Fault::unknown("no racer won")),
            ([winner], Ok((_, stored))) => Ok(stored == bytes(*winner)),
            (_, Ok(_) | Err(Fault::Absent)) => Ok(false),
            (_, Err(other)) => Err(other),
        }
    }
}
