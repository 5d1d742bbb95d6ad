//! One client: it connects, writes for as long as it is let, notes every answer, and comes again.

use std::future::Future;
use std::sync::mpsc::Sender;
use std::time::Duration;

use futures::future::join_all;
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Cancel, Code, Failure, Outcome};
use tokio_postgres::error::Severity;
use tokio_postgres::{Error, Row};

use super::history::{Answer, Entry, Way};
use super::session::{Session, now_ns};
use super::{Client, Road};
use crate::enter::join_network;
use crate::layout::Layout;

/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(50);
/// Between two writes of one client: two cores carry everything.
const PAUSE: Duration = Duration::from_millis(15);
/// After a standby has refused a write of a session that stays.
const REFUSED: Duration = Duration::from_millis(200);
/// What a client of the endpoint waits for an answer, and what a session waits that stays.
const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(20);
/// Commits under way at once.
const PIPELINE: u64 = 8;
/// Commits of one call of the procedure.
const CALL: u64 = 10;

/// Runs a client until it is told to end.
pub(super) fn run(
    layout: &Layout,
    client: &Client,
    environment: &Environment,
    cancel: &Cancel,
    notes: &Sender<Entry>,
) -> Outcome<()> {
    if layout.has_namespaces() {
        join_network(layout, client.domain)?;
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
            Failure::new(Code::Internal, "cannot start a client of the ledger").because(error)
        })?;
    // Sessions of an earlier process had smaller numbers.
    let session = now_ns(environment) / 1_000_000;
    let mut writer = Writer { layout, client, environment, cancel, notes, session, sequence: 0 };
    runtime.block_on(writer.live());
    Ok(())
}

struct Writer<'a> {
    layout: &'a Layout,
    client: &'a Client,
    environment: &'a Environment,
    cancel: &'a Cancel,
    notes: &'a Sender<Entry>,
    session: u64,
    sequence: u64,
}

/// What became of a write, and whether the session goes on.
struct Told {
    answer: Answer,
    timeline: Option<u32>,
    why: Option<String>,
    is_over: bool,
}

impl Writer<'_> {
    async fn live(&mut self) {
        while !self.cancel.is_requested() {
            if let Ok(mut session) = Session::open(&self.client.road, self.environment).await {
                (self.session, self.sequence) = (self.session + 1, 0);
                while !self.cancel.is_requested() && !self.write(&mut session).await {}
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Writes once, or one batch; whether the session is over.
    async fn write(&mut self, session: &mut Session) -> bool {
        let over = match self.client.way {
            Way::Endpoint | Way::Single => self.single(session).await,
            Way::Pipeline => self.pipeline(session).await,
            Way::Procedure => self.procedure(session).await,
        };
        tokio::time::sleep(PAUSE).await;
        over
    }

    async fn single(&mut self, session: &mut Session) -> bool {
        self.sequence += 1;
        let (sequence, sent) = (self.sequence, now_ns(self.environment));
        let written = self.bounded(insert(self, session, sequence)).await;
        let done = now_ns(self.environment);
        let mut told = judge(written);
        if warned(session) && told.answer == Answer::Acknowledged {
            told.answer = Answer::Unknown;
            told.why = Some("the server warned that the commit may be local".to_owned());
        }
        self.note(session, sequence, (sent, done), &told);
        self.rest(&told).await
    }

    async fn pipeline(&mut self, session: &mut Session) -> bool {
        let first = self.sequence + 1;
        self.sequence += PIPELINE;
        let sent = now_ns(self.environment);
        let (writer, shared): (&Self, &Session) = (self, session);
        let one = |sequence: u64| async move {
            let told = judge(writer.bounded(insert(writer, shared, sequence)).await);
            (sequence, now_ns(writer.environment), told)
        };
        let all = join_all((first..first + PIPELINE).map(one)).await;
        let warned = warned(session);
        let mut over = false;
        let mut last = None;
        for (sequence, done, mut told) in all {
            if warned && told.answer == Answer::Acknowledged {
                told.answer = Answer::Unknown;
                told.why = Some("the server warned that a commit may be local".to_owned());
            }
            self.note(session, sequence, (sent, done), &told);
            over |= told.is_over;
            last = Some(told);
        }
        match last {
            Some(told) => self.rest(&told).await || over,
            None => over,
        }
    }

    async fn procedure(&mut self, session: &mut Session) -> bool {
        let first = self.sequence + 1;
        self.sequence += CALL;
        let mut sent = now_ns(self.environment);
        let (name, number) = (&self.client.name, self.session);
        let call = format!("CALL write_on('{name}', {number}, {first}, {CALL})");
        let called = self.bounded(session.client.simple_query(&call)).await;
        let (mut next, mut doubt) = (first, false);
        while let Ok(notice) = session.notices.try_recv() {
            let Some((sequence, timeline)) = committed(&notice.text) else {
                doubt |= notice.is_warning;
                continue;
            };
            let answer = if doubt { Answer::Unknown } else { Answer::Acknowledged };
            let told = Told { answer, timeline, why: None, is_over: false };
            self.note(session, sequence, (sent, notice.came_ns), &told);
            (next, sent, doubt) = (sequence + 1, notice.came_ns, false);
        }
        let done = now_ns(self.environment);
        let told = match called {
            Some(Ok(_)) => return false,
            Some(Err(error)) => judge(Some(Err(error))),
            None => judge(None),
        };
        // What comes after this one was never sent.
        if next < first + CALL {
            self.note(session, next, (sent, done), &told);
        }
        self.rest(&told).await
    }

    /// The answer, unless it takes too long or nobody wants it any more.
    async fn bounded<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let limit = if matches!(self.client.road, Road::Endpoint(..)) { SHORT } else { LONG };
        tokio::select! {
            done = work => Some(done),
            () = tokio::time::sleep(limit) => None,
            () = self.cancelled() => None,
        }
    }

    async fn cancelled(&self) {
        while !self.cancel.is_requested() {
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// After a refusal, sessions that stay wait for a while, and those of a pool are given up.
    async fn rest(&self, told: &Told) -> bool {
        if told.answer != Answer::Refused || told.is_over {
            return told.is_over;
        }
        if self.client.way == Way::Endpoint {
            return true;
        }
        tokio::time::sleep(REFUSED).await;
        false
    }

    /// Who answers: over a socket the server of the region, else whose address it says it has.
    fn node(&self, session: &Session) -> Option<String> {
        match session.address {
            Some(address) => self.layout.node_at(address),
            None => Some(format!("{}-1", self.client.domain)),
        }
    }

    fn note(&self, session: &Session, sequence: u64, times: (u64, u64), told: &Told) {
        let entry = Entry {
            answer: told.answer,
            writer: self.client.name.clone(),
            way: self.client.way,
            session: self.session,
            sequence,
            node: self.node(session),
            system: Some(session.system.clone()),
            timeline: told.timeline,
            sent_ns: times.0,
            done_ns: times.1,
            why: told.why.clone(),
        };
        // Whoever writes the history has failed, and ends everybody.
        let _ = self.notes.send(entry);
    }
}

async fn insert(writer: &Writer<'_>, session: &Session, sequence: u64) -> Result<Vec<Row>, Error> {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let (own, sequence) = (number(writer.session), number(sequence));
    session.client.query(&session.insert, &[&writer.client.name, &own, &sequence]).await
}

/// Whether the server warned of something since this was last asked, as it does when the wait
/// for a receiver is cancelled and the commit is there all the same.
fn warned(session: &mut Session) -> bool {
    let mut found = false;
    while let Ok(notice) = session.notices.try_recv() {
        found |= notice.is_warning;
    }
    found
}

fn judge(written: Option<Result<Vec<Row>, Error>>) -> Told {
    let unknown = |why: String| Told {
        answer: Answer::Unknown,
        timeline: None,
        why: Some(why),
        is_over: true,
    };
    match written {
        None => unknown("no answer in time".to_owned()),
        Some(Ok(rows)) => {
            let file: Option<String> = rows.first().and_then(|row| row.try_get(0).ok());
            let timeline = file.as_deref().and_then(timeline);
            Told { answer: Answer::Acknowledged, timeline, why: None, is_over: false }
        }
        Some(Err(error)) => {
            let plain = error
                .as_db_error()
                .is_some_and(|error| error.parsed_severity() == Some(Severity::Error));
            let why = error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string);
            if !plain {
                return unknown(why);
            }
            Told { answer: Answer::Refused, timeline: None, why: Some(why), is_over: false }
        }
    }
}

/// The timeline in the name of a WAL file.
fn timeline(file: &str) -> Option<u32> {
    u32::from_str_radix(file.get(..8)?, 16).ok()
}

/// The row and its timeline in a notice of the procedure.
fn committed(text: &str) -> Option<(u64, Option<u32>)> {
    let mut words = text.strip_prefix("committed ")?.split(' ');
    Some((words.next()?.parse().ok()?, words.next().and_then(timeline)))
}

#[cfg(test)]
mod tests;
