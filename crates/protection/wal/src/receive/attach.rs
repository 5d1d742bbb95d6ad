//! Finding the primary, making sure that it is the right one, and asking it for WAL.

use lifeboat_cluster::wal::History;
use lifeboat_model::{Lsn, Timeline};
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wire::{Error, SlotName, Start};

use super::ReceiveRequest;
use super::pages::Pages;
use super::receiver::Receiver;
use super::resume::{Position, Resume, resume};
use super::sender::{Greeting, Sender, Servers, SlotState};
use super::spool::Spool;
use crate::incarnation;

/// A stream that has begun.
pub(crate) struct Attached<'a> {
    pub(crate) sender: Box<dyn Sender>,
    pub(crate) spool: Spool<'a>,
    pub(crate) pages: Pages,
    pub(crate) greeting: Greeting,
    /// Where the server's WAL begins for sure.
    pub(crate) earliest: Position,
}

/// Attaches to the first node that is the primary.
pub(crate) fn attach<'a>(
    receiver: &mut Receiver<'a>,
    servers: &mut dyn Servers,
) -> Outcome<Attached<'a>> {
    receiver.check_binding()?;
    let (mut sender, greeting) = find(receiver, servers)?;
    let place = sender.place();
    let at = |error: Error| error.at(&place);
    let size = greeting.segment_size;
    let history = histories(receiver, sender.as_mut(), greeting.system.timeline)?;
    let slot: SlotName = receiver.request.name.parse().map_err(at)?;
    let kept = ready_slot(receiver, sender.as_mut(), &slot)?;
    let earliest = earliest(kept, &greeting, &history);
    let begin = match receiver.end(size)? {
        None => earliest,
        Some(end) => {
            let Resume { at, abandoned } = resume(end, &history, size)?;
            if let Some((from, to)) = abandoned {
                receiver.abandoned(from, to);
            }
            at
        }
    };
    let Position { timeline, lsn } = begin;
    // First of all: what does not follow the spool must not lie beside it.
    let spool = receiver.spool(begin, size)?;
    sender.start(Start { slot: Some(slot), lsn, timeline }).map_err(at)?;
    receiver.attached(&place, begin);
    let pages = Pages::new(greeting.system.identifier, size, timeline, lsn);
    Ok(Attached { sender, spool, pages, greeting, earliest })
}

/// Makes sure that the slot is there and keeps WAL; says from where on, if the server does.
fn ready_slot(
    receiver: &Receiver<'_>,
    sender: &mut dyn Sender,
    slot: &SlotName,
) -> Outcome<Option<Lsn>> {
    let place = sender.place();
    let at = |error: Error| error.at(&place);
    match sender.slot(slot).map_err(at)? {
        SlotState::Keeps(lsn) => return Ok(Some(lsn)),
        SlotState::KeepsNothing => {
            sender.drop_slot(slot).map_err(at)?;
            receiver.warn(format!("the slot {slot} at {place} kept no WAL any more"));
        }
        SlotState::Missing | SlotState::Unknown => {}
    }
    if sender.make_slot(slot).map_err(at)? {
        receiver.note(format!("made the slot {slot} at {place}"));
    }
    match sender.slot(slot).map_err(at)? {
        SlotState::Keeps(lsn) => Ok(Some(lsn)),
        _ => Ok(None),
    }
}

/// A session with the first node that is the primary.
fn find(
    receiver: &Receiver<'_>,
    servers: &mut dyn Servers,
) -> Outcome<(Box<dyn Sender>, Greeting)> {
    let mut lines = Vec::new();
    let mut first: Option<Failure> = None;
    for (number, name) in servers.names().into_iter().enumerate() {
        let opened = servers.open(number);
        let looked = opened.and_then(|mut sender| {
            let greeting = greet(receiver, sender.as_mut())?;
            if let Some(directory) = servers.data_directory(number) {
                // A restored copy may not write into its source's archive, also not this way.
                let ReceiveRequest { database, stream, .. } = receiver.request;
                incarnation::check(&directory, database, stream)?;
            }
            Ok((sender, greeting))
        });
        match looked {
            Ok(found) => return Ok(found),
            // Another cluster's server must not be hidden by a second one that is down.
            Err(failure) => {
                lines.push(format!("{name}: {failure}"));
                let worse = |first: &Failure| first.code() == Code::ClusterUnreachable;
                if first.as_ref().is_none_or(worse) {
                    first = Some(failure);
                }
            }
        }
    }
    let Some(first) = first else {
        return Err(Failure::new(
            Code::SpecInvalid,
            "the database has no node that can be reached",
        )
        .hint("Give its nodes an `address`, or run the receiver in the region of one."));
    };
    if lines.len() == 1 {
        return Err(first);
    }
    let hint = first.hint_text().unwrap_or_default().to_owned();
    Err(Failure::new(first.code(), "no node of the database can be received from")
        .details(lines)
        .hint(hint))
}

/// The right cluster, and its primary.
fn greet(receiver: &Receiver<'_>, sender: &mut dyn Sender) -> Outcome<Greeting> {
    let place = sender.place();
    let greeting = sender.greet().map_err(|error| error.at(&place))?;
    let (is, should) = (greeting.system.identifier.0, receiver.request.stream.system_identifier);
    if is != should {
        let database = receiver.request.database;
        let message = format!("{database} is cluster {should}, and {place} is cluster {is}");
        return Err(Failure::new(Code::ClusterMismatch, message)
            .hint("Correct `connection` or `address` of this node in the spec."));
    }
    let granted = receiver.request.stream.incarnation.0;
    if let Some(incarnation) = greeting.incarnation.filter(|is| *is != granted) {
        let database = receiver.request.database;
        let message = format!(
            "PostgreSQL at {place} is incarnation {incarnation} of {database}, a restored copy; \
             incarnation {granted} writes"
        );
        return Err(Failure::new(Code::CloneRefused, message).hint(format!(
            "`lifeboat adopt {database}` makes it the source and ends the other; else correct \
             this node in the spec."
        )));
    }
    if greeting.in_recovery {
        let message = format!("PostgreSQL at {place} is a standby");
        return Err(Failure::new(Code::NotPrimary, message)
            .hint("Promote one of the nodes, or add the primary to the spec."));
    }
    // An old primary that comes back from a pause may live for a moment still. What it is told
    // here it would acknowledge to its clients, and no later primary would have that.
    let epoch = receiver.request.epoch;
    if let Some(its) = greeting.epoch.filter(|its| *its < epoch) {
        let message =
            format!("PostgreSQL at {place} is the primary of epoch {its}, and {epoch} has begun");
        return Err(Failure::new(Code::NotPrimary, message).hint(
            "Its agent kills it, or tells it the new epoch; nothing is received until then.",
        ));
    }
    Ok(greeting)
}

/// The server's history; it and those of its ancestors go to the repository.
fn histories(
    receiver: &mut Receiver<'_>,
    sender: &mut dyn Sender,
    newest: Timeline,
) -> Outcome<History> {
    let place = sender.place();
    let mut history = History::root(newest);
    if newest == Timeline::FIRST {
        return Ok(history);
    }
    let mut wanted = vec![newest];
    while let Some(timeline) = wanted.pop() {
        let found = sender.history(timeline).map_err(|error| error.at(&place))?;
        let Some(content) = found else {
            if timeline == newest {
                let message = format!("{place} has no history of its own timeline {timeline}");
                return Err(Failure::new(Code::TimelineForeign, message)
                    .hint("Look for the file in pg_wal of the server and its former primary."));
            }
            receiver.warn(format!("{place} has no history of timeline {timeline}"));
            continue;
        };
        let parsed = History::parse(timeline, &content)
            .map_err(|error| error.at(format!("{timeline}.history")))?;
        receiver.keep_history(timeline, &content)?;
        if timeline == newest {
            let older = parsed.ancestors.iter().map(|entry| entry.timeline);
            wanted.extend(older.filter(|older| *older != Timeline::FIRST));
            history = parsed;
        }
    }
    Ok(history)
}

/// Where to begin when nothing is there: as early as the slot keeps WAL, which right after a
/// promotion is on an older timeline.
fn earliest(kept: Option<Lsn>, greeting: &Greeting, history: &History) -> Position {
    let flushed = greeting.system.flushed;
    let kept = kept.map_or(flushed, |kept| kept.min(flushed));
    let lsn = Lsn(kept.0 - greeting.segment_size.offset_of(kept));
    Position { timeline: history.timeline_of(kept), lsn }
}
