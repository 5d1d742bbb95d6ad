//! A connection to PostgreSQL from the spec's connection string.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_telemetry::{Code, Failure, Outcome};
use rustls::{ClientConfig, RootCertStore};
use tokio::task::JoinSet;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// An open connection; dropping it closes the session, which also ends a backup on it.
pub struct Connection {
    client: Client,
    place: String,
    /// Drives the socket; ends with the connection.
    _driver: JoinSet<()>,
}

impl Connection {
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
        let row = self.client.query_one(query, &[]).await.map_err(|error| self.failure(&error))?;
        row.try_get(0).map_err(|error| self.failure(&error))
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

/// Connects; TLS as `sslmode` of the string says, verified against the system's roots.
pub async fn connect(settings: &str) -> Outcome<Connection> {
    open(parse(settings)?).await
}

/// As [`connect`], to another place: `HOST:PORT`. Who connects, and how, is as the string says.
pub async fn connect_at(settings: &str, address: &str) -> Outcome<Connection> {
    let known = parse(settings)?;
    let (host, port) = host_and_port(address)?;
    let mut config = Config::new();
    config.host(host).port(port).ssl_mode(known.get_ssl_mode());
    config.channel_binding(known.get_channel_binding());
    known.get_user().map(|user| config.user(user));
    known.get_password().map(|password| config.password(password));
    known.get_dbname().map(|name| config.dbname(name));
    open(config).await
}

/// The role that a connection string names, if it names one.
pub fn role_of(settings: &str) -> Option<String> {
    parse(settings).ok()?.get_user().map(str::to_owned)
}

fn parse(settings: &str) -> Outcome<Config> {
    settings.parse().map_err(|error: tokio_postgres::Error| {
        // The string may hold a password: only the parser's own words are repeated.
        Failure::new(Code::SpecInvalid, format!("a connection string cannot be read: {error}"))
            .hint("Write it as in \"host=/run/postgresql port=5432 user=postgres\".")
    })
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

async fn open(mut config: Config) -> Outcome<Connection> {
    config.application_name("lifeboat").connect_timeout(CONNECT_TIMEOUT);
    let place = describe(&config);
    let unreachable = |error: tokio_postgres::Error| unreachable(&place, &error);
    let mut driver = JoinSet::new();
    let local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
    let client = if local || config.get_ssl_mode() == SslMode::Disable {
        let (client, connection) = config.connect(NoTls).await.map_err(unreachable)?;
        driver.spawn(async move {
            // The client's own calls report what ends the connection.
            let _ = connection.await;
        });
        client
    } else {
        let (client, connection) = config.connect(tls()?).await.map_err(unreachable)?;
        driver.spawn(async move {
            let _ = connection.await;
        });
        client
    };
    let connection = Connection { client, place, _driver: driver };
    connection
        .client
        .batch_execute(
            "SET search_path = pg_catalog; SET statement_timeout = 0; SET lock_timeout = 0;
             SET idle_in_transaction_session_timeout = 0; SET client_encoding = 'UTF8'",
        )
        .await
        .map_err(|error| connection.failure(&error))?;
    Ok(connection)
}

fn describe(config: &Config) -> String {
    let port = config.get_ports().first().copied().unwrap_or(5432);
    match config.get_hosts().first() {
        Some(Host::Tcp(host)) => format!("{host}:{port}"),
        Some(Host::Unix(path)) => format!("{}:{port}", path.display()),
        None => format!("localhost:{port}"),
    }
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

fn tls() -> Outcome<MakeRustlsConnect> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(Code::Internal, "TLS cannot be set up").because(error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
