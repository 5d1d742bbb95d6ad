//! The admin socket: one line, one answer, one connection.

use std::fmt;
use std::time::Duration;

use lifeboat_telemetry::{Code, Failure, Outcome};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// How long one exchange may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// More than a backend with a thousand servers says.
const LONGEST_BYTES: u64 = 1 << 20;

/// Where HAProxy listens for commands.
pub(super) struct Socket(String);

impl Socket {
    /// A path, or HOST:PORT.
    pub(super) fn new(address: &str) -> Self {
        Self(address.to_owned())
    }

    /// Says a line and hears the whole answer.
    pub(super) async fn say(&self, line: &str) -> Outcome<String> {
        let talk = async {
            match self.0.starts_with('/') {
                true => exchange(UnixStream::connect(&self.0).await?, line).await,
                false => exchange(TcpStream::connect(&self.0).await?, line).await,
            }
        };
        match tokio::time::timeout(PATIENCE, talk).await {
            Ok(answer) => answer.map_err(|error| self.silent().because(error)),
            Err(_) => {
                Err(self.silent().because(format!("nothing for {} ms", PATIENCE.as_millis())))
            }
        }
    }

    fn silent(&self) -> Failure {
        Failure::new(Code::TrafficSilent, format!("HAProxy at {self} does not answer"))
            .hint("See whether HAProxy runs, and whether this user may use its admin socket.")
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    line: &str,
) -> std::io::Result<String> {
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.take(LONGEST_BYTES).read_to_string(&mut answer).await?;
    Ok(answer)
}
