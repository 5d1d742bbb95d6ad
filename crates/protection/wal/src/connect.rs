//! A connection to PostgreSQL from the spec's connection string.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wire::{ChannelBinding, Config, Host, TlsMode};
use tokio::task::JoinSet;
use tokio_postgres::config::SslMode;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A statement may take as long as it likes; after so long it is asked whether the server lives.
const PROBE_EVERY: Duration = Duration::from_secs(15);
/// So many probes in a row without any answer: the server is frozen, or its host is gone.
const PROBES: u32 = 3;

/// An open connection; dropping it closes the session, which also ends a backup on it.
pub struct Connection {
    client: Client,
    place: String,
    /// How it is asked whether anybody is at home.
    probe: tokio_postgres::Config,
    /// Drives the socket; ends with the connection.
    driver: JoinSet<()>,
}

impl Connection {
    /// Takes leave of the server, which else logs that its client was lost.
    pub async fn close(self) {
        let Self { client, mut driver, .. } = self;
        drop(client);
        while driver.join_next().await.is_some() {}
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Host and port, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Runs a query that gives one row of text.
    pub async fn text(&self, query: &str) -> Outcome<String> {
        let row = self.row(query, &[]).await?;
        row.try_get(0).map_err(|error| self.failure(&error))
    }

    /// Runs a query that gives one row.
    pub async fn row(&self, query: &str, values: &[&(dyn ToSql + Sync)]) -> Outcome<Row> {
        let row = self.patiently(self.client.query_one(query, values)).await?;
        row.map_err(|error| self.failure(&error))
    }

    /// Runs a query that gives one row or none.
    pub async fn row_if_any(
        &self,
        query: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Outcome<Option<Row>> {
        let row = self.patiently(self.client.query_opt(query, values)).await?;
        row.map_err(|error| self.failure(&error))
    }

    /// Runs a query.
    pub async fn rows(&self, query: &str, values: &[&(dyn ToSql + Sync)]) -> Outcome<Vec<Row>> {
        let rows = self.patiently(self.client.query(query, values)).await?;
        rows.map_err(|error| self.failure(&error))
    }

    /// Waits for an answer as long as the server answers anybody. A frozen server closes nothing,
    /// and its kernel goes on acknowledging: only a new session tells that nobody is at home.
    pub async fn patiently<T>(&self, answer: impl Future<Output = T>) -> Outcome<T> {
        self.wait(answer, PROBE_EVERY).await
    }

    async fn wait<T>(&self, answer: impl Future<Output = T>, every: Duration) -> Outcome<T> {
        let mut answer = pin!(answer);
        let mut silent = 0;
        loop {
            if let Ok(answer) = tokio::time::timeout(every, answer.as_mut()).await {
                return Ok(answer);
            }
            silent = if self.answers_a_probe(every).await { 0 } else { silent + 1 };
            if silent >= PROBES {
                let place = &self.place;
                let message = format!(
                    "PostgreSQL at {place} answers nothing any more, not even {PROBES} new sessions"
                );
                return Err(Failure::new(Code::ClusterUnreachable, message).hint(
                    "See whether the server or its host is frozen; then run the command again.",
                ));
            }
        }
    }

    /// Whether the server says anything to a new session, be it that it wants none.
    async fn answers_a_probe(&self, limit: Duration) -> bool {
        match tokio::time::timeout(limit, self.probe.connect(NoTls)).await {
            Err(_) => false,
            Ok(Ok(_)) => true,
            // The connection itself failed, or it was told what it lacks.
            Ok(Err(error)) => {
                let source = std::error::Error::source(&error);
                !source.is_some_and(|source| source.is::<std::io::Error>())
            }
        }
    }

    /// Says what PostgreSQL said to a step of a backup.
    pub fn failure(&self, error: &tokio_postgres::Error) -> Failure {
        self.failure_as(Code::BackupAborted, error)
    }

    /// Says what PostgreSQL said; `code` is for what it understood and did not do.
    pub fn failure_as(&self, code: Code, error: &tokio_postgres::Error) -> Failure {
        let place = &self.place;
        match error.as_db_error() {
            Some(said) if said.code().code() == "42501" => Failure::new(
                Code::ClusterPermission,
                format!("PostgreSQL at {place} refuses this role: {}", said.message()),
            )
            .hint("Grant what it lacks (`lifeboat check` says what), or use a superuser."),
            Some(said) => {
                let message = format!("PostgreSQL at {place} says: {}", said.message());
                let failure = Failure::new(code, message);
                match said.hint() {
                    Some(hint) => failure.hint(hint.to_owned()),
                    None => failure.hint("See the server's log, then run the command again."),
                }
            }
            None => Failure::new(
                Code::ClusterUnreachable,
                format!("the connection to PostgreSQL at {place} was lost"),
            )
            .because(error.to_string())
            .hint("See in the server's log why, then run the command again."),
        }
    }
}

/// Connects as the string of the spec says, in the words of libpq, TLS included.
pub async fn connect(settings: &str) -> Outcome<Connection> {
    open(parse(settings)?).await
}

/// As [`connect`], to another place: `HOST:PORT`. Who connects is as the string says, and unless
/// it says otherwise the server must prove its name.
pub async fn connect_at(settings: &str, address: &str) -> Outcome<Connection> {
    let mut config = parse(settings)?;
    let (host, port) = host_and_port(address)?;
    (config.host, config.port, config.address) = (Host::Tcp(host.to_owned()), port, None);
    if !settings.contains("sslmode=") {
        config.tls.mode = TlsMode::VerifyFull;
    }
    open(config).await
}

/// The role that a connection string names, if it names one.
pub fn role_of(settings: &str) -> Option<String> {
    let names_one = settings.contains("user=") || settings.contains('@');
    parse(settings).ok().filter(|_| names_one).map(|config| config.user)
}

/// Replication and SQL sessions read the same string, so they take it in the same way.
fn parse(settings: &str) -> Outcome<Config> {
    Config::parse(settings).map_err(|error| error.at("`connection`"))
}

/// `HOST:PORT`; an IPv6 host may stand in brackets.
fn host_and_port(address: &str) -> Outcome<(&str, u16)> {
    let found = address.rsplit_once(':').and_then(|(host, port)| {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some((host, port.parse().ok()?)).filter(|_| !host.is_empty())
    });
    found.ok_or_else(|| {
        Failure::new(Code::SpecInvalid, format!("{address} is no address of a server"))
            .hint("Write `address` of this node as HOST:PORT.")
    })
}

async fn open(config: Config) -> Outcome<Connection> {
    let place = config.place();
    let session = session(&config);
    let unreachable = |error: tokio_postgres::Error| unreachable(&place, &error);
    let mut driver = JoinSet::new();
    let plain = matches!(config.host, Host::Socket(_)) || config.tls.mode == TlsMode::Disable;
    let client = if plain {
        let (client, connection) = session.connect(NoTls).await.map_err(unreachable)?;
        driver.spawn(async move {
            // The client's own calls report what ends the connection.
            let _ = connection.await;
        });
        client
    } else {
        let tls = config.tls.client_config().map_err(|error| error.at(&place))?;
        let tls = MakeRustlsConnect::new(tls);
        let (client, connection) = session.connect(tls).await.map_err(unreachable)?;
        driver.spawn(async move {
            let _ = connection.await;
        });
        client
    };
    let connection = Connection { client, place, probe: probe(&config), driver };
    let settings = connection.client.batch_execute(
        "SET search_path = pg_catalog; SET statement_timeout = 0; SET lock_timeout = 0;
         SET idle_in_transaction_session_timeout = 0; SET client_encoding = 'UTF8'",
    );
    let set = connection.patiently(settings).await?;
    set.map_err(|error| connection.failure(&error))?;
    Ok(connection)
}

/// A session that gets no further than the server's first answer: no TLS, and so no password.
fn probe(config: &Config) -> tokio_postgres::Config {
    let mut probe = session(&Config { password: None, ..config.clone() });
    probe.ssl_mode(SslMode::Disable);
    probe
}

/// The same for tokio-postgres.
fn session(config: &Config) -> tokio_postgres::Config {
    let mut session = tokio_postgres::Config::new();
    match &config.host {
        Host::Tcp(name) => session.host(name),
        Host::Socket(folder) => session.host_path(folder),
    };
    session.port(config.port).user(&config.user).application_name("lifeboat");
    session.connect_timeout(config.connect_timeout.min(CONNECT_TIMEOUT));
    config.address.map(|address| session.hostaddr(address));
    config.password.as_ref().map(|password| session.password(password.as_bytes()));
    config.database.as_ref().map(|name| session.dbname(name));
    config.options.as_ref().map(|options| session.options(options));
    session.ssl_mode(match config.tls.mode {
        TlsMode::Disable => SslMode::Disable,
        TlsMode::Prefer => SslMode::Prefer,
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
    });
    session.channel_binding(match config.tls.channel_binding {
        ChannelBinding::Disable => tokio_postgres::config::ChannelBinding::Disable,
        ChannelBinding::Prefer => tokio_postgres::config::ChannelBinding::Prefer,
        ChannelBinding::Require => tokio_postgres::config::ChannelBinding::Require,
    });
    session
}

fn unreachable(place: &str, error: &tokio_postgres::Error) -> Failure {
    let mut why = error.to_string();
    if let Some(said) = error.as_db_error() {
        why = said.message().to_owned();
    } else if let Some(source) = std::error::Error::source(error) {
        why = format!("{why}: {source}");
    }
    Failure::new(
        Code::ClusterUnreachable,
        format!("cannot connect to PostgreSQL at {place}: {why}"),
    )
    .hint("Start the server, or correct `connection` of this node in the spec.")
}

#[cfg(test)]
mod tests;
