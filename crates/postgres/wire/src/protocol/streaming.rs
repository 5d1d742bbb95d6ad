//! A stream of WAL, from START_REPLICATION to the end of the timeline.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use lifeboat_model::{Lsn, Timeline};
use postgres_protocol::message::{backend, frontend};

use super::message::{Message, unexpected};
use super::rows::{Answer, Row};
use super::{Step, Turn};
use crate::{Error, ServerError, Start, command};

/// PostgreSQL counts time from 2000-01-01.
const EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

/// What a stream brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// WAL.
    Data(Data),
    /// A sign of life.
    Keepalive(KeepaliveMessage),
    /// The timeline has ended and all of it has come. The connection takes commands again.
    EndOfTimeline(EndOfTimeline),
    /// The server shuts down, and knows that we have flushed all that there is. The connection
    /// is over.
    Shutdown,
}

/// A piece of WAL; it begins where the one before ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// The position of the first byte.
    pub start: Lsn,
    /// How far the server's WAL goes.
    pub server_end: Lsn,
    /// When the server sent it, by its clock.
    pub sent_at: Timestamp,
    /// The WAL.
    pub bytes: Bytes,
}

impl Data {
    /// The position after the last byte.
    pub fn end(&self) -> Lsn {
        // Checked when the message was taken.
        Lsn(self.start.0.saturating_add(self.bytes.len() as u64))
    }
}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepaliveMessage {
    /// How far the server's WAL goes.
    pub server_end: Lsn,
    /// When the server sent it, by its clock.
    pub sent_at: Timestamp,
    /// The server ends the session unless a status comes soon.
    pub reply_requested: bool,
}

/// Where a timeline ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndOfTimeline {
    /// The timeline that follows.
    pub next: Timeline,
    /// The first position of the next timeline. Bytes that came from there on belong to nothing.
    pub switch: Lsn,
}

/// How far we are. Never claims more than it may: applied <= flushed <= written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    written: Lsn,
    flushed: Lsn,
    applied: Lsn,
    reply_requested: bool,
}

/// A status that would claim too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a status must not claim more flushed than written or more applied than flushed")]
pub struct StatusError;

impl Status {
    /// Positions in the order of the protocol.
    pub fn new(written: Lsn, flushed: Lsn, applied: Lsn) -> Result<Self, StatusError> {
        match applied <= flushed && flushed <= written {
            true => Ok(Self { written, flushed, applied, reply_requested: false }),
            false => Err(StatusError),
        }
    }

    /// Everything up to `lsn` is durable. With apply equal to flush, a commit that waits for
    /// `remote_apply` waits for nothing that a receiver cannot do.
    pub fn durable(lsn: Lsn) -> Self {
        Self { written: lsn, flushed: lsn, applied: lsn, reply_requested: false }
    }

    /// Asks the server for a keep-alive at once.
    #[must_use]
    pub fn request_reply(self) -> Self {
        Self { reply_requested: true, ..self }
    }

    /// What is claimed to be durable.
    pub fn flushed(&self) -> Lsn {
        self.flushed
    }

    /// Whether a keep-alive is asked for.
    pub fn reply_requested(&self) -> bool {
        self.reply_requested
    }

    pub(super) fn encode(self, now: Timestamp, outbox: &mut BytesMut) {
        outbox.put_u8(b'd');
        outbox.put_i32(4 + 1 + 4 * 8 + 1);
        outbox.put_u8(b'r');
        outbox.put_u64(self.written.0);
        outbox.put_u64(self.flushed.0);
        outbox.put_u64(self.applied.0);
        outbox.put_i64(now.as_microsecond().saturating_sub(EPOCH_MICROSECONDS));
        outbox.put_u8(u8::from(self.reply_requested));
    }
}

/// A stream that was asked for.
pub(super) struct Streaming {
    timeline: Timeline,
    /// Where the next data must begin.
    position: Lsn,
    phase: Phase,
}

enum Phase {
    /// START_REPLICATION is sent.
    Opening(Answer),
    Copying,
    /// We sent CopyDone and wait for the server's.
    Stopping,
    /// Both sent CopyDone; the next timeline follows.
    Ending(Answer),
}

impl Streaming {
    pub(super) fn new(start: &Start) -> Self {
        let phase = Phase::Opening(Answer::default());
        Self { timeline: start.timeline, position: start.lsn, phase }
    }

    pub(super) fn takes_status(&self) -> bool {
        matches!(self.phase, Phase::Copying)
    }

    /// Whether CopyDone is to be sent.
    pub(super) fn stop(&mut self) -> bool {
        let copying = matches!(self.phase, Phase::Copying);
        if copying {
            self.phase = Phase::Stopping;
        }
        copying
    }

    /// The server gave up; it will say that it is ready.
    pub(super) fn refused(&mut self, error: Box<ServerError>) {
        let mut answer = Answer::default();
        answer.refused(error);
        self.phase = Phase::Ending(answer);
    }

    pub(super) fn into_error(self) -> Option<Box<ServerError>> {
        match self.phase {
            Phase::Opening(answer) | Phase::Ending(answer) => answer.into_error(),
            Phase::Copying | Phase::Stopping => None,
        }
    }

    pub(super) fn proceed(
        &mut self,
        message: Message,
        outbox: &mut BytesMut,
    ) -> Result<Turn, Error> {
        match (&mut self.phase, message) {
            (Phase::Opening(_), Message::CopyBoth) => {
                self.phase = Phase::Copying;
                Ok(Turn::Step(Step::Started))
            }
            (Phase::Opening(answer) | Phase::Ending(answer), message) => {
                if !answer.proceed(message)? {
                    return Ok(Turn::More);
                }
                match std::mem::take(answer).into_rows() {
                    Ok(rows) => self.end(&rows).map(Turn::Step),
                    Err(error) => Ok(Turn::Refused(error)),
                }
            }
            (Phase::Copying, Message::Known(backend::Message::CopyData(body))) => {
                let event = self.event(body.into_bytes())?;
                Ok(Turn::Step(Step::Event(event)))
            }
            (Phase::Copying, Message::Known(backend::Message::CopyDone)) => {
                frontend::copy_done(outbox);
                self.phase = Phase::Ending(Answer::default());
                Ok(Turn::More)
            }
            // The last word of a server that shuts down: it sends no CopyDone then.
            (
                Phase::Copying | Phase::Stopping,
                Message::Known(backend::Message::CommandComplete(_)),
            ) => Ok(Turn::Step(Step::Event(Event::Shutdown))),
            // Nobody wants it any more.
            (Phase::Stopping, Message::Known(backend::Message::CopyData(_))) => Ok(Turn::More),
            (Phase::Stopping, Message::Known(backend::Message::CopyDone)) => {
                self.phase = Phase::Ending(Answer::default());
                Ok(Turn::More)
            }
            (Phase::Copying | Phase::Stopping, message) => Err(unexpected(&message, "a stream")),
        }
    }

    fn event(&mut self, mut body: Bytes) -> Result<Event, Error> {
        let short = |_| Error::protocol("a message of the stream is too short");
        match body.try_get_u8().map_err(short)? {
            b'w' => {
                let start = Lsn(body.try_get_u64().map_err(short)?);
                let server_end = Lsn(body.try_get_u64().map_err(short)?);
                let sent_at = timestamp(body.try_get_i64().map_err(short)?)?;
                if start != self.position {
                    let expected = self.position;
                    return Err(Error::protocol(format!(
                        "WAL from {start} came where {expected} was due"
                    )));
                }
                self.position = start
                    .checked_add(body.len() as u64)
                    .ok_or_else(|| Error::protocol("WAL beyond the last position"))?;
                Ok(Event::Data(Data { start, server_end, sent_at, bytes: body }))
            }
            b'k' => {
                let server_end = Lsn(body.try_get_u64().map_err(short)?);
                let sent_at = timestamp(body.try_get_i64().map_err(short)?)?;
                let reply_requested = body.try_get_u8().map_err(short)? != 0;
                Ok(Event::Keepalive(KeepaliveMessage { server_end, sent_at, reply_requested }))
            }
            _ => Err(Error::protocol("the stream holds a message of an unknown kind")),
        }
    }

    /// What a whole answer means: the next timeline, or that we asked for the end.
    fn end(&self, rows: &[Row]) -> Result<Step, Error> {
        if rows.is_empty() {
            return Ok(Step::Stopped);
        }
        let row = command::only(rows)?;
        let next = command::timeline(row.parse(0)?)?;
        let switch: Lsn = row.parse(1)?;
        if next <= self.timeline || switch > self.position {
            let Self { timeline, position, .. } = self;
            return Err(Error::protocol(format!(
                "timeline {timeline} ended at {position}, but {next} begins at {switch}"
            )));
        }
        Ok(Step::Event(Event::EndOfTimeline(EndOfTimeline { next, switch })))
    }
}

fn timestamp(microseconds: i64) -> Result<Timestamp, Error> {
    microseconds
        .checked_add(EPOCH_MICROSECONDS)
        .and_then(|microseconds| Timestamp::from_microsecond(microseconds).ok())
        .ok_or_else(|| Error::protocol("a time that no clock shows"))
}
