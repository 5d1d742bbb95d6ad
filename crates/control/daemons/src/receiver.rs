//! The agent's part beside a receiver: runs it for the epoch that is ordered, or seals it.

use std::cell::Cell;
use std::time::Duration;

use lifeboat_drivers::{Memory, ReceiverDriver};
use lifeboat_environment::Timer;
use lifeboat_model::{DatabaseName, RegionName, ServiceName};
use lifeboat_quorum::{
    Desired, Entry, Keys, Progress, ReceiverGoal, ReceiverStatus, Revision, SealStatus, Store,
    Token, Transaction, decode,
};
use lifeboat_telemetry::Outcome;

/// Which receiver this is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The service.
    pub service: ServiceName,
    /// The database.
    pub database: DatabaseName,
    /// The region that it receives in.
    pub region: RegionName,
    /// Where things lie in the store.
    pub keys: Keys,
    /// How often the store is read.
    pub poll: Duration,
}

/// What it acts through.
pub struct Ports<'a> {
    /// Time.
    pub timer: &'a dyn Timer,
    /// The quorum store.
    pub store: &'a dyn Store,
    /// The receiver.
    pub receiver: &'a dyn ReceiverDriver,
    /// What must not be forgotten.
    pub memory: &'a dyn Memory,
    /// Who is told what an operator should know.
    pub note: &'a dyn Fn(String),
}

/// A status is told at once when it changes, and this often anyway.
const AT_LEAST_EVERY: Duration = Duration::from_millis(1000);

struct Keeper<'a> {
    settings: &'a Settings,
    ports: &'a Ports<'a>,
    since: Cell<Revision>,
    beat: Cell<u64>,
}

/// Runs for ever.
pub async fn run(settings: &Settings, ports: &Ports<'_>) {
    let keeper = Keeper { settings, ports, since: Cell::new(0), beat: Cell::new(0) };
    keeper.keep().await;
}

impl Keeper<'_> {
    async fn keep(&self) {
        let mut order: Option<Desired<ReceiverGoal>> = None;
        let mut sealed: Option<SealStatus> = None;
        let mut told: Option<(ReceiverStatus, Duration)> = None;
        loop {
            match self.read().await {
                Ok(Some(read)) => order = Some(read),
                Ok(None) => {}
                Err(error) => (self.ports.note)(error),
            }
            let (token, progress) = match &order {
                None => (Token::default(), Progress::None),
                Some(order) => (order.token, self.obey(order, &mut sealed).await),
            };
            let epoch = self.ports.receiver.running();
            let status = ReceiverStatus {
                beat: 0,
                token,
                progress,
                epoch: epoch.unwrap_or_default(),
                sealed,
                running: epoch.is_some(),
            };
            let now = self.ports.timer.elapsed();
            let due = told.as_ref().is_none_or(|(before, at)| {
                *before != status || now.saturating_sub(*at) >= AT_LEAST_EVERY
            });
            if due && self.tell(&status).await {
                told = Some((status, now));
            }
            self.ports.timer.sleep(self.settings.poll).await;
        }
    }

    /// Reads the order if it changed, and once the beat that was reported before this start.
    async fn read(&self) -> Result<Option<Desired<ReceiverGoal>>, String> {
        let Settings { service, database, region, keys, .. } = self.settings;
        let key = keys.receiver_desired(service, database, region);
        let prefix = key.trim_end_matches("desired").to_owned();
        let read = self.ports.store.read(&prefix, self.since.get()).await;
        let snapshot = read.map_err(|error| error.to_string())?;
        self.since.set(self.since.get().max(snapshot.revision));
        if let Some(entry) = snapshot.get(&keys.receiver_status(service, database, region)) {
            let status: ReceiverStatus = decode(entry).map_err(|error| error.to_string())?;
            self.beat.set(self.beat.get().max(status.beat));
        }
        let order = snapshot.get(&key).map(|entry: &Entry| decode(entry)).transpose();
        order.map_err(|error| error.to_string())
    }

    async fn obey(
        &self,
        order: &Desired<ReceiverGoal>,
        sealed: &mut Option<SealStatus>,
    ) -> Progress {
        match self.accept(order.token) {
            Ok(true) => {}
            Ok(false) => return Progress::Failed { why: "the order is an old one".to_owned() },
            Err(failure) => return Progress::Failed { why: failure.full_message() },
        }
        let done = match &order.goal {
            ReceiverGoal::Receive => self.receive(order.token.epoch).await,
            ReceiverGoal::Seal { epoch } => self.seal(*epoch, sealed).await,
        };
        match done {
            Ok(evidence) => Progress::Done { evidence },
            Err(failure) => Progress::Failed { why: failure.full_message() },
        }
    }

    async fn receive(&self, epoch: u64) -> Outcome<String> {
        self.ports.receiver.receive(epoch).await?;
        Ok(format!("receives for epoch {epoch}"))
    }

    /// A seal that has shipped everything is for ever; until then it is looked after again.
    async fn seal(&self, epoch: u64, sealed: &mut Option<SealStatus>) -> Outcome<String> {
        let done = sealed.is_some_and(|seal| seal.epoch >= epoch && seal.shipped);
        if !done {
            *sealed = Some(self.ports.receiver.seal(epoch).await?);
        }
        Ok(format!("is sealed for epoch {epoch}"))
    }

    /// Durable before it is acted on; never a lower one.
    fn accept(&self, token: Token) -> Outcome<bool> {
        let highest = self.ports.memory.highest()?;
        if token > highest {
            self.ports.memory.remember(token)?;
        }
        Ok(token >= highest)
    }

    async fn tell(&self, status: &ReceiverStatus) -> bool {
        let Settings { service, database, region, keys, .. } = self.settings;
        let beat = self.beat.get().saturating_add(1);
        self.beat.set(beat);
        let key = keys.receiver_status(service, database, region);
        let status = ReceiverStatus { beat, ..status.clone() };
        self.ports.store.commit(Transaction::new().put(key, &status)).await.is_ok()
    }
}
