//! The core: bytes of the server in, steps out. No socket, no clock, nothing that waits.

mod login;
mod message;
mod rows;
mod streaming;

use std::collections::BTreeMap;

use bytes::{Buf, BytesMut};
use jiff::Timestamp;
use postgres_protocol::message::backend::{self, ParameterStatusBody};
use postgres_protocol::message::frontend;

pub use login::{Login, Security};
pub use message::MESSAGE_BYTES_MAX;
pub use rows::Row;
pub use streaming::{Data, EndOfTimeline, Event, KeepaliveMessage, Status, StatusError};

use message::Message;
use rows::Answer;
use streaming::Streaming;

use crate::{Error, ServerError, Start};

/// More settings than any server reports.
const PARAMETERS_MAX: usize = 256;

/// One session as seen from our side.
pub struct Protocol {
    inbox: BytesMut,
    outbox: BytesMut,
    /// Waits until `outbox` has gone: a server that does not read costs no memory.
    status: Option<(Status, Timestamp)>,
    parameters: BTreeMap<String, String>,
    state: State,
}

enum State {
    Login(Box<Login>),
    Idle,
    Command(Answer),
    Streaming(Streaming),
    Closed,
}

/// What the server's bytes amount to.
#[derive(Debug)]
pub enum Step {
    /// The session is open.
    Ready,
    /// The answer of a command.
    Rows(Vec<Row>),
    /// The stream begins.
    Started,
    /// The stream goes on.
    Event(Event),
    /// The stream ended because we asked for it.
    Stopped,
}

/// What one message amounts to.
enum Turn {
    More,
    Step(Step),
    /// The server refused and takes the next command.
    Refused(Box<ServerError>),
}

impl Protocol {
    /// A session that begins with `login`.
    pub fn new(login: Login) -> Result<Self, Error> {
        let mut outbox = BytesMut::new();
        login.begin(&mut outbox)?;
        Ok(Self {
            inbox: BytesMut::new(),
            outbox,
            status: None,
            parameters: BTreeMap::new(),
            state: State::Login(Box::new(login)),
        })
    }

    /// Where the server's bytes go, at the end.
    pub fn inbox(&mut self) -> &mut BytesMut {
        &mut self.inbox
    }

    /// What is to be sent; whoever sent a part removes it from the front.
    pub fn outbox(&mut self) -> &mut BytesMut {
        if self.outbox.is_empty()
            && let Some((status, now)) = self.status.take()
        {
            status.encode(now, &mut self.outbox);
        }
        &mut self.outbox
    }

    /// What the server reported of itself: `server_version`, `in_hot_standby`, ...
    pub fn parameters(&self) -> &BTreeMap<String, String> {
        &self.parameters
    }

    /// Begins a command.
    pub fn command(&mut self, text: &str) -> Result<(), Error> {
        self.send_command(text)?;
        self.state = State::Command(Answer::default());
        Ok(())
    }

    /// Begins a stream.
    pub fn start(&mut self, start: &Start) -> Result<(), Error> {
        self.send_command(&start.text())?;
        self.state = State::Streaming(Streaming::new(start));
        Ok(())
    }

    fn send_command(&mut self, text: &str) -> Result<(), Error> {
        let State::Idle = self.state else { return Err(Error::Busy) };
        frontend::query(text, &mut self.outbox)
            .map_err(|_| Error::Config("a command holds a zero byte".into()))
    }

    /// Reports positions. The newest report replaces one that could not be sent yet; after the
    /// stream's end there is nobody to report to.
    pub fn status(&mut self, status: Status, now: Timestamp) {
        if let State::Streaming(streaming) = &self.state
            && streaming.takes_status()
        {
            let reply = self.status.is_some_and(|(waiting, _)| waiting.reply_requested());
            let status = if reply { status.request_reply() } else { status };
            self.status = Some((status, now));
        }
    }

    /// Asks the server to end the stream; [`Step::Stopped`] or an event that ends it follows.
    pub fn stop(&mut self) {
        if let State::Streaming(streaming) = &mut self.state
            && streaming.stop()
        {
            // Data may not follow CopyDone, so what is still due goes first.
            if let Some((status, now)) = self.status.take() {
                status.encode(now, &mut self.outbox);
            }
            frontend::copy_done(&mut self.outbox);
        }
    }

    /// Says goodbye.
    pub fn terminate(&mut self) {
        self.state = State::Closed;
        frontend::terminate(&mut self.outbox);
    }

    /// Whether the session takes a command.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Takes messages from the inbox until they amount to something; `None`: more bytes are
    /// needed. After an error other than a refusal the session is over.
    pub fn step(&mut self) -> Result<Option<Step>, Error> {
        loop {
            match self.turn() {
                Ok(None) => return Ok(None),
                Ok(Some(Turn::More)) => {}
                Ok(Some(Turn::Step(step))) => return Ok(Some(step)),
                Ok(Some(Turn::Refused(error))) => return Err(Error::Server(error)),
                Err(error) => {
                    self.state = State::Closed;
                    return Err(error);
                }
            }
        }
    }

    /// The server closed the connection: why, if it had said.
    pub fn closed(&mut self) -> Error {
        let state = std::mem::replace(&mut self.state, State::Closed);
        let said = match state {
            State::Command(answer) => answer.into_error(),
            State::Streaming(streaming) => streaming.into_error(),
            State::Login(_) | State::Idle | State::Closed => None,
        };
        said.map_or(Error::Closed, Error::Server)
    }

    fn turn(&mut self) -> Result<Option<Turn>, Error> {
        if let State::Closed = self.state {
            return Err(Error::Busy);
        }
        let Some(message) = message::decode(&mut self.inbox)? else { return Ok(None) };
        match message {
            // These may come at any time.
            Message::Known(backend::Message::NoticeResponse(_)) => Ok(Some(Turn::More)),
            Message::Known(backend::Message::ParameterStatus(body)) => {
                self.learn(&body)?;
                Ok(Some(Turn::More))
            }
            Message::Known(backend::Message::ErrorResponse(body)) => {
                let error = Box::new(ServerError::parse(&body)?);
                self.refused(error)?;
                Ok(Some(Turn::More))
            }
            message => self.proceed(message).map(Some),
        }
    }

    fn proceed(&mut self, message: Message) -> Result<Turn, Error> {
        let turn = match &mut self.state {
            State::Login(login) => match login.proceed(message, &mut self.outbox)? {
                true => Turn::Step(Step::Ready),
                false => Turn::More,
            },
            State::Command(answer) => match answer.proceed(message)? {
                true => match std::mem::take(answer).into_rows() {
                    Ok(rows) => Turn::Step(Step::Rows(rows)),
                    Err(error) => Turn::Refused(error),
                },
                false => Turn::More,
            },
            State::Streaming(streaming) => streaming.proceed(message, &mut self.outbox)?,
            State::Idle | State::Closed => {
                return Err(Error::protocol("a message came that nobody asked for"));
            }
        };
        match &turn {
            Turn::More | Turn::Step(Step::Started) => {}
            Turn::Step(Step::Event(event)) => match event {
                Event::Data(_) | Event::Keepalive(_) => {}
                Event::EndOfTimeline(_) => self.become_idle(),
                Event::Shutdown => self.state = State::Closed,
            },
            Turn::Step(Step::Ready | Step::Rows(_) | Step::Stopped) | Turn::Refused(_) => {
                self.become_idle();
            }
        }
        Ok(turn)
    }

    fn become_idle(&mut self) {
        self.status = None;
        self.state = State::Idle;
    }

    /// An ERROR ends a command, and ReadyForQuery follows. Everything else ends the session.
    fn refused(&mut self, error: Box<ServerError>) -> Result<(), Error> {
        match &mut self.state {
            State::Command(answer) if !error.is_fatal() => answer.refused(error),
            State::Streaming(streaming) if !error.is_fatal() => streaming.refused(error),
            _ => return Err(Error::Server(error)),
        }
        Ok(())
    }

    fn learn(&mut self, body: &ParameterStatusBody) -> Result<(), Error> {
        let malformed = |_| Error::protocol("a parameter is not text");
        let name = body.name().map_err(malformed)?;
        let value = body.value().map_err(malformed)?;
        if self.parameters.len() == PARAMETERS_MAX && !self.parameters.contains_key(name) {
            return Err(Error::protocol("too many parameters"));
        }
        self.parameters.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// Removes what was sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.outbox.advance(bytes.min(self.outbox.len()));
    }
}
