//! From a configuration to a protected connection.

use std::io;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::config::{Config, Host, TlsMode};
use crate::link::Socket;
use crate::protocol::Security;
use crate::{Error, tls};

/// A length of eight bytes and PostgreSQL's number for "may we speak TLS?".
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];

pub(crate) async fn dial(config: &Config) -> Result<(Box<dyn Socket>, Security), Error> {
    let name = match &config.host {
        Host::Socket(folder) => {
            let path = folder.join(format!(".s.PGSQL.{}", config.port));
            let socket = UnixStream::connect(path).await.map_err(unreachable)?;
            return Ok((Box::new(socket), Security::Socket));
        }
        Host::Tcp(name) => name,
    };
    let mut socket = match config.address {
        Some(address) => TcpStream::connect((address, config.port)).await,
        None => TcpStream::connect((name.as_str(), config.port)).await,
    }
    .map_err(unreachable)?;
    prepare(config, &socket).map_err(Error::io("a socket cannot be set up"))?;
    if config.tls.mode == TlsMode::Disable || !offers_tls(config, &mut socket).await? {
        return Ok((Box::new(socket), Security::Plain));
    }
    let (socket, digest) = tls::encrypt(&config.tls, name, socket).await?;
    Ok((Box::new(socket), Security::Tls(digest)))
}

fn unreachable(source: io::Error) -> Error {
    Error::Io { step: "cannot connect", source }
}

fn prepare(config: &Config, socket: &TcpStream) -> io::Result<()> {
    // An acknowledgement is small, and a commit waits for it.
    socket.set_nodelay(true)?;
    if let Some(keepalive) = config.keepalive {
        let keepalive = TcpKeepalive::new()
            .with_time(keepalive.idle)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.count);
        SockRef::from(socket).set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

async fn offers_tls(config: &Config, socket: &mut TcpStream) -> Result<bool, Error> {
    socket.write_all(&SSL_REQUEST).await.map_err(unreachable)?;
    // Exactly one byte: whatever somebody slips in behind it reaches the TLS layer, which will not
    // take it for the server's.
    match socket.read_u8().await {
        Ok(b'S') => Ok(true),
        Ok(b'N') if config.tls.mode == TlsMode::Prefer => Ok(false),
        Ok(b'N') => Err(Error::Tls("the server has no TLS, which sslmode demands".into())),
        // An error message that nobody vouches for; also what is no PostgreSQL at all.
        Ok(_) => Err(Error::protocol("no answer to the question for TLS")),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::Closed),
        Err(error) => Err(unreachable(error)),
    }
}
