//! Listings: complete, sorted, and never endless.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::retry::Ended;
use crate::{Key, Stat, Store};

impl Store {
    /// Every object whose key starts with `prefix`, at any depth, sorted by key. Staging files and
    /// whatever else is no key are left out.
    pub async fn list(&self, prefix: &str) -> Outcome<Vec<(Key, Stat)>> {
        self.list_pages(prefix, None).await
    }

    /// The same, but only keys greater than `after`.
    pub async fn list_after(&self, prefix: &str, after: &Key) -> Outcome<Vec<(Key, Stat)>> {
        self.list_pages(prefix, Some(after)).await
    }

    /// Half-written files that dead or busy writers left in a directory, by path below the root.
    /// They are no objects: nothing reads them, and nobody but a person should remove them.
    pub async fn list_staging(&self) -> Outcome<Vec<(String, Stat)>> {
        let what = "list staging files";
        let found = self.attempts().run(what, 0, || self.backend().list_staging()).await;
        found.map_err(|ended| ended.or_missing(what, self.name()))
    }

    async fn list_pages(&self, prefix: &str, after: Option<&Key>) -> Outcome<Vec<(Key, Stat)>> {
        let what = format!("list {prefix:?}");
        let mut found = BTreeMap::new();
        let mut asked = BTreeSet::new();
        let mut token = None;
        loop {
            let ask = || self.backend().list(prefix, after, token.clone());
            let page = match self.attempts().run(&what, 0, ask).await {
                Ok(page) => page,
                Err(ended @ Ended::Absent) => return Err(ended.or_missing(&what, self.name())),
                Err(Ended::Failed(failure)) => return Err(failure),
            };
            found.extend(page.objects);
            match page.next {
                None => break,
                // Sorted stores answer in order; a token that comes back would never end.
                Some(next) if !asked.insert(next.clone()) => {
                    let message = format!("cannot {what} in {}: the pages repeat", self.name());
                    return Err(Failure::new(Code::StoreUnavailable, message)
                        .hint("The store's listing is broken: report it to who runs the store."));
                }
                next => token = next,
            }
        }
        if let Some(after) = after {
            found.retain(|key, _| key > after);
        }
        Ok(found.into_iter().collect())
    }
}
