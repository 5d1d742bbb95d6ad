//! The first thread at work: written, flushed, acknowledged, in this order, for as long as it lasts.

use std::time::Duration;

use lifeboat_model::Lsn;
use lifeboat_model::spec::Durable;
use lifeboat_telemetry::{Code, Event as Told, Failure, Outcome, duration};
use lifeboat_wire::{Condition, Error, Event, Status};

use super::attach::Attached;
use super::folder::full;
use super::receiver::Receiver;
use super::resume::Position;
use super::seal;

/// So much is taken before it is flushed, if it is there already. Less than the smallest segment,
/// so that one spare file is enough.
const BATCH: u64 = 512 << 10;
/// How long a look at the socket lasts; orders are heard in between.
const LOOK: Duration = Duration::from_millis(100);
/// The same, while the shipper's progress is to be acknowledged.
const SHORT_LOOK: Duration = Duration::from_millis(5);
/// A server hears of us at least so often.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// How often it is told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// A spool that will be full within this time is worth a warning.
const FILLS_SOON: Duration = Duration::from_secs(600);
/// A server that says nothing for so long is gone.
pub(crate) const SILENCE: Duration = Duration::from_secs(10);

/// Why a stream ended.
pub(crate) enum Left {
    /// The timeline ended; the next one follows.
    Timeline,
    /// The server was shut down and has our acknowledgement for everything.
    Shutdown,
    /// The connection is no more.
    Lost(Failure),
    /// Somebody asked for the end, or the shipper has ended.
    Asked,
}

/// A stream, and what was said on it.
pub(crate) struct Streaming<'r, 'a> {
    receiver: &'r mut Receiver<'a>,
    attached: Attached<'a>,
    /// When the server was heard last, and when it was told something.
    heard: Duration,
    told: Duration,
    acknowledged: Lsn,
    reply: bool,
    full: bool,
    pace: Pace,
}

/// What was told last, to know how fast it goes.
struct Pace {
    at: Duration,
    written: Lsn,
    waiting: u64,
    warned: bool,
}

impl<'r, 'a> Streaming<'r, 'a> {
    pub(crate) fn new(receiver: &'r mut Receiver<'a>, attached: Attached<'a>) -> Self {
        let now = receiver.request.environment.clock().elapsed();
        let (heard, told) = (now, now);
        let (acknowledged, reply, full) = (Lsn::ZERO, true, false);
        let written = attached.spool.written();
        let pace = Pace { at: now, written, waiting: 0, warned: false };
        Self { receiver, attached, heard, told, acknowledged, reply, full, pace }
    }

    /// Receives until there is a reason not to.
    pub(crate) fn run(mut self) -> Outcome<Left> {
        let left = self.receive();
        self.receiver.grown();
        left
    }

    fn receive(&mut self) -> Outcome<Left> {
        loop {
            if self.receiver.request.cancel.is_requested() || self.receiver.ledger.is_done() {
                return Ok(Left::Asked);
            }
            if seal::is_wanted(self.receiver.folder.path()) {
                self.receiver.check_seal()?;
            }
            if !self.has_room()? {
                self.receiver.ledger.wait(LOOK);
                self.heard = self.now();
            } else {
                match self.attached.sender.next(self.patience()) {
                    Err(error) => return Ok(Left::Lost(self.lost(error))),
                    Ok(None) => {}
                    Ok(Some(event)) => {
                        if let Some(left) = self.batch(event)? {
                            return Ok(left);
                        }
                    }
                }
            }
            if let Some(left) = self.keep_in_touch()? {
                return Ok(left);
            }
            self.tell();
        }
    }

    /// Takes an event and all that came with it, flushes once, and acknowledges.
    fn batch(&mut self, first: Event) -> Outcome<Option<Left>> {
        let began = self.attached.spool.written();
        let mut next = Some(first);
        let mut left = None;
        while let Some(event) = next.take() {
            left = self.take(event)?;
            let taken = self.attached.spool.written().distance_from(began);
            if left.is_some() || taken >= BATCH {
                break;
            }
            match self.attached.sender.next(Duration::ZERO) {
                Ok(event) => next = event,
                Err(error) => left = Some(Left::Lost(self.lost(error))),
            }
        }
        if self.attached.spool.written() > began {
            let request = self.receiver.request;
            request.environment.failpoints().hit("receive.written")?;
            self.attached.spool.flush()?;
            request.environment.failpoints().hit("receive.flushed")?;
            let clock = request.environment.clock();
            self.receiver.ledger.flushed(self.attached.spool.flushed(), clock);
        }
        // A slow disk of ours is no silence of the server.
        self.heard = self.now();
        Ok(left)
    }

    /// The connection is no more. A server that lacks the WAL says so when the stream has begun.
    fn lost(&mut self, error: Error) -> Failure {
        if error.condition() == Some(Condition::WalRemoved) {
            let Attached { spool, greeting, earliest, .. } = &self.attached;
            let wanted = Position { timeline: spool.timeline(), lsn: spool.written() };
            self.receiver.grown();
            self.receiver.gap(wanted, *earliest, greeting);
        }
        error.at(self.attached.sender.place())
    }

    fn take(&mut self, event: Event) -> Outcome<Option<Left>> {
        match event {
            Event::Data(data) => {
                self.attached.pages.push(&data.bytes)?;
                self.attached.spool.append(data.start, &data.bytes)?;
                Ok(None)
            }
            Event::Keepalive(message) => {
                self.reply |= message.reply_requested;
                Ok(None)
            }
            Event::EndOfTimeline(end) => {
                let timeline = self.attached.spool.timeline();
                let (next, switch) = (end.next, end.switch);
                self.receiver
                    .note(format!("timeline {timeline} ended at {switch}, {next} follows"));
                Ok(Some(Left::Timeline))
            }
            Event::Shutdown => Ok(Some(Left::Shutdown)),
        }
    }

    /// Acknowledges what is new, answers what was asked, and notices a server that is silent.
    fn keep_in_touch(&mut self) -> Outcome<Option<Left>> {
        let now = self.now();
        let silent = now.saturating_sub(self.heard);
        if silent > SILENCE {
            let place = self.attached.sender.place();
            let message =
                format!("PostgreSQL at {place} has said nothing for {}", duration(silent));
            let lost = Failure::new(Code::ClusterUnreachable, message);
            return Ok(Some(Left::Lost(lost)));
        }
        let durable = self.durable();
        let quiet = now.saturating_sub(self.told) >= STATUS_EVERY;
        if durable <= self.acknowledged && !self.reply && !quiet {
            return Ok(None);
        }
        let written = self.attached.spool.written();
        let status = Status::new(written, durable, durable).map_err(|error| {
            Failure::new(Code::Internal, "a status would claim too much").because(error)
        })?;
        let status = if silent > SILENCE / 2 { status.request_reply() } else { status };
        if let Err(error) = self.attached.sender.status(status) {
            return Ok(Some(Left::Lost(error.at(self.attached.sender.place()))));
        }
        (self.acknowledged, self.told, self.reply) = (durable, now, false);
        Ok(None)
    }

    /// Says how far it is, and warns of a spool that fills.
    fn tell(&mut self) {
        let now = self.now();
        let passed = now.saturating_sub(self.pace.at);
        if passed < TELL_EVERY {
            return;
        }
        let standing = self.receiver.ledger.standing();
        let (spool, request) = (&self.attached.spool, self.receiver.request);
        let written = spool.written();
        let per_second = |bytes: u64| (bytes as f64 / passed.as_secs_f64()) as u64;
        request.reporter.streamed(Told::Streamed {
            timeline: spool.timeline().0,
            received_lsn: written.to_string(),
            durable_lsn: spool.flushed().to_string(),
            shipped_lsn: standing.shipped.min(written).to_string(),
            waiting_bytes: standing.waiting,
            bytes_per_second: per_second(written.distance_from(self.pace.written)),
        });
        let growth = per_second(standing.waiting.saturating_sub(self.pace.waiting));
        let room = self.receiver.folder.room();
        let left = room.checked_div(growth).map(Duration::from_secs);
        let soon = left.is_some_and(|left| left < FILLS_SOON);
        if soon && !self.pace.warned && standing.waiting > room / 4 {
            self.pace.warned = true;
            let left = duration(left.unwrap_or_default());
            self.receiver.warn(format!(
                "the repository falls behind: at this rate the spool is full in {left}, and commits \
                 that wait for it stop"
            ));
        } else if standing.waiting == 0 {
            self.pace.warned = false;
        }
        let Pace { warned, .. } = self.pace;
        self.pace = Pace { at: now, written, waiting: standing.waiting, warned };
    }

    /// What may be acknowledged.
    fn durable(&self) -> Lsn {
        let flushed = self.attached.spool.flushed();
        match self.receiver.request.durable {
            Durable::Spool => flushed,
            Durable::Repository => flushed.min(self.receiver.ledger.standing().shipped),
        }
    }

    fn patience(&self) -> Duration {
        let waits = self.durable() < self.attached.spool.flushed();
        if waits { SHORT_LOOK } else { LOOK }
    }

    /// Says once that the spool is full, and once that it is not any more.
    fn has_room(&mut self) -> Outcome<bool> {
        let room = self.attached.spool.prepare()?;
        if room == self.full {
            self.full = !room;
            match room {
                true => self.receiver.note("the spool has room again".to_owned()),
                false => self.receiver.warn(full(self.receiver.folder)),
            }
        }
        Ok(room)
    }

    fn now(&self) -> Duration {
        self.receiver.request.environment.clock().elapsed()
    }
}
