//! A session of a client with whoever answers.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::poll_fn;
use lifeboat_environment::Environment;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::error::DbError;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Statement};

use super::Road;
use super::name::addresses;
use crate::layout::{ENDPOINT, ENDPOINT_PORT};

/// A server that does not take a session by then is left alone.
const PATIENCE: Duration = Duration::from_secs(2);

/// Something that a server said besides its answers.
#[derive(Debug)]
pub(super) struct Notice {
    /// What it said.
    pub text: String,
    /// Whether it is more than information.
    pub is_warning: bool,
    /// When it came.
    pub came_ns: u64,
}

/// A session, ready to write.
pub(super) struct Session {
    pub client: Client,
    pub insert: Statement,
    /// The address of the server as it has it itself; none over a socket.
    pub address: Option<IpAddr>,
    /// The cluster.
    pub system: String,
    pub notices: UnboundedReceiver<Notice>,
    /// Ends with the session.
    _driver: JoinSet<()>,
}

/// A row; the server says who it is in the same breath.
const INSERT: &str = "INSERT INTO entries (writer, session, sequence) VALUES ($1, $2, $3) \
                      RETURNING pg_walfile_name(pg_current_wal_insert_lsn())";
const WHO: &str = "SELECT host(inet_server_addr()), system_identifier::text \
                   FROM pg_control_system()";

impl Session {
    /// Connects by this road.
    pub(super) async fn open(road: &Road, environment: &Environment) -> Result<Self, String> {
        match timeout(PATIENCE, Self::try_open(road, environment)).await {
            Ok(opened) => opened,
            Err(_) => Err("no session within two seconds".to_owned()),
        }
    }

    async fn try_open(road: &Road, environment: &Environment) -> Result<Self, String> {
        match road {
            Road::Endpoint(resolver) => {
                let found = addresses(*resolver, ENDPOINT, environment).await?;
                let address = found.first().ok_or("the endpoint has no address")?;
                let stream = TcpStream::connect((*address, ENDPOINT_PORT)).await.map_err(text)?;
                stream.set_nodelay(true).map_err(text)?;
                Self::over(stream, environment).await
            }
            Road::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(text)?;
                stream.set_nodelay(true).map_err(text)?;
                Self::over(stream, environment).await
            }
            Road::Socket(path) => {
                let stream = UnixStream::connect(path).await.map_err(text)?;
                Self::over(stream, environment).await
            }
        }
    }

    async fn over<S>(stream: S, environment: &Environment) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut config = Config::new();
        config.user("ledger").dbname("books").application_name("ledger");
        let (client, mut connection) = config.connect_raw(stream, NoTls).await.map_err(text)?;
        let (sender, notices) = unbounded_channel();
        let mut driver = JoinSet::new();
        let environment = environment.clone();
        driver.spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notice(said) = message {
                    let came_ns = now_ns(&environment);
                    // Nobody listens any more: the session ends.
                    let _ = sender.send(notice(&said, came_ns));
                }
            }
        });
        let who = client.query_one(WHO, &[]).await.map_err(text)?;
        let address: Option<String> = who.try_get(0).map_err(text)?;
        let address = address.map(|address| address.parse()).transpose().map_err(text)?;
        let system = who.try_get(1).map_err(text)?;
        let insert = client.prepare(INSERT).await.map_err(text)?;
        Ok(Self { client, insert, address, system, notices, _driver: driver })
    }
}

fn notice(said: &DbError, came_ns: u64) -> Notice {
    let is_warning = said.severity() == "WARNING";
    Notice { text: said.message().to_owned(), is_warning, came_ns }
}

/// The moment, on the clock of all clients.
pub(super) fn now_ns(environment: &Environment) -> u64 {
    u64::try_from(environment.clock().elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
