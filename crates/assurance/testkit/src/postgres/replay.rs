//! A server that sends recorded WAL, over and over the same bytes in the same time: what a stream
//! costs its receiver can be measured without the cost of making the WAL.
//!
//! It speaks as much of the replication protocol as a receiver asks for, to one receiver at a
//! time, without TLS and without a password.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lifeboat_environment::{Clock, SystemClock};

/// What a server sends at once: 16 blocks, as PostgreSQL does.
const PIECE_BYTES: usize = 128 << 10;
/// How often a server that has nothing to send says so.
const KEEPALIVE: Duration = Duration::from_millis(200);
const SSL_REQUEST: u32 = 80_877_103;

/// WAL that a server wrote.
#[derive(Debug, Clone)]
pub struct Recording {
    /// Whole segments of timeline 1, one after the other.
    pub segments: Vec<PathBuf>,
    /// The cluster's system identifier.
    pub system: u64,
    /// The position of the first byte.
    pub start: u64,
    /// The size of a segment.
    pub segment_bytes: u64,
}

impl Recording {
    fn end(&self) -> u64 {
        self.start + self.segments.len() as u64 * self.segment_bytes
    }
}

/// A server that sends a recording.
#[derive(Debug)]
pub struct Replay {
    port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    recording: Recording,
    bytes_per_second: u64,
    has_slot: AtomicBool,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    ended: AtomicBool,
}

impl Replay {
    /// Listens on a port of the loopback address and sends so many bytes a second at most.
    pub fn start(recording: Recording, bytes_per_second: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let start = recording.start;
        let shared = Arc::new(Shared {
            recording,
            bytes_per_second,
            has_slot: AtomicBool::new(false),
            sent: AtomicU64::new(start),
            acknowledged: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if serving.ended.load(Ordering::Relaxed) {
                    return;
                }
                // Who hangs up is no failure of the server.
                let _ = serve(&serving, &client);
            }
        });
        Ok(Self { port, shared, accepting: Some(accepting) })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The position after the last byte of the recording.
    pub fn end(&self) -> u64 {
        self.shared.recording.end()
    }

    /// The position after the last byte that was sent.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// The last position that the receiver said is durable.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // One last client, so that the listener sees it.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.accepting.take().map(JoinHandle::join);
    }
}

fn serve(shared: &Shared, client: &TcpStream) -> Result<()> {
    client.set_nodelay(true)?;
    let mut from = BufReader::new(client);
    greet(&mut from, client)?;
    loop {
        let (kind, body) = message(&mut from)?;
        if kind != b'Q' {
            bail!("message {} instead of a query", char::from(kind));
        }
        let text = std::str::from_utf8(&body)?.trim_end_matches('\0').to_owned();
        if let Some(start) = text.strip_prefix("START_REPLICATION ") {
            return stream(shared, client, from, position(start)?);
        }
        client_write(client, &shared.answer(&text))?;
    }
}

/// The opening: no TLS, no password.
fn greet(from: &mut impl Read, client: &TcpStream) -> Result<()> {
    loop {
        let length = number(from)?;
        let code = number(from)?;
        let mut rest = vec![0; (length as usize).checked_sub(8).context("a short message")?];
        from.read_exact(&mut rest)?;
        if code == SSL_REQUEST {
            client_write(client, b"N")?;
            continue;
        }
        let mut answer = framed(b'R', &0_u32.to_be_bytes());
        answer.extend(framed(b'S', b"server_version\x0015.0 (a recording)\0"));
        answer.extend(framed(b'K', &[0; 8]));
        answer.extend(framed(b'Z', b"I"));
        return client_write(client, &answer);
    }
}

impl Shared {
    fn answer(&self, query: &str) -> Vec<u8> {
        let Recording { system, start, .. } = &self.recording;
        let (end, first) = (lsn(self.recording.end()), lsn(*start));
        match query {
            "IDENTIFY_SYSTEM" => row(&[Some(&system.to_string()), Some("1"), Some(&end), None]),
            "SHOW in_hot_standby" => row(&[Some("off")]),
            "SHOW wal_segment_size" => {
                row(&[Some(&format!("{}MB", self.recording.segment_bytes >> 20))])
            }
            query if query.starts_with("READ_REPLICATION_SLOT") => {
                match self.has_slot.load(Ordering::Relaxed) {
                    true => row(&[Some("physical"), Some(&first), Some("1")]),
                    false => row(&[None, None, None]),
                }
            }
            query if query.starts_with("CREATE_REPLICATION_SLOT") => {
                self.has_slot.store(true, Ordering::Relaxed);
                let name = query.split('"').nth(1).unwrap_or_default();
                row(&[Some(name), Some("0/0"), None, None])
            }
            _ => refusal("42704", "a recording does not know this"),
        }
    }
}

/// Sends the recording from `start` on, at its pace, and then signs of life until the client goes.
fn stream(
    shared: &Shared,
    client: &TcpStream,
    from: BufReader<&TcpStream>,
    start: u64,
) -> Result<()> {
    let recording = &shared.recording;
    if start < recording.start || start > recording.end() {
        bail!("nothing was recorded at {}", lsn(start));
    }
    client_write(client, &framed(b'W', &[0, 0, 0]))?;
    std::thread::scope(|scope| {
        let listening = scope.spawn(|| listen(shared, from));
        let sent = send(shared, client, start, || listening.is_finished());
        let _ = client.shutdown(std::net::Shutdown::Both);
        sent
    })
}

fn send(shared: &Shared, client: &TcpStream, start: u64, gone: impl Fn() -> bool) -> Result<()> {
    let recording = &shared.recording;
    let began = SystemClock.elapsed();
    let mut at = start;
    let mut piece = vec![0; PIECE_BYTES];
    let mut file: Option<(u64, File)> = None;
    while at < recording.end() && !shared.ended.load(Ordering::Relaxed) && !gone() {
        let (number, offset) =
            ((at - recording.start) / recording.segment_bytes, at % recording.segment_bytes);
        let length = (recording.segment_bytes - offset).min(PIECE_BYTES as u64) as usize;
        let open = match file.take().filter(|(open, _)| *open == number) {
            Some((_, open)) => open,
            None => File::open(&recording.segments[number as usize])?,
        };
        open.read_exact_at(&mut piece[..length], offset)?;
        file = Some((number, open));
        let due = Duration::from_secs_f64((at - start) as f64 / shared.bytes_per_second as f64);
        let early = due.saturating_sub(SystemClock.elapsed().saturating_sub(began));
        SystemClock.sleep(early);
        let mut head = vec![b'w'];
        head.extend(at.to_be_bytes());
        head.extend(recording.end().to_be_bytes());
        head.extend(0_u64.to_be_bytes());
        let mut bytes = vec![b'd'];
        bytes.extend((4 + head.len() as u32 + length as u32).to_be_bytes());
        bytes.extend(head);
        bytes.extend_from_slice(&piece[..length]);
        client_write(client, &bytes)?;
        at += length as u64;
        shared.sent.store(at, Ordering::Relaxed);
    }
    while !shared.ended.load(Ordering::Relaxed) && !gone() {
        let mut body = vec![b'k'];
        body.extend(at.to_be_bytes());
        body.extend(0_u64.to_be_bytes());
        body.push(0);
        client_write(client, &framed(b'd', &body))?;
        SystemClock.sleep(KEEPALIVE);
    }
    Ok(())
}

/// Notes what the client says, until it leaves.
fn listen(shared: &Shared, mut from: BufReader<&TcpStream>) {
    while let Ok((kind, body)) = message(&mut from) {
        match (kind, body.first()) {
            (b'd', Some(b'r')) => {
                let flushed = body.get(9..17).and_then(|bytes| bytes.try_into().ok());
                let flushed = flushed.map(u64::from_be_bytes).unwrap_or_default();
                shared.acknowledged.fetch_max(flushed, Ordering::Relaxed);
            }
            (b'd', _) => {}
            _ => return,
        }
    }
}

fn client_write(mut client: &TcpStream, bytes: &[u8]) -> Result<()> {
    match client.write_all(bytes) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => bail!("the client is gone"),
        written => Ok(written?),
    }
}

fn number(from: &mut impl Read) -> Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

/// One message of the client: its type and its body.
fn message(from: &mut impl Read) -> Result<(u8, Vec<u8>)> {
    let mut kind = [0];
    from.read_exact(&mut kind)?;
    let length = number(from)?.checked_sub(4).context("a message without its length")?;
    if length > 1 << 20 {
        bail!("a message of {length} bytes");
    }
    let mut body = vec![0; length as usize];
    from.read_exact(&mut body)?;
    Ok((kind[0], body))
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend((4 + body.len() as u32).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// An answer of one row, and that the next command is welcome.
fn row(fields: &[Option<&str>]) -> Vec<u8> {
    let mut body = (fields.len() as u16).to_be_bytes().to_vec();
    for field in fields {
        match field {
            None => body.extend((-1_i32).to_be_bytes()),
            Some(text) => {
                body.extend((text.len() as u32).to_be_bytes());
                body.extend_from_slice(text.as_bytes());
            }
        }
    }
    let mut answer = framed(b'D', &body);
    answer.extend(framed(b'C', b"SELECT\0"));
    answer.extend(framed(b'Z', b"I"));
    answer
}

fn refusal(state: &str, message: &str) -> Vec<u8> {
    let body = format!("SERROR\0VERROR\0C{state}\0M{message}\0\0");
    let mut answer = framed(b'E', body.as_bytes());
    answer.extend(framed(b'Z', b"I"));
    answer
}

fn lsn(position: u64) -> String {
    format!("{:X}/{:X}", position >> 32, position & 0xFFFF_FFFF)
}

/// The position in `SLOT "name" PHYSICAL 0/1000000 TIMELINE 1`.
fn position(start: &str) -> Result<u64> {
    let mut words = start.split(' ').skip_while(|word| *word != "PHYSICAL").skip(1);
    let (high, low) = words.next().and_then(|word| word.split_once('/')).context("no position")?;
    Ok(u64::from_str_radix(high, 16)? << 32 | u64::from_str_radix(low, 16)?)
}
