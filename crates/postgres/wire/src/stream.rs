//! WAL as it is written.

use crate::protocol::{Event, Status, Step};
use crate::{Connection, Error};

/// A stream of WAL. Dropping it closes the session.
#[derive(Debug)]
pub struct Stream {
    connection: Connection,
    /// Came before anybody asked.
    first: Option<Event>,
    ended: bool,
}

impl Stream {
    pub(crate) fn new(connection: Connection, first: Option<Event>) -> Self {
        Self { connection, first, ended: false }
    }

    /// What comes next. It waits as long as the server is silent, loses nothing when it is
    /// dropped, and sends what [`Stream::status`] left over. After [`Event::EndOfTimeline`]
    /// comes [`Stream::finish`]; after [`Event::Shutdown`] and after errors come no more events.
    pub async fn next(&mut self) -> Result<Event, Error> {
        if self.ended {
            return Err(Error::Busy);
        }
        let event = match self.first.take() {
            Some(event) => Ok(event),
            None => self.connection.step().await.and_then(|step| match step {
                Step::Event(event) => Ok(event),
                _ => Err(Error::protocol("something else than a stream came")),
            }),
        };
        // Nothing follows, and nobody shall wait for it.
        self.ended = matches!(event, Err(_) | Ok(Event::EndOfTimeline(_) | Event::Shutdown));
        event
    }

    /// Tells the server how far we are. It never waits: what the socket does not take at once goes
    /// with the next [`Stream::next`], and a later status replaces one that is still here.
    pub async fn status(&mut self, status: Status) -> Result<(), Error> {
        let (link, protocol, environment) = self.connection.parts();
        protocol.status(status, environment.clock().now());
        link.send_now(protocol).await
    }

    /// The connection, for the next command: after the end of a timeline, after a refusal of the
    /// server that was no farewell, or in the middle of a stream. What the server sends until it
    /// stops is thrown away.
    pub async fn finish(mut self) -> Result<Connection, Error> {
        let (_, protocol, _) = self.connection.parts();
        protocol.stop();
        while !self.connection.parts().1.is_idle() {
            if let Step::Event(Event::Shutdown) = self.connection.step().await? {
                return Err(Error::Closed);
            }
        }
        Ok(self.connection)
    }
}
