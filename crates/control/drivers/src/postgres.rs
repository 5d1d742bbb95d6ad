//! A PostgreSQL instance of our own, below a guard.
//!
//! Questions go by SQL on kept sessions, each with a limit of time; what makes it live or die goes
//! to the guard; what it is to be is written into files of its data directory.

mod archive;
mod child;
mod come_back;
mod configuration;
mod copy;
mod inspect;
mod kept;
mod life;
mod lineage;
mod place;
mod probe;
mod readiness;
mod release;
mod rewind;
pub mod salvage;
mod session;
mod settings;
mod slots;
mod space;
pub mod standby;
mod start;
mod stopped;
mod wal_end;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use lifeboat_cluster::control;
use lifeboat_cluster::wal::History;
use lifeboat_model::{Lsn, NodeName, Timeline};
use lifeboat_quorum::{Instance, Return};
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::receive::EPOCH_SETTING;
use tokio::task::JoinSet;

pub(crate) use session::literal;
pub use settings::Settings;

use crate::guard::{Phase, Stop};
use crate::instance::{InstanceDriver, Killed, ShutDown, StartAs};
use configuration::{Change, NAMES};
use life::Life;
use session::{Session, within};

/// How long a server may take to do what was written into its configuration.
const RELOADING: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
/// How often slots are looked after.
const TEND: Duration = Duration::from_secs(10);
/// Receivers that are well flush within a fraction of this.
const STALLED: Duration = Duration::from_secs(1);
/// How long what keeps a node from being a primary is believed; it changes when people change it.
const JUDGED: Duration = Duration::from_secs(5);

/// The driver of one node.
pub struct PostgresInstance {
    settings: Settings,
    /// Asks what it is doing.
    asking: Session,
    /// Writes.
    probing: Session,
    /// Whether the server has read what was written in the life of this driver.
    loaded: Cell<bool>,
    /// When slots were looked after, and on which timeline as what.
    tended: Cell<Option<(Duration, Timeline, bool)>>,
    /// What receivers have of the WAL that commits wait for, and since when that did not grow.
    covered: Cell<Option<(Lsn, Duration)>>,
    tending: RefCell<JoinSet<()>>,
    judged: RefCell<Option<(Duration, Vec<String>)>>,
}

impl PostgresInstance {
    /// Prepares the driver of a node; touches nothing.
    pub fn new(settings: Settings) -> Outcome<Self> {
        let data = settings.data()?.to_owned();
        let asking = Session::new("").of(&data);
        let probing = Session::new(probe::prepare(settings.timing.probe_timeout)).of(&data);
        Ok(Self {
            settings,
            asking,
            probing,
            loaded: Cell::new(false),
            tended: Cell::new(None),
            covered: Cell::new(None),
            tending: RefCell::new(JoinSet::new()),
            judged: RefCell::new(None),
        })
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    async fn look(&self) -> Outcome<Instance> {
        let settings = self.settings.clone();
        let state = blocking(move || {
            Ok(match life::look(&settings)? {
                Life::None => Some(stopped::instance(settings.data()?, &settings.environment)?),
                Life::Guarded(_, status) if status.phase != Phase::Up => Some(Instance::Unclear),
                Life::Guarded(..) | Life::Strange(_) => None,
            })
        });
        if let Some(down) = state.await? {
            self.asking.forget();
            self.probing.forget();
            return Ok(down);
        }
        let limit = self.settings.timing.probe_timeout;
        let place = place::own(&self.settings)?;
        match self.asking.ask(&place, limit, inspect::QUESTION).await {
            Ok(rows) => {
                let found = inspect::answer(&self.settings, &rows)?;
                let found = self.with_stall(found, inspect::covered(&rows));
                let found = self.with_whole_records(found).await?;
                self.tend(&found);
                Ok(found)
            }
            // Another server's answer says nothing of this one, and a person must hear of it.
            Err(failure) if failure.code() == Code::InstanceOther => Err(failure),
            Err(_) => Ok(Instance::Unclear),
        }
    }

    /// Receivers may be there by name while nothing of them comes, for as long as a connection takes
    /// to be given up: commits are stalled once what they have does not grow while it should.
    fn with_stall(&self, mut found: Instance, covered: Option<Lsn>) -> Instance {
        let now = self.settings.environment.clock().elapsed();
        let Instance::Primary { flushed, stalled, .. } = &mut found else { return found };
        let waits = covered.filter(|covered| covered < flushed);
        let known = self.covered.get().filter(|(lsn, _)| Some(*lsn) == waits);
        let since = known.map_or(now, |(_, since)| since);
        self.covered.set(waits.map(|covered| (covered, since)));
        *stalled |= waits.is_some() && now.saturating_sub(since) >= STALLED;
        found
    }

    /// A standby that nobody sends anything more to has received as far as whole records go.
    async fn with_whole_records(&self, mut found: Instance) -> Outcome<Instance> {
        let Instance::Standby {
            streaming: false,
            received: Some(received),
            timeline,
            replayed,
            ..
        } = &mut found
        else {
            return Ok(found);
        };
        if *replayed < *received {
            let (settings, timeline, from) = (self.settings.clone(), *timeline, *replayed);
            let goes_on = blocking(move || {
                let data = settings.data()?;
                let control = control::read(data, &settings.environment)?;
                wal_end::goes_on(data, &control, timeline, from)
            });
            if !goes_on.await? {
                *received = *replayed;
            }
        }
        Ok(found)
    }

    async fn write(&self) -> Outcome<()> {
        let limit = self.settings.timing.probe_timeout;
        let place = place::own(&self.settings)?;
        let write = probe::write(&self.settings.node);
        let data = self.settings.data()?.to_owned();
        within(limit, async {
            blocking(move || space::check(&data)).await?;
            match self.probing.ask(&place, limit, &write).await {
                Err(failure) if session::is_state(&failure, &probe::MISSING) => {
                    let both = format!("{}{write}", probe::TABLE);
                    self.probing.ask(&place, limit, &both).await.map(drop)
                }
                answer => answer.map(drop),
            }
        })
        .await
    }

    /// Looks after the slots, beside everything else: at once where the role has changed.
    fn tend(&self, found: &Instance) {
        let now = self.settings.environment.clock().elapsed();
        let (timeline, writes) = match found {
            Instance::Primary { timeline, .. } => (*timeline, true),
            Instance::Standby { timeline, .. } => (*timeline, false),
            _ => return,
        };
        let rests = |(at, on, wrote): (Duration, Timeline, bool)| {
            (on, wrote) == (timeline, writes) && now.saturating_sub(at) < TEND
        };
        let mut tending = self.tending.borrow_mut();
        while tending.try_join_next().is_some() {}
        if self.tended.get().is_some_and(rests) || !tending.is_empty() {
            return;
        }
        self.tended.set(Some((now, timeline, writes)));
        let settings = self.settings.clone();
        tending.spawn(async move {
            // What could not be done is done ten seconds later; readiness says what is missing.
            let _ = slots::keep(&settings).await;
        });
    }

    async fn judge(&self) -> Outcome<Vec<String>> {
        let now = self.settings.environment.clock().elapsed();
        if let Some((at, lines)) = &*self.judged.borrow()
            && now.saturating_sub(*at) < JUDGED
        {
            return Ok(lines.clone());
        }
        let place = place::own(&self.settings)?;
        let limit = self.settings.timing.probe_timeout;
        let rows = self.asking.ask(&place, limit, readiness::QUESTION).await?;
        let lines = readiness::sentences(&self.settings, &rows)?;
        *self.judged.borrow_mut() = Some((now, lines.clone()));
        Ok(lines)
    }

    /// What a person should know of this node although it can be promoted.
    pub async fn advice(&self) -> Outcome<Vec<String>> {
        let place = place::own(&self.settings)?;
        let limit = self.settings.timing.probe_timeout;
        let rows = self.asking.ask(&place, limit, readiness::QUESTION).await?;
        readiness::advice(&self.settings, &rows)
    }

    async fn fork_of_timeline(&self) -> Outcome<Option<Lsn>> {
        let (Instance::Primary { timeline, .. }
        | Instance::Standby { timeline, .. }
        | Instance::Down { timeline, .. }) = self.look().await?
        else {
            let message = format!("node {} does not say its timeline", self.settings.node);
            return Err(Failure::new(Code::ClusterUnreachable, message)
                .hint("It starts, or does not answer: see its log."));
        };
        if timeline == Timeline::FIRST {
            return Ok(None);
        }
        let name = format!("{:08X}.history", timeline.0);
        let path = self.settings.data()?.join("pg_wal").join(&name);
        let content = std::fs::read(&path).map_err(|error| {
            Failure::new(Code::LocalFile, format!("cannot read {}", path.display())).because(error)
        })?;
        let history = History::parse(timeline, &content).map_err(|error| error.at(&name))?;
        Ok(history.ancestors.last().map(|entry| entry.switch))
    }

    async fn set_upstream(&self, upstream: Option<NodeName>) -> Outcome<()> {
        let (followed, loaded) = (upstream.clone(), self.loaded.get());
        let changed = self.on_thread(move |settings| {
            let conninfo = match &followed {
                Some(upstream) => start::conninfo(settings, upstream)?,
                None => String::new(),
            };
            let change = Change { conninfo: Some(conninfo), ..Change::default() };
            let changed = configuration::write(settings, &change)?;
            // An agent that was killed may have written and not told.
            if changed || !loaded {
                life::reload(settings)?;
            }
            Ok(changed || !loaded)
        });
        let changed = changed.await?;
        self.loaded.set(true);
        if let Some(upstream) = upstream {
            if changed {
                // The other node makes it too; whoever is first.
                let _ = slots::make_at(&self.settings, &upstream).await;
            }
            return Ok(());
        }
        // What was received may still grow until the receiver is gone.
        let gone = "SELECT count(*)::text FROM pg_stat_wal_receiver WHERE pid IS NOT NULL";
        self.wait_for("the WAL receiver to end", gone, "0").await
    }

    async fn set_names(&self, names: String, epoch: u64) -> Outcome<()> {
        let (wanted, loaded) = (format!("{names} in epoch {epoch}"), self.loaded.get());
        let runs = self.on_thread(move |settings| {
            let change = Change { names: Some(names), epoch: Some(epoch), ..Change::default() };
            if configuration::write(settings, &change)? || !loaded {
                life::reload(settings)?;
            }
            Ok(!matches!(life::look(settings)?, Life::None))
        });
        if !runs.await? {
            return Ok(());
        }
        let shown = format!(
            "SELECT concat(current_setting('{NAMES}'), ' in epoch ', \
             current_setting('{EPOCH_SETTING}', true))"
        );
        self.wait_for(&format!("{NAMES} to hold"), &shown, &wanted).await
    }

    /// Asks until the answer is the one that is wanted.
    async fn wait_for(&self, what: &str, sql: &str, wanted: &str) -> Outcome<()> {
        let place = place::own(&self.settings)?;
        let clock = self.settings.environment.clock();
        let end = clock.elapsed().saturating_add(RELOADING);
        loop {
            let asked = self.asking.ask(&place, RELOADING, sql).await;
            let found = match &asked {
                Ok(rows) => rows.first().and_then(|row| session::text(row, 0)).unwrap_or_default(),
                Err(_) => "",
            };
            if asked.is_ok() && found == wanted {
                return Ok(());
            }
            if clock.elapsed() > end {
                let message = format!("waited for {what} in vain, on node {}", self.settings.node);
                let failure = Failure::new(Code::ClusterSettings, message)
                    .hint("See the server's log: a line of its configuration may be wrong.");
                return Err(match asked {
                    Ok(_) => failure.detail(format!("it says {found:?}")),
                    Err(why) => failure.detail(why.full_message()),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn promote_now(&self, deadline: Duration) -> Outcome<()> {
        self.guard(move |client| client.extend(deadline).map(drop)).await?;
        let limit = self.settings.timing.probe_timeout;
        let place = place::own(&self.settings)?;
        let told = self.asking.ask(&place, limit, "SELECT pg_promote(false)").await;
        let Err(failure) = told else { return Ok(()) };
        // A role that may not, or a server without a free session: the same without a session.
        let settings = self.settings.clone();
        let status = self.guard(|client| client.status()).await?;
        let Some(postmaster) = status.postmaster else { return Err(failure) };
        blocking(move || {
            place::write_new(&settings.data()?.join("promote"), b"")?;
            life::signal(postmaster, nix::sys::signal::Signal::SIGUSR1)
        })
        .await
    }

    /// Something that only the guard does.
    async fn guard<T: Send + 'static>(
        &self,
        ask: impl FnOnce(crate::guard::Client) -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        let settings = self.settings.clone();
        blocking(move || ask(life::guarded(&settings)?)).await
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Settings) -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        let settings = self.settings.clone();
        blocking(move || work(&settings)).await
    }
}

/// Work that blocks, on a thread of its own: the agent's own thread renews leases.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Failure::new(Code::Internal, "a thread of the driver has ended").because(error))
    })
}

impl InstanceDriver for PostgresInstance {
    fn inspect(&self) -> LocalBoxFuture<'_, Outcome<Instance>> {
        async {
            let limit = self.settings.timing.probe_timeout;
            // Also a disk that hangs must not keep the agent waiting.
            match tokio::time::timeout(limit, self.look()).await {
                Ok(found) => found,
                Err(_) => Ok(Instance::Unclear),
            }
        }
        .boxed_local()
    }

    fn probe(&self) -> LocalBoxFuture<'_, Outcome<()>> {
        self.write().boxed_local()
    }

    fn extend(&self, deadline: Duration) -> LocalBoxFuture<'_, Outcome<()>> {
        self.guard(move |client| client.extend(deadline).map(drop)).boxed_local()
    }

    fn start(&self, start: StartAs) -> LocalBoxFuture<'_, Outcome<()>> {
        async move {
            if let StartAs::Standby { upstream: Some(upstream) } = &start {
                // Whether the other node answers does not decide about starting.
                let _ = slots::make_at(&self.settings, upstream).await;
            }
            self.on_thread(move |settings| start::start(settings, &start)).await?;
            self.loaded.set(true);
            Ok(())
        }
        .boxed_local()
    }

    fn follow(&self, upstream: Option<NodeName>) -> LocalBoxFuture<'_, Outcome<()>> {
        self.set_upstream(upstream).boxed_local()
    }

    fn synchronize(&self, names: String, epoch: u64) -> LocalBoxFuture<'_, Outcome<()>> {
        self.set_names(names, epoch).boxed_local()
    }

    fn promote(&self, deadline: Duration) -> LocalBoxFuture<'_, Outcome<()>> {
        self.promote_now(deadline).boxed_local()
    }

    fn release(&self) -> LocalBoxFuture<'_, Outcome<ShutDown>> {
        async {
            // Asked again after it was done, it says the same.
            if let Instance::Down { .. } = self.look().await?
                && let Some(ended) = self.on_thread(release::ended).await?
            {
                return Ok(ended);
            }
            release::prepare(&self.settings).await?;
            self.on_thread(release::shut_down).await
        }
        .boxed_local()
    }

    fn stop(&self) -> LocalBoxFuture<'_, Outcome<()>> {
        self.on_thread(|settings| match life::look(settings)? {
            Life::None => Ok(()),
            Life::Guarded(client, _) => client.stop(Stop::Fast, life::STOP_LIMIT).map(drop),
            Life::Strange(_) => life::guarded(settings).map(drop),
        })
        .boxed_local()
    }

    fn fence(&self) -> LocalBoxFuture<'_, Outcome<Killed>> {
        self.on_thread(life::fence).boxed_local()
    }

    fn come_back(&self, upstream: NodeName, by: Return) -> LocalBoxFuture<'_, Outcome<String>> {
        async move { come_back::come_back(&self.settings, &upstream, by).await }.boxed_local()
    }

    fn salvage(&self, fork: Lsn) -> LocalBoxFuture<'_, Outcome<String>> {
        self.on_thread(move |settings| salvage::in_child(settings, fork)).boxed_local()
    }

    fn fork(&self) -> LocalBoxFuture<'_, Outcome<Option<Lsn>>> {
        self.fork_of_timeline().boxed_local()
    }

    fn readiness(&self) -> LocalBoxFuture<'_, Outcome<Vec<String>>> {
        self.judge().boxed_local()
    }
}
