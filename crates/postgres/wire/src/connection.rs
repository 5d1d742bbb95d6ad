//! A session that takes commands.

use std::fmt;

use lifeboat_environment::Environment;
use lifeboat_model::Timeline;

use crate::command::{self, HistoryFile, Slot, SlotName, SlotOptions, Start, System};
use crate::link::Link;
use crate::protocol::{Login, Protocol, Row, Step};
use crate::{Condition, Config, Error, Event, Stream, dial};

/// READ_REPLICATION_SLOT appeared with this version.
const READ_SLOT_MAJOR: u32 = 15;
/// `in_hot_standby` appeared with this version.
const IN_HOT_STANDBY_MAJOR: u32 = 14;

/// A replication session. Dropping it closes it.
pub struct Connection {
    link: Link,
    protocol: Protocol,
    environment: Environment,
}

impl Connection {
    /// Connects and logs in, within the configuration's timeout.
    pub async fn open(config: &Config, environment: &Environment) -> Result<Self, Error> {
        let timeout = config.connect_timeout;
        let opened = tokio::time::timeout(timeout, Self::open_patiently(config, environment));
        opened.await.unwrap_or(Err(Error::Timeout(timeout)))
    }

    async fn open_patiently(config: &Config, environment: &Environment) -> Result<Self, Error> {
        let (socket, security) = dial::dial(config).await?;
        Self::log_in(Link::new(socket), Login::new(config, security), environment).await
    }

    pub(crate) async fn log_in(
        link: Link,
        login: Login,
        environment: &Environment,
    ) -> Result<Self, Error> {
        let protocol = Protocol::new(login)?;
        let mut connection = Self { link, protocol, environment: environment.clone() };
        match connection.step().await? {
            Step::Ready => Ok(connection),
            _ => Err(Error::protocol("an answer came before the session was open")),
        }
    }

    /// The server's version as it prints it, as in `15.20 (Debian 15.20-1.pgdg120+1)`.
    pub fn server_version(&self) -> &str {
        self.parameter("server_version").unwrap_or_default()
    }

    /// The server's major version; 0 if it did not tell.
    pub fn server_major(&self) -> u32 {
        let version = self.server_version();
        let digits = version.find(|letter: char| !letter.is_ascii_digit());
        version.get(..digits.unwrap_or(version.len())).and_then(|it| it.parse().ok()).unwrap_or(0)
    }

    /// A parameter that the server reported when the session began.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.protocol.parameters().get(name).map(String::as_str)
    }

    /// IDENTIFY_SYSTEM: which cluster, which timeline, how far.
    pub async fn identify(&mut self) -> Result<System, Error> {
        System::read(&self.command("IDENTIFY_SYSTEM").await?)
    }

    /// SHOW: a setting in the server's words, as in `16MB`.
    pub async fn show(&mut self, setting: &str) -> Result<String, Error> {
        let rows = self.command(&command::show(setting)?).await?;
        Ok(command::only(&rows)?.text(0)?.to_owned())
    }

    /// Whether the server is a standby at this moment. Standbys serve WAL too, so a receiver must
    /// ask. Version 13 cannot tell here: ask by SQL.
    pub async fn in_recovery(&mut self) -> Result<bool, Error> {
        self.needs(IN_HOT_STANDBY_MAJOR, "in_hot_standby")?;
        Ok(self.show("in_hot_standby").await? == "on")
    }

    /// READ_REPLICATION_SLOT; `None` if there is no such slot. Servers before 15 do not know it:
    /// ask by SQL.
    pub async fn read_slot(&mut self, name: &SlotName) -> Result<Option<Slot>, Error> {
        self.needs(READ_SLOT_MAJOR, "READ_REPLICATION_SLOT")?;
        Slot::read(&self.command(&format!("READ_REPLICATION_SLOT \"{name}\"")).await?)
    }

    /// CREATE_REPLICATION_SLOT of the physical kind.
    pub async fn create_slot(
        &mut self,
        name: &SlotName,
        options: SlotOptions,
    ) -> Result<(), Error> {
        let rows = self.command(&command::create_slot(name, options)).await?;
        match command::only(&rows)?.text(0)? == name.as_str() {
            true => Ok(()),
            false => Err(Error::protocol("another slot was made")),
        }
    }

    /// DROP_REPLICATION_SLOT; with `wait`, as soon as nobody uses it any more.
    pub async fn drop_slot(&mut self, name: &SlotName, wait: bool) -> Result<(), Error> {
        let wait = if wait { " WAIT" } else { "" };
        self.command(&format!("DROP_REPLICATION_SLOT \"{name}\"{wait}")).await.map(drop)
    }

    /// TIMELINE_HISTORY; `None` if the server has no such file. The first timeline has none.
    pub async fn timeline_history(
        &mut self,
        timeline: Timeline,
    ) -> Result<Option<HistoryFile>, Error> {
        match self.command(&format!("TIMELINE_HISTORY {timeline}")).await {
            Ok(rows) => HistoryFile::read(timeline, &rows).map(Some),
            // The code for a missing file, which WAL that was removed has too.
            Err(error) if error.condition() == Some(Condition::WalRemoved) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// START_REPLICATION. A timeline that ended exactly there gives a stream of one event. WAL that
    /// the server no longer has is an error of the first [`Stream::next`].
    pub async fn start(mut self, start: Start) -> Result<Stream, Error> {
        // PostgreSQL refuses this too, but with no code to know it by.
        let flushed = self.identify().await?.flushed;
        if start.lsn > flushed {
            return Err(Error::Ahead { asked: start.lsn, flushed });
        }
        self.protocol.start(&start)?;
        match self.step().await? {
            Step::Started => Ok(Stream::new(self, None)),
            Step::Event(event @ Event::EndOfTimeline(_)) => Ok(Stream::new(self, Some(event))),
            _ => Err(Error::protocol("the stream did not begin")),
        }
    }

    /// Says goodbye. Dropping the connection ends the session as well, only less politely.
    pub async fn close(mut self) {
        self.protocol.terminate();
        // The session ends either way.
        let _ = self.link.send_now(&mut self.protocol).await;
    }

    async fn command(&mut self, text: &str) -> Result<Vec<Row>, Error> {
        self.protocol.command(text)?;
        match self.step().await? {
            Step::Rows(rows) => Ok(rows),
            _ => Err(Error::protocol("something else than an answer came")),
        }
    }

    fn needs(&self, major: u32, what: &'static str) -> Result<(), Error> {
        match self.server_major() {
            0 => Err(Error::protocol("the server did not tell its version")),
            server if server < major => Err(Error::Unsupported { what, major: server }),
            _ => Ok(()),
        }
    }

    /// The next step, however many bytes it takes.
    pub(crate) async fn step(&mut self) -> Result<Step, Error> {
        loop {
            if let Some(step) = self.protocol.step()? {
                return Ok(step);
            }
            self.link.receive(&mut self.protocol).await?;
        }
    }

    pub(crate) fn parts(&mut self) -> (&mut Link, &mut Protocol, &Environment) {
        (&mut self.link, &mut self.protocol, &self.environment)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").field("server", &self.server_version()).finish()
    }
}
