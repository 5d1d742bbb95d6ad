//! An observer's probe: a committed write through the endpoint that clients use (R3).
//!
//! Rows of its own for each observer, in a small table of Lifeboat's. Every second probe opens a new
//! connection, for a server may serve old sessions and refuse new ones, or the other way round.
//!
//! A commit that waits for receivers keeps its row locked and its server process at work, also once
//! nobody waits for it any more, and no timeout of PostgreSQL ends that. So the local write that tells
//! a stalled server from a dead one has a row of its own, and ends what earlier probes left behind:
//! else they would take every connection that the server has.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::{Either, LocalBoxFuture, select};
use lifeboat_environment::Timer;
use lifeboat_model::{RegionName, ServiceName};
use lifeboat_quorum::Seen;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::connect::{Connection, connect, connect_at};

use crate::postgres::literal;
use crate::{Probe, Probed};

/// Made by the first observer that sees a primary without it; the agent makes its own.
const TABLE: &str = "
    CREATE SCHEMA IF NOT EXISTS lifeboat;
    CREATE TABLE IF NOT EXISTS lifeboat.observer (
        domain text PRIMARY KEY, beat bigint NOT NULL, at timestamptz NOT NULL
    ) WITH (fillfactor = 10);";

/// Where a service's clients connect.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The service.
    pub service: ServiceName,
    /// Who connects, and how; resolved. It may hold a password.
    pub connection: String,
    /// HOST:PORT; none for what `connection` says.
    pub address: Option<String>,
}

/// Probes by SQL.
pub struct EndpointProbe<'a> {
    timer: &'a dyn Timer,
    domain: RegionName,
    timeout: Duration,
    endpoints: BTreeMap<ServiceName, Kept>,
}

struct Kept {
    endpoint: Endpoint,
    connection: RefCell<Option<Connection>>,
    fresh: Cell<bool>,
    made: Cell<bool>,
}

impl<'a> EndpointProbe<'a> {
    /// A probe from `domain` that waits for `timeout` and no longer.
    pub fn new(
        timer: &'a dyn Timer,
        domain: RegionName,
        timeout: Duration,
        endpoints: Vec<Endpoint>,
    ) -> Self {
        let kept = |endpoint: Endpoint| {
            let service = endpoint.service.clone();
            let (connection, fresh) = (RefCell::new(None), Cell::new(true));
            (service, Kept { endpoint, connection, fresh, made: Cell::new(false) })
        };
        Self { timer, domain, timeout, endpoints: endpoints.into_iter().map(kept).collect() }
    }

    async fn within<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        let work = std::pin::pin!(work);
        match select(work, self.timer.sleep(self.timeout)).await {
            Either::Left((done, _)) => done,
            Either::Right(_) => {
                let limit = lifeboat_telemetry::duration(self.timeout);
                Err(Failure::new(Code::DeadlineExceeded, format!("no answer within {limit}")))
            }
        }
    }

    async fn look(&self, kept: &Kept) -> Probed {
        let old = if kept.fresh.get() { kept.connection.borrow_mut().take() } else { None };
        let Err(failure) = self.within(self.write(kept)).await else {
            if let Some(old) = old {
                self.close(old).await;
            }
            return Probed { seen: Seen::Works, why: "a write was committed".to_owned() };
        };
        kept.connection.borrow_mut().take();
        if failure.code() != Code::DeadlineExceeded {
            return Probed { seen: Seen::Fails, why: failure.full_message() };
        }
        // It answers nobody, or commits wait for receivers: a local commit tells.
        match self.within(self.write_locally(kept)).await {
            Ok(session) => {
                self.close(session).await;
                let why = "commits wait for receivers or standbys that do not answer".to_owned();
                Probed { seen: Seen::Stalled, why }
            }
            Err(failure) => Probed { seen: Seen::Fails, why: failure.full_message() },
        }
    }

    /// A committed write, as clients make them.
    async fn write(&self, kept: &Kept) -> Outcome<()> {
        // Taken out: if this is given up half-way, the session goes with it.
        let old = kept.connection.borrow_mut().take();
        let connection = match old.filter(|old| !old.client().is_closed()) {
            Some(connection) => connection,
            None => self.open(&kept.endpoint).await?,
        };
        if !kept.made.get() {
            let sql = format!("SET synchronous_commit = local; {TABLE}");
            self.run(&connection, &sql).await?;
            kept.made.set(true);
        }
        let row = self.row("");
        self.run(&connection, &format!("{}; SET synchronous_commit = on; {row}", self.name()))
            .await?;
        *kept.connection.borrow_mut() = Some(connection);
        Ok(())
    }

    /// A write that waits for nobody else, and the end of those of ours that still wait.
    async fn write_locally(&self, kept: &Kept) -> Outcome<Connection> {
        let connection = self.open(&kept.endpoint).await?;
        let row = self.row("/local");
        let limit = self.timeout.as_millis();
        let sql = format!(
            "{name}; SET synchronous_commit = local; SET statement_timeout = {limit}; {row};
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE application_name = left(current_setting('application_name'), 63)
               AND usename = current_user AND pid <> pg_backend_pid() AND state = 'active'
               AND query_start < clock_timestamp() - interval '{limit} ms'",
            name = self.name(),
        );
        self.run(&connection, &sql).await?;
        Ok(connection)
    }

    /// A farewell that is not taken costs a line of the server's log, and changes nothing that was seen.
    async fn close(&self, session: Connection) {
        let farewell = async {
            session.close().await;
            Ok(())
        };
        let _ = self.within(farewell).await;
    }

    /// So that the sessions of one observer are told from those of others.
    fn name(&self) -> String {
        format!("SET application_name = {}", literal(&format!("lifeboat observer {}", self.domain)))
    }

    fn row(&self, which: &str) -> String {
        let row = literal(&format!("{}{which}", self.domain));
        format!(
            "INSERT INTO lifeboat.observer AS own (domain, beat, at)
             VALUES ({row}, 1, clock_timestamp())
             ON CONFLICT (domain) DO UPDATE SET beat = own.beat + 1, at = excluded.at"
        )
    }

    async fn open(&self, endpoint: &Endpoint) -> Outcome<Connection> {
        match &endpoint.address {
            Some(address) => connect_at(&endpoint.connection, address).await,
            None => connect(&endpoint.connection).await,
        }
    }

    async fn run(&self, connection: &Connection, sql: &str) -> Outcome<()> {
        let done = connection.client().batch_execute(sql).await;
        done.map_err(|error| connection.failure_as(Code::ClusterUnreachable, &error))
    }
}

impl Probe for EndpointProbe<'_> {
    fn probe<'a>(&'a self, service: &'a ServiceName) -> LocalBoxFuture<'a, Probed> {
        Box::pin(async move {
            let Some(kept) = self.endpoints.get(service) else {
                let why = "the spec names no `endpoint` for it".to_owned();
                return Probed { seen: Seen::Unknown, why };
            };
            let probed = self.look(kept).await;
            kept.fresh.set(!kept.fresh.get());
            probed
        })
    }
}
