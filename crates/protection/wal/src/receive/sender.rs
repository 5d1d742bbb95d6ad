//! Servers as the receiver sees them; tests have others than PostgreSQL's.

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use lifeboat_environment::Environment;
use lifeboat_model::{Lsn, SegmentSize, Timeline};
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wire::{
    Condition, Config, Connection, Error, Event, Slot, SlotName, SlotOptions, Start, Status,
};
use lifeboat_wire::{Stream, System};
use tokio::runtime::{Builder, Runtime};

use super::EPOCH_SETTING;
use crate::incarnation::INCARNATION_SETTING;

/// A server of the database.
#[derive(Debug, Clone)]
pub struct Node {
    /// What the spec calls it.
    pub name: String,
    /// How to reach it.
    pub config: Config,
    /// Its data directory, if it may be on this host: it tells whether this is a copy.
    pub data_directory: Option<PathBuf>,
}

/// All servers that may be the primary.
pub(crate) trait Servers {
    /// Their names, in the order in which they are tried.
    fn names(&self) -> Vec<String>;
    /// Where the data directory of one of them lies, if it is on this host.
    fn data_directory(&self, number: usize) -> Option<PathBuf>;
    /// Opens a session with one of them.
    fn open(&mut self, number: usize) -> Outcome<Box<dyn Sender>>;
}

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) system: System,
    pub(crate) in_recovery: bool,
    pub(crate) segment_size: SegmentSize,
    /// Which incarnation of the cluster it says it is; a server that was never restored says none.
    pub(crate) incarnation: Option<u64>,
    /// In which control epoch it became a primary; none if no agent told it.
    pub(crate) epoch: Option<u64>,
}

/// What a server tells of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotState {
    Missing,
    /// It keeps WAL from the segment of this position on.
    Keeps(Lsn),
    /// It is there and keeps nothing: it was invalidated, or made by hand and never used.
    KeepsNothing,
    /// The server is too old to tell.
    Unknown,
}

/// A session with a server.
pub(crate) trait Sender {
    /// Where it is, for messages.
    fn place(&self) -> String;
    fn greet(&mut self) -> Result<Greeting, Error>;
    /// The content of a history file; `None` if the server lacks it.
    fn history(&mut self, timeline: Timeline) -> Result<Option<Bytes>, Error>;
    fn slot(&mut self, slot: &SlotName) -> Result<SlotState, Error>;
    /// Makes the slot; `false` if it was there.
    fn make_slot(&mut self, slot: &SlotName) -> Result<bool, Error>;
    fn drop_slot(&mut self, slot: &SlotName) -> Result<(), Error>;
    fn start(&mut self, start: Start) -> Result<(), Error>;
    /// What comes within so much time; `None` if nothing does.
    fn next(&mut self, wait: Duration) -> Result<Option<Event>, Error>;
    fn status(&mut self, status: Status) -> Result<(), Error>;
}

/// Real servers.
pub(crate) struct RealServers<'a> {
    environment: &'a Environment,
    nodes: &'a [Node],
    // On this thread: another one would add a switch to every commit.
    runtime: Rc<Runtime>,
}

impl<'a> RealServers<'a> {
    pub(crate) fn new(environment: &'a Environment, nodes: &'a [Node]) -> Outcome<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| {
            Failure::new(Code::Internal, "cannot set up the network").because(error)
        })?;
        Ok(Self { environment, nodes, runtime: Rc::new(runtime) })
    }
}

impl Servers for RealServers<'_> {
    fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }

    fn data_directory(&self, number: usize) -> Option<PathBuf> {
        let directory = self.nodes.get(number)?.data_directory.clone()?;
        directory.join("PG_VERSION").exists().then_some(directory)
    }

    fn open(&mut self, number: usize) -> Outcome<Box<dyn Sender>> {
        let Some(node) = self.nodes.get(number) else {
            return Err(Failure::new(Code::Internal, "there is no such node"));
        };
        let place = node.config.place();
        let opened = self.runtime.block_on(Connection::open(&node.config, self.environment));
        let connection = opened.map_err(|error| error.at(&place))?;
        let state = State::Commands(connection);
        Ok(Box::new(RealSender { runtime: Rc::clone(&self.runtime), place, state }))
    }
}

struct RealSender {
    runtime: Rc<Runtime>,
    place: String,
    state: State,
}

enum State {
    Commands(Connection),
    Streams(Stream),
    Gone,
}

impl RealSender {
    fn commands(&mut self) -> Result<(&Runtime, &mut Connection), Error> {
        match &mut self.state {
            State::Commands(connection) => Ok((&self.runtime, connection)),
            _ => Err(Error::Busy),
        }
    }

    fn streams(&mut self) -> Result<(&Runtime, &mut Stream), Error> {
        match &mut self.state {
            State::Streams(stream) => Ok((&self.runtime, stream)),
            _ => Err(Error::Busy),
        }
    }
}

impl Sender for RealSender {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn greet(&mut self) -> Result<Greeting, Error> {
        let (runtime, connection) = self.commands()?;
        runtime.block_on(async {
            let system = connection.identify().await?;
            let in_recovery = match connection.in_recovery().await {
                // Version 13: what a server in recovery begins is always read-only.
                Err(Error::Unsupported { .. }) => {
                    connection.show("transaction_read_only").await? == "on"
                }
                answer => answer?,
            };
            let size = connection.show("wal_segment_size").await?;
            let segment_size = segment_size(&size)
                .ok_or_else(|| Error::Protocol("wal_segment_size is no size".into()))?;
            let incarnation = number(connection, INCARNATION_SETTING).await?;
            let epoch = number(connection, EPOCH_SETTING).await?;
            Ok(Greeting { system, in_recovery, segment_size, incarnation, epoch })
        })
    }

    fn history(&mut self, timeline: Timeline) -> Result<Option<Bytes>, Error> {
        let (runtime, connection) = self.commands()?;
        let file = runtime.block_on(connection.timeline_history(timeline))?;
        Ok(file.map(|file| file.content))
    }

    fn slot(&mut self, slot: &SlotName) -> Result<SlotState, Error> {
        let (runtime, connection) = self.commands()?;
        match runtime.block_on(connection.read_slot(slot)) {
            Ok(None) => Ok(SlotState::Missing),
            Ok(Some(Slot { restart: Some((_, lsn)) })) => Ok(SlotState::Keeps(lsn)),
            Ok(Some(Slot { restart: None })) => Ok(SlotState::KeepsNothing),
            Err(Error::Unsupported { .. }) => Ok(SlotState::Unknown),
            Err(error) => Err(error),
        }
    }

    fn make_slot(&mut self, slot: &SlotName) -> Result<bool, Error> {
        let (runtime, connection) = self.commands()?;
        let options = SlotOptions { reserve_wal: true, temporary: false };
        match runtime.block_on(connection.create_slot(slot, options)) {
            Ok(()) => Ok(true),
            Err(error) if error.condition() == Some(Condition::SlotExists) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn drop_slot(&mut self, slot: &SlotName) -> Result<(), Error> {
        let (runtime, connection) = self.commands()?;
        runtime.block_on(connection.drop_slot(slot, false))
    }

    fn start(&mut self, start: Start) -> Result<(), Error> {
        let State::Commands(connection) = std::mem::replace(&mut self.state, State::Gone) else {
            return Err(Error::Busy);
        };
        self.state = State::Streams(self.runtime.block_on(connection.start(start))?);
        Ok(())
    }

    fn next(&mut self, wait: Duration) -> Result<Option<Event>, Error> {
        let (runtime, stream) = self.streams()?;
        // Nothing is lost when the future is dropped: the stream promises it.
        let next = runtime.block_on(async {
            // A timer ends with a millisecond, for the rest of which every commit would wait.
            match wait.is_zero() {
                true => look(pin!(stream.next())).await,
                false => tokio::time::timeout(wait, stream.next()).await.ok(),
            }
        });
        next.transpose()
    }

    fn status(&mut self, status: Status) -> Result<(), Error> {
        let (runtime, stream) = self.streams()?;
        runtime.block_on(stream.status(status))
    }
}

/// A setting of ours; none if the server has no such setting.
async fn number(connection: &mut Connection, setting: &str) -> Result<Option<u64>, Error> {
    match connection.show(setting).await {
        Ok(number) => Ok(number.parse().ok()),
        Err(error) if error.condition() == Some(Condition::SlotMissing) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is there already.
async fn look<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// `16MB`, as SHOW prints it.
fn segment_size(text: &str) -> Option<SegmentSize> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..)? {
        "GB" => 30,
        "MB" => 20,
        "kB" => 10,
        "B" | "" => 0,
        _ => return None,
    };
    SegmentSize::new(digits.parse::<u64>().ok()?.checked_mul(1 << shift)?)
}
