//! One request over HTTP from inside a domain: etcd and agents answer questions about themselves.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::enter::join_network;
use crate::layout::{Domain, Layout};

/// Everything here is near.
const PATIENCE: Duration = Duration::from_secs(1);
/// No answer that is of use is longer.
const LONGEST: u64 = 1 << 20;

/// An answer: the code and the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// The body.
    pub body: String,
}

/// Asks from inside `domain`; a POST if there is something to send.
pub fn ask(
    layout: &Layout,
    domain: Domain,
    (host, port): (Ipv4Addr, u16),
    path: &str,
    body: Option<&str>,
) -> Outcome<Answer> {
    let work = || {
        if layout.has_namespaces() {
            join_network(layout, domain)?;
        }
        exchange((host, port), path, body).map_err(|error| {
            Failure::new(Code::LabPart, format!("no answer from {host}:{port}{path}"))
                .because(error)
        })
    };
    // A thread of its own, for it stays in the namespace that it joins.
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|_| {
        Err(Failure::new(Code::Internal, "a request to a part of the lab panicked"))
    })
}

fn exchange(
    (host, port): (Ipv4Addr, u16),
    path: &str,
    body: Option<&str>,
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((host, port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let verb = if body.is_some() { "POST" } else { "GET" };
    let body = body.unwrap_or_default();
    let length = body.len();
    // Version 1.0: one answer, its end is the end of the connection.
    write!(
        stream,
        "{verb} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut bytes = Vec::new();
    stream.take(LONGEST).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let code =
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| {
            std::io::Error::new(std::io::ErrorKind::InvalidData, "no answer in HTTP")
        })?;
    Ok(Answer { code, body: body.to_owned() })
}
