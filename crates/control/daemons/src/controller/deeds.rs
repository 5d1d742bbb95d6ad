//! What is being done for services: much at once, but for each of them one thing after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, LocalBoxFuture, select};
use futures::stream::{FuturesUnordered, StreamExt};
use lifeboat_failover::Service;
use lifeboat_model::ServiceName;

use super::Controller;
use super::act::Whom;

/// How many services wait for the quorum store at the same time.
const AT_THE_STORE: usize = 64;
/// How many wait for repositories. One that is lost together with its region makes each of them
/// wait for seconds: there must be room for a whole region.
const AT_REPOSITORIES: usize = 512;

/// What is under way.
pub(super) struct Deeds<'a> {
    controller: &'a Controller<'a>,
    under_way: FuturesUnordered<LocalBoxFuture<'a, &'a ServiceName>>,
    /// Whose turn is not over, and whom he waits for.
    busy: BTreeMap<&'a ServiceName, Whom>,
    /// When all services were last looked at.
    looked: Option<Duration>,
    /// The first one for whom there was no room.
    left_out: Option<&'a ServiceName>,
}

impl<'a> Deeds<'a> {
    /// Nothing is under way.
    pub fn new(controller: &'a Controller<'a>) -> Self {
        let (under_way, busy) = (FuturesUnordered::new(), BTreeMap::new());
        Self { controller, under_way, busy, looked: None, left_out: None }
    }

    /// Waits for something else, and lets go on meanwhile what is under way.
    pub async fn go_on_until<T>(&mut self, end: impl Future<Output = T>) -> T {
        let mut end = pin!(end);
        while !self.under_way.is_empty() {
            match select(end.as_mut(), self.under_way.next()).await {
                Either::Left((ended, _)) => return ended,
                Either::Right((done, _)) => drop(done.and_then(|name| self.busy.remove(name))),
            }
        }
        end.await
    }

    /// Begins what services need after a read: those that changed, and at each poll all of them, for
    /// much depends on how long something has lasted.
    pub fn begin(&mut self, changed: &BTreeSet<ServiceName>, now: Duration) {
        let settings = self.controller.settings;
        let is_time = self.looked.is_none_or(|at| now.saturating_sub(at) >= settings.poll);
        if !is_time && self.left_out.is_none() {
            let services = changed.iter().filter_map(|name| settings.services.get(name));
            return services.for_each(|service| self.begin_one(service, now));
        }
        self.looked = Some(now);
        // Who was left out comes first this time.
        let first = self.left_out.take();
        let (from, to) = (settings.services.values(), settings.services.values());
        let from = from.filter(|service| Some(&service.name) >= first);
        let to = to.filter(|service| Some(&service.name) < first);
        from.chain(to).for_each(|service| self.begin_one(service, now));
    }

    fn begin_one(&mut self, service: &'a Service, now: Duration) {
        let (controller, name) = (self.controller, &service.name);
        if self.busy.contains_key(name) {
            return;
        }
        let Some((view, deed)) = controller.see(service, now) else { return };
        let whom = deed.waits_for();
        if !self.has_room(whom) {
            self.left_out.get_or_insert(name);
            return;
        }
        self.busy.insert(name, whom);
        self.under_way.push(Box::pin(async move {
            if controller.carry_out(service, &view, deed, now).await {
                controller.wrote.notify_one();
            }
            name
        }));
    }

    fn has_room(&self, whom: Whom) -> bool {
        let most = match whom {
            Whom::Store => AT_THE_STORE,
            Whom::Repositories => AT_REPOSITORIES,
        };
        // Few are busy at most times, and nobody counts as many as may be.
        self.busy.len() < most || self.busy.values().filter(|one| **one == whom).count() < most
    }
}
