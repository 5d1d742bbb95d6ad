//! The process that is measured: the production controller, whose ports lead to the world.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::channel::{mpsc, oneshot};
use futures::future::{LocalBoxFuture, try_join};
use futures::{SinkExt, StreamExt};
use lifeboat_daemons::controller;
use lifeboat_drivers::traffic::Pointing;
use lifeboat_drivers::{EpochArchive, KnownEpoch, MemoryEpochs, Probe, Probed, TrafficDriver};
use lifeboat_environment::{SystemClock, SystemTimer, Timer};
use lifeboat_model::{RegionName, ServiceName};
use lifeboat_quorum::{
    Commit, EpochRecord, Keys, Revision, Seen, Snapshot, Store, StoreError, Transaction,
};
use lifeboat_telemetry::Outcome;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::services::{self, HERE, POLL, PROBE_EVERY, PROBE_FAILING_EVERY};
use crate::wire::{ARCHIVE, Answer, Answered, Ask, Asked, snapshot, text};

/// Runs until the world is gone.
pub async fn run(socket: &Path, count: usize, noisy: bool) -> Result<()> {
    let stream = UnixStream::connect(socket).await.context("cannot reach the world")?;
    let (sender, questions) = mpsc::unbounded();
    let world = World { sender, waiting: Rc::default(), next: Cell::new(0) };
    let lines = carry(stream, questions, Rc::clone(&world.waiting));
    let all = services::all(count)?;
    let traffic = all.iter().map(|service| {
        let driver: Box<dyn TrafficDriver> = Box::new(Leads(RefCell::default()));
        (service.name.clone(), vec![driver])
    });
    let traffic: BTreeMap<ServiceName, Vec<Box<dyn TrafficDriver>>> = traffic.collect();
    let settings = controller::Settings {
        domain: services::name(HERE)?,
        services: all.into_iter().map(|service| (service.name.clone(), service)).collect(),
        keys: Keys::default(),
        poll: POLL,
        probe_every: PROBE_EVERY,
        probe_failing_every: PROBE_FAILING_EVERY,
        traffic_every: Duration::from_secs(2),
    };
    let ports = controller::Ports {
        timer: &SystemTimer,
        clock: &SystemClock,
        store: &world,
        probe: &world,
        epochs: &Archive(MemoryEpochs::new()),
        traffic: &traffic,
        note: &|text| {
            if noisy {
                eprintln!("controller: {text}");
            }
        },
    };
    let work = async {
        controller::run(&settings, &ports).await;
        Ok(())
    };
    try_join(lines, work).await.map(|_| ())
}

type Waiting = Rc<RefCell<BTreeMap<u64, oneshot::Sender<Answer>>>>;

/// Carries questions out and answers in.
async fn carry(
    stream: UnixStream,
    mut questions: mpsc::UnboundedReceiver<String>,
    waiting: Waiting,
) -> Result<()> {
    let (read, mut write) = stream.into_split();
    let out = async {
        while let Some(line) = questions.next().await {
            write.write_all(line.as_bytes()).await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let back = async {
        let mut lines = BufReader::with_capacity(1 << 16, read).lines();
        while let Some(line) = lines.next_line().await? {
            let Answered { id, what } = serde_json::from_str(&line)?;
            if let Some(asker) = waiting.borrow_mut().remove(&id) {
                // Who gave up does not want it any more.
                drop(asker.send(what));
            }
        }
        anyhow::bail!("the world has ended")
    };
    try_join(out, back).await.map(|_: ((), ())| ())
}

/// Store and endpoints, at the other end of a socket.
struct World {
    sender: mpsc::UnboundedSender<String>,
    waiting: Waiting,
    next: Cell<u64>,
}

impl World {
    async fn ask(&self, what: Ask) -> Result<Answer, StoreError> {
        let gone = || StoreError::Unavailable("the world has ended".to_owned());
        let id = self.next.get();
        self.next.set(id + 1);
        let (sender, answer) = oneshot::channel();
        self.waiting.borrow_mut().insert(id, sender);
        let mut line = serde_json::to_string(&Asked { id, what }).map_err(|_| gone())?;
        line.push('\n');
        self.sender.clone().send(line).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    async fn look(&self, prefix: &str, since: Revision) -> Result<Snapshot, StoreError> {
        match self.ask(Ask::Read(prefix.to_owned(), since)).await? {
            Answer::Found(revision, entries) => Ok(snapshot(revision, entries)),
            _ => Err(StoreError::Unavailable("an answer to something else".to_owned())),
        }
    }

    async fn change(&self, transaction: Transaction) -> Result<Commit, StoreError> {
        transaction.check()?;
        let unreadable = |error: anyhow::Error| StoreError::Denied(error.to_string());
        let compares = transaction.compares.into_iter().map(|one| (one.key, one.revision));
        let puts =
            transaction.puts.into_iter().map(|put| Ok((put.key, put.value.map(text).transpose()?)));
        let puts = puts.collect::<Result<_>>().map_err(unreadable)?;
        match self.ask(Ask::Commit(compares.collect(), puts)).await? {
            Answer::Committed(Some(revision)) => Ok(Commit::Done(revision)),
            Answer::Committed(None) => Ok(Commit::Conflict),
            Answer::Denied(why) => Err(StoreError::Denied(why)),
            _ => Err(StoreError::Unavailable("an answer to something else".to_owned())),
        }
    }

    async fn write(&self, service: &ServiceName) -> Probed {
        match self.ask(Ask::Probe(service.clone())).await {
            Ok(Answer::Probed(true)) => {
                Probed { seen: Seen::Works, why: "a write was committed".to_owned() }
            }
            Ok(_) => Probed { seen: Seen::Fails, why: silence(service) },
            Err(error) => Probed { seen: Seen::Unknown, why: error.to_string() },
        }
    }
}

/// What an observer says of an endpoint that is silent: as long as real ones are.
pub fn silence(service: &ServiceName) -> String {
    let host = format!("{service}.databases.production.example.internal");
    format!(
        "cannot connect to {host} (10.20.30.40), port 5432, as lifeboat_observer: no answer within \
         500 ms; the connection before it was closed by the server in the middle of a statement: \
         terminating connection because of crash of another server process"
    )
}

impl Store for World {
    fn read<'a>(
        &'a self,
        prefix: &'a str,
        since: Revision,
    ) -> LocalBoxFuture<'a, Result<Snapshot, StoreError>> {
        Box::pin(self.look(prefix, since))
    }

    fn commit(&self, transaction: Transaction) -> LocalBoxFuture<'_, Result<Commit, StoreError>> {
        Box::pin(self.change(transaction))
    }
}

impl Probe for World {
    fn probe<'a>(&'a self, service: &'a ServiceName) -> LocalBoxFuture<'a, Probed> {
        Box::pin(self.write(service))
    }
}

/// Epochs in memory, as far away as a repository is.
struct Archive(MemoryEpochs);

impl EpochArchive for Archive {
    fn highest<'a>(
        &'a self,
        service: &'a ServiceName,
    ) -> LocalBoxFuture<'a, Outcome<Option<KnownEpoch>>> {
        Box::pin(async move {
            SystemTimer.sleep(ARCHIVE).await;
            self.0.highest(service).await
        })
    }

    fn record<'a>(
        &'a self,
        service: &'a ServiceName,
        record: &'a EpochRecord,
    ) -> LocalBoxFuture<'a, Outcome<Vec<RegionName>>> {
        Box::pin(async move {
            SystemTimer.sleep(ARCHIVE).await;
            self.0.record(service, record).await
        })
    }
}

/// A traffic record that leads where it is told to.
struct Leads(RefCell<Option<(u64, RegionName)>>);

impl Leads {
    fn pointing(&self) -> Pointing {
        let (epoch, region) = self.0.borrow().clone().unzip();
        Pointing { epoch, region, dissent: Vec::new(), lagging: Vec::new() }
    }
}

impl TrafficDriver for Leads {
    fn name(&self) -> String {
        "the name of the service".to_owned()
    }

    fn observe(&self) -> LocalBoxFuture<'_, Outcome<Pointing>> {
        Box::pin(async { Ok(self.pointing()) })
    }

    fn point(&self, region: RegionName, epoch: u64) -> LocalBoxFuture<'_, Outcome<Pointing>> {
        *self.0.borrow_mut() = Some((epoch, region));
        Box::pin(async { Ok(self.pointing()) })
    }
}
