//! The way into the control plane: the quorum store, the services that can move, what is seen.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::{join, join_all};
use lifeboat_drivers::{EpochArchive, KnownEpoch, RepositoryEpochs};
use lifeboat_environment::{SystemTimer, Timer};
use lifeboat_failover::candidate::ABSENT_AFTER;
use lifeboat_failover::{Elsewhere, Mirror, Service, View, Voice, Voices};
use lifeboat_model::spec::Engine;
use lifeboat_model::{RegionName, ServiceName};
use lifeboat_quorum::{Keys, Store, Timing, Transaction};
use lifeboat_repository::access::writer_path;
use lifeboat_repository::ids::Digest;
use lifeboat_repository::keys::WriterKey;
use lifeboat_telemetry::{Code, Failure, Outcome};
use tokio::runtime::{Builder, Runtime};

use crate::context::Context;
use crate::site::Site;

/// What two reads are apart: twice as long as an agent or an observer is silent at the most.
const APART: Duration = Duration::from_millis(2000);

/// What must be typed to go on without a proof that nobody writes any more.
pub const FENCE_STATEMENT: &str = "the old primary cannot write";

/// The control plane, from this process.
pub struct Control {
    /// What waits runs here: one thread.
    pub runtime: Runtime,
    /// The quorum store.
    pub store: Box<dyn Store>,
    /// Where things lie in it.
    pub keys: Keys,
    /// The services that can move.
    pub services: BTreeMap<ServiceName, Service>,
    /// The times of leases.
    pub timing: Timing,
}

impl Control {
    /// Opens what the spec names; asks nobody yet.
    pub fn open(site: &Site<'_>) -> Outcome<Self> {
        let Some(quorum) = &site.spec.quorum else {
            return Err(Failure::new(Code::SpecInvalid, "the spec has no `quorum`").hint(
                "Add `quorum: { etcd: … }` with members in three failure domains, or `quorum: \
                 { local: {} }` on one machine.",
            ));
        };
        let timing = Timing::of(quorum);
        let environment = &site.context().environment;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| {
            Failure::new(Code::Internal, "cannot start a runtime").because(error)
        })?;
        let store = {
            let _inside = runtime.enter();
            lifeboat_quorum::open(quorum, &site.state, environment)?
        };
        let text = std::fs::read(&site.origin).map_err(|error| {
            let message = format!("cannot read {}", site.origin.display());
            Failure::new(Code::LocalFile, message).because(error)
        })?;
        let digest = Digest::of(&text).to_string();
        let services = services(site, &digest)?;
        Ok(Self { runtime, store, keys: Keys::default(), services, timing })
    }

    /// How often the store is read: a tenth of the time between renewals, which is what a poll
    /// adds to each step of a move.
    pub fn poll(&self) -> Duration {
        (self.timing.renew / 10).clamp(Duration::from_millis(50), Duration::from_millis(500))
    }

    /// A service by its name.
    pub fn service(&self, name: &ServiceName) -> Outcome<&Service> {
        self.services.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.services.keys().map(ServiceName::as_str).collect();
            Failure::new(Code::DatabaseUnknown, format!("no service `{name}` can be moved"))
                .hint(format!("The spec has {}.", known.join(", ")))
        })
    }

    /// Everything that stands in the store now.
    pub fn read(&self) -> Outcome<Sight> {
        let snapshot = self.runtime.block_on(self.store.read(self.keys.all(), 0))?;
        let mut mirror = Mirror::new();
        mirror.take(snapshot, SystemTimer.elapsed());
        Ok(Sight { mirror })
    }

    /// The store, and once more a moment later: whoever has not reported in between is silent.
    pub fn read_twice(&self) -> Outcome<Sight> {
        let mut sight = self.read()?;
        self.runtime.block_on(async { SystemTimer.sleep(APART).await });
        self.read_again(&mut sight)?;
        Ok(sight)
    }

    /// As `read_twice`, and what the repositories say of epochs meanwhile, as far as they answer.
    pub fn read_all(&self, site: &Site<'_>) -> Outcome<(Sight, BTreeMap<ServiceName, Elsewhere>)> {
        let mut sight = self.read()?;
        let epochs = RepositoryEpochs::reading(&site.spec, &site.context().environment);
        let epochs = &epochs;
        let asking = self.services.values().map(|service| async move {
            (service, epochs.highest(&service.name).await.ok().flatten())
        });
        // The answers are older than the second read: a run in between is no disagreement.
        let both = join(join_all(asking), async { SystemTimer.sleep(APART).await });
        let (answers, ()) = self.runtime.block_on(both);
        self.read_again(&mut sight)?;
        let known = answers.into_iter().map(|(service, archived)| {
            Ok((service.name.clone(), sight.elsewhere(self, service, archived)?))
        });
        let known = known.collect::<Outcome<_>>()?;
        Ok((sight, known))
    }

    /// Takes in what changed.
    pub fn read_again(&self, sight: &mut Sight) -> Outcome<()> {
        let since = sight.mirror.revision();
        let snapshot = self.runtime.block_on(self.store.read(self.keys.all(), since))?;
        sight.mirror.take(snapshot, SystemTimer.elapsed());
        Ok(())
    }

    /// Commits; a conflict is a failure with `hint`.
    pub fn commit(&self, transaction: Transaction, hint: &str) -> Outcome<()> {
        match self.runtime.block_on(self.store.commit(transaction))? {
            lifeboat_quorum::Commit::Done(_) => Ok(()),
            lifeboat_quorum::Commit::Conflict => {
                let message = "something changed in the quorum store meanwhile";
                Err(Failure::new(Code::MoveRefused, message).hint(hint.to_owned()))
            }
        }
    }
}

/// What stood in the store.
pub struct Sight {
    /// Its keys.
    pub mirror: Mirror,
}

impl Sight {
    /// The time by which statuses are judged: what was not renewed between two reads is as silent
    /// as it would be for a controller that has watched for long.
    pub fn now() -> Duration {
        SystemTimer.elapsed() + ABSENT_AFTER.saturating_sub(APART)
    }

    /// A service.
    pub fn view(&self, control: &Control, service: &Service) -> Outcome<View> {
        Ok(View::of(service, &control.keys, &self.mirror)?)
    }

    /// What is known of its epochs outside the quorum store: by a repository, by agents.
    pub fn elsewhere(
        &self,
        control: &Control,
        service: &Service,
        archived: Option<KnownEpoch>,
    ) -> Outcome<Elsewhere> {
        let view = self.view(control, service)?;
        let tokens = view.status.values().map(|seen| seen.value.token.epoch);
        Ok(Elsewhere { archived, remembered: tokens.max().unwrap_or_default() })
    }

    /// Why nobody acts on its record; none if nothing speaks against it.
    pub fn refusal(
        &self,
        control: &Control,
        service: &Service,
        elsewhere: &Elsewhere,
    ) -> Outcome<Option<Failure>> {
        let view = self.view(control, service)?;
        let Some(record) = &view.record else { return Ok(None) };
        Ok(elsewhere.refuse(service, &control.keys, &self.mirror, &record.value)?)
    }

    /// What observers say of it.
    pub fn voices(
        &self,
        control: &Control,
        service: &ServiceName,
    ) -> Outcome<BTreeMap<RegionName, Voice>> {
        let mut voices = Voices::default();
        let prefix = control.keys.observers();
        for (_, entry, _) in self.mirror.below(&prefix) {
            if let Some(seen) = self.mirror.get(&entry.key)? {
                voices.hear(seen);
            }
        }
        Ok(voices.on(service, Self::now()))
    }
}

/// The services of the spec that have databases of our own engine.
fn services(site: &Site<'_>, digest: &str) -> Outcome<BTreeMap<ServiceName, Service>> {
    let movable = site.spec.services.iter().filter(|(_, service)| {
        let ours = |database: &lifeboat_model::spec::Database| database.engine == Engine::Postgres;
        !service.databases.is_empty() && service.databases.values().all(ours)
    });
    movable.map(|(name, _)| Ok((name.clone(), Service::of(&site.spec, name, digest)?))).collect()
}

/// This host's writer key: it signs epochs in the repositories.
pub fn writer(site: &Site<'_>) -> Outcome<WriterKey> {
    WriterKey::load(&writer_path(&site.spec, &site.state))
}

/// Who gives an order at this terminal, for journals: account and host, no more.
pub fn person(context: &Context) -> String {
    let user =
        context.environment.variable("SUDO_USER").or_else(|| context.environment.variable("USER"));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}@{}", user.unwrap_or("somebody"), host.trim())
}
