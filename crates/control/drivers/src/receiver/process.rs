//! `lifeboat wal receive` as a child: it goes on when the agent ends, and the next agent knows it.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use lifeboat_environment::Environment;
use lifeboat_model::{DatabaseId, RegionName, Spec};
use lifeboat_quorum::SealStatus;
use lifeboat_repository::access::writer_path;
use lifeboat_repository::keys::{WriterKey, WriterStream};
use lifeboat_telemetry::{Cancel, Code, Failure, Outcome};
use lifeboat_wal::receive::{Seal, SealRequest, seal};
use nix::sys::signal::Signal;

use super::ReceiverDriver;
use super::child::{Identity, Place};
use crate::postgres::blocking;

const RECEIVE: &str = "receive";
const DRAIN: &str = "drain";
/// How long a receiver that runs may take to carry its seal out; then it is killed and sealed
/// from here.
const SEALING: Duration = Duration::from_millis(500);
/// How long one that shall end for a newer epoch may ship what it has.
const ENDING: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);
/// How long a call of seal waits for shipping; whoever wants to know more asks again.
const SHIPPING: Duration = Duration::from_millis(400);
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What is given to [`ReceiverProcess::new`].
#[derive(Clone)]
pub struct ReceiverSettings {
    /// Time, chance, variables.
    pub environment: Environment,
    /// The spec.
    pub spec: Arc<Spec>,
    /// Its file, absolute.
    pub spec_path: PathBuf,
    /// The lifeboat binary, absolute.
    pub program: PathBuf,
    /// The state directory of this host, with spool and writer key.
    pub state: PathBuf,
    /// Which database.
    pub database: DatabaseId,
    /// In which region.
    pub region: RegionName,
}

/// The receiver of a database in a region.
pub struct ReceiverProcess {
    settings: ReceiverSettings,
    place: Place,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    receiver: Option<Running>,
    drain: Option<Running>,
    /// What an end of the receiver told, and when it is tried again.
    ended: Option<Ended>,
}

struct Running {
    identity: Identity,
    /// None if an earlier agent started it.
    child: Option<Child>,
    since: Duration,
}

struct Ended {
    how: String,
    said: Vec<String>,
    pause: Duration,
    again: Duration,
}

impl Running {
    /// How it ended; none while it lives. Of somebody else's child only that it did is known.
    fn ended(&mut self) -> Option<Option<i32>> {
        match &mut self.child {
            Some(child) => child.try_wait().ok().flatten().map(|status| status.code()),
            None => (!self.identity.lives()).then_some(None),
        }
    }
}

impl ReceiverProcess {
    /// Prepares the driver, and finds what an earlier agent left running.
    pub fn new(settings: ReceiverSettings) -> Outcome<Self> {
        let ReceiverSettings { database, region, .. } = &settings;
        let name = format!("{}_{}_{region}", database.service, database.database);
        let place = Place::new(settings.state.join("receivers").join(name))?;
        let now = settings.environment.clock().elapsed();
        let found = |kind: &str| {
            place.known(kind).map(|identity| Running { identity, child: None, since: now })
        };
        let state = State { receiver: found(RECEIVE), drain: found(DRAIN), ended: None };
        Ok(Self { settings, place, state: RefCell::new(state) })
    }

    fn now(&self) -> Duration {
        self.settings.environment.clock().elapsed()
    }

    /// Takes note of a receiver that has ended.
    fn reap(&self) {
        let mut state = self.state.borrow_mut();
        let Some(receiver) = &mut state.receiver else { return };
        let Some(code) = receiver.ended() else { return };
        let (now, lived) = (self.now(), self.now().saturating_sub(receiver.since));
        let before = state.ended.take().filter(|_| lived < PAUSE_MAX);
        let pause = before.map_or(PAUSE_MIN, |before| (before.pause * 2).min(PAUSE_MAX));
        let how = match code {
            Some(code) => format!("with code {code}"),
            None => "by a signal".to_owned(),
        };
        state.receiver = None;
        let said = self.place.tail(RECEIVE);
        state.ended = Some(Ended { how, said, pause, again: now.saturating_add(pause) });
    }

    fn failure(&self, ended: &Ended) -> Failure {
        let ReceiverSettings { database, region, .. } = &self.settings;
        let message = format!("the receiver of {database} in {region} has ended {}", ended.how);
        let log = self.place.log(RECEIVE);
        Failure::new(Code::ReceiverEnded, message)
            .details(ended.said.clone())
            .hint(format!("It is started again by itself. Its log is {}.", log.display()))
    }

    async fn ensure(&self, epoch: u64) -> Outcome<()> {
        self.reap();
        if let Some(running) = self.running() {
            if running >= epoch {
                return Ok(());
            }
            self.end(ENDING).await;
        }
        if let Some(ended) = &self.state.borrow().ended
            && ended.again > self.now()
        {
            return Err(self.failure(ended));
        }
        let arguments = self.arguments(&["wal", "receive"], epoch, &[]);
        let (child, identity) =
            self.place.start(RECEIVE, epoch, &self.settings.program, &arguments)?;
        let since = self.now();
        let mut state = self.state.borrow_mut();
        state.receiver = Some(Running { identity, child: Some(child), since });
        Ok(())
    }

    /// Ends the receiver: asked first, so that it ships what it has.
    async fn end(&self, patience: Duration) {
        let told = self.state.borrow().receiver.as_ref().map(|running| running.identity.clone());
        let Some(identity) = told else { return };
        identity.signal(Signal::SIGTERM);
        let end = self.now().saturating_add(patience);
        loop {
            if self.state.borrow_mut().receiver.as_mut().is_none_or(|one| one.ended().is_some()) {
                break;
            }
            if self.now() > end {
                // What it has flushed is in its spool, for the next one.
                identity.signal(Signal::SIGKILL);
            }
            tokio::time::sleep(LOOK).await;
        }
        let mut state = self.state.borrow_mut();
        (state.receiver, state.ended) = (None, None);
    }

    async fn seal_now(&self, epoch: u64) -> Outcome<SealStatus> {
        let sealed = match self.seal_within(epoch).await {
            // It is frozen, or busy with a disk: dead, it acknowledges nothing either.
            Err(failure) if failure.code() == Code::DeadlineExceeded => {
                let running = self.state.borrow().receiver.as_ref().map(|one| one.identity.clone());
                if let Some(identity) = running {
                    identity.signal(Signal::SIGKILL);
                }
                self.seal_within(epoch).await?
            }
            sealed => sealed?,
        };
        let shipped = self.ship(sealed.epoch).await?;
        let Seal { epoch, timeline, flushed } = sealed;
        Ok(SealStatus { epoch, timeline, flushed, shipped })
    }

    async fn seal_within(&self, epoch: u64) -> Outcome<Seal> {
        let settings = self.settings.clone();
        blocking(move || {
            let stream = stream(&settings)?;
            seal(&SealRequest {
                environment: &settings.environment,
                cancel: &Cancel::new(),
                stream: &stream,
                region: settings.region.as_str(),
                state: &settings.state,
                epoch,
                deadline: SEALING,
            })
        })
        .await
    }

    /// Whether the repository has all of the spool. A receiver that was sealed ships before it
    /// ends; what it left is shipped by a process of its own.
    async fn ship(&self, epoch: u64) -> Outcome<bool> {
        let end = self.now().saturating_add(SHIPPING);
        loop {
            self.reap();
            if self.state.borrow().receiver.is_none()
                && let Some(shipped) = self.drain(epoch)?
            {
                return Ok(shipped);
            }
            if self.now() > end {
                return Ok(false);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Starts to drain, or says how that ended; none while it is at work.
    fn drain(&self, epoch: u64) -> Outcome<Option<bool>> {
        let mut state = self.state.borrow_mut();
        if let Some(drain) = &mut state.drain {
            let Some(code) = drain.ended() else { return Ok(None) };
            state.drain = None;
            return Ok(Some(code == Some(0)));
        }
        // For the next epoch: a sealed one is refused.
        let next = epoch.saturating_add(1);
        let arguments = self.arguments(&["wal", "receive"], next, &["--drain"]);
        let (child, identity) =
            self.place.start(DRAIN, next, &self.settings.program, &arguments)?;
        state.drain = Some(Running { identity, child: Some(child), since: self.now() });
        Ok(None)
    }

    fn arguments(&self, command: &[&str], epoch: u64, more: &[&str]) -> Vec<String> {
        let ReceiverSettings { spec_path, region, database, .. } = &self.settings;
        let mut words = vec!["--spec".to_owned(), spec_path.display().to_string()];
        words.extend(["--here".to_owned(), region.to_string()]);
        words.extend(command.iter().map(|word| (*word).to_owned()));
        words.extend([database.to_string(), "--epoch".to_owned(), epoch.to_string()]);
        words.extend(more.iter().map(|word| (*word).to_owned()));
        words
    }
}

/// The database's stream in this host's writer key.
fn stream(settings: &ReceiverSettings) -> Outcome<WriterStream> {
    let database = settings.database.to_string();
    let writer = WriterKey::load(&writer_path(&settings.spec, &settings.state))?;
    writer.stream(&database).cloned().ok_or_else(|| {
        let message = format!("{database} is not bound in this host's writer key");
        Failure::new(Code::WriterKeyIncomplete, message)
            .hint("Run `lifeboat key enroll` here: without it no receiver ever ran here.")
    })
}

impl ReceiverDriver for ReceiverProcess {
    fn receive(&self, epoch: u64) -> LocalBoxFuture<'_, Outcome<()>> {
        self.ensure(epoch).boxed_local()
    }

    fn seal(&self, epoch: u64) -> LocalBoxFuture<'_, Outcome<SealStatus>> {
        self.seal_now(epoch).boxed_local()
    }

    fn running(&self) -> Option<u64> {
        let mut state = self.state.borrow_mut();
        let receiver = state.receiver.as_mut()?;
        receiver.ended().is_none().then_some(receiver.identity.epoch)
    }
}
