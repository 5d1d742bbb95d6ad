//! What load balancers ask: whether this node may write, now.
//!
//! `GET /primary` is answered by 200 only while the lease lives by CLOCK_BOOTTIME at that moment, and
//! by 503 with the reason otherwise. The agent says until when something holds, never that it holds:
//! so an agent that hangs, or is frozen and thawed, turns into 503 by itself. For the same reason the
//! endpoint has a thread of its own, which does nothing but compare two numbers.
//!
//! `GET /replica` does the same for a standby that streams, and `GET /health` for the agent itself.

mod watched;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use lifeboat_environment::Environment;
use lifeboat_model::NodeName;
use lifeboat_telemetry::{Code, Failure, Outcome};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

pub use watched::{WatchedInstance, WatchedTimer};

/// How long a client may take to ask.
const PATIENCE: Duration = Duration::from_millis(500);
/// More balancers than ask one node at a time; further ones wait.
const MOST_CONNECTIONS: usize = 128;

/// Until when what holds, in nanoseconds of CLOCK_BOOTTIME; 0 if it does not. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Word(Arc<Moments>);

#[derive(Debug, Default)]
struct Moments {
    primary: AtomicU64,
    replica: AtomicU64,
    agent: AtomicU64,
}

impl Word {
    /// The node takes writes, and its lease lives until then; zero if one of both is not so.
    pub fn primary_until(&self, deadline: Duration) {
        set(&self.0.primary, deadline);
    }

    /// The node is a standby that streams, as far as was seen, and this may be believed until then;
    /// zero if it is none.
    pub fn replica_until(&self, deadline: Duration) {
        set(&self.0.replica, deadline);
    }

    /// The agent is at work, and says so again before then.
    pub fn agent_until(&self, deadline: Duration) {
        set(&self.0.agent, deadline);
    }
}

fn set(moment: &AtomicU64, until: Duration) {
    // 584 years of uptime; what is longer lives as long.
    moment.store(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
}

/// The endpoint, on a thread of its own. Ends with the value.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What an answer says, in one line.
#[derive(Serialize)]
struct Said<'a> {
    node: &'a NodeName,
    #[serde(skip_serializing_if = "Option::is_none")]
    for_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// What is needed to answer.
struct Answering {
    node: NodeName,
    word: Word,
    environment: Environment,
}

impl Endpoint {
    /// Listens, and answers for `node` by `word` until it is dropped.
    pub fn start(
        listen: SocketAddr,
        node: NodeName,
        word: Word,
        environment: &Environment,
    ) -> Outcome<Self> {
        let fail = |error: std::io::Error| {
            let message = format!("the agent of {node} cannot answer at {listen}");
            Failure::new(Code::SpecInvalid, message)
                .hint("Give the node an address of this host and a port that is free.")
                .because(error)
        };
        let listener = TcpListener::bind(listen).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(fail)?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(fail)?
        };
        let (stop, stopped) = oneshot::channel();
        let answering =
            Arc::new(Answering { node: node.clone(), word, environment: environment.clone() });
        let thread = std::thread::Builder::new().name("primary".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, answering) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, stop: Some(stop), thread: Some(thread.map_err(fail)?) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, answering: Arc<Answering>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve(stream, Arc::clone(&answering)))),
                // Out of file descriptors, say: no reason to spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: tokio::net::TcpStream, answering: Arc<Answering>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answering.answer(request.method(), request.uri().path());
        async { Ok::<_, Infallible>(answer) }
    });
    // One question a connection: an answer is never older than its connection.
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    // Balancers come and go; a slow one is left.
    let _ = tokio::time::timeout(PATIENCE * 2, connection).await;
}

impl Answering {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let moments = &self.word.0;
        let (until, never) = match path {
            "/primary" => (&moments.primary, "this node holds no lease"),
            "/replica" => (&moments.replica, "this node is no standby that streams"),
            "/health" => (&moments.agent, "the agent has not begun"),
            _ => {
                let why = "ask for /primary, /replica or /health";
                return self.say(StatusCode::NOT_FOUND, None, Some(why.to_owned()));
            }
        };
        if !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            let mut answer = self.say(StatusCode::METHOD_NOT_ALLOWED, None, None);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
            return answer;
        }
        let until = Duration::from_nanos(until.load(Ordering::SeqCst));
        // Read after the word: a lease that ends in between has ended.
        let now = self.environment.clock().elapsed();
        match until.checked_sub(now) {
            Some(left) if !left.is_zero() => self.say(StatusCode::OK, Some(left), None),
            _ if until.is_zero() => self.unavailable(never.to_owned()),
            _ => {
                let past = now.saturating_sub(until).as_millis();
                self.unavailable(format!("what was known ended {past} ms ago"))
            }
        }
    }

    fn unavailable(&self, why: String) -> Response<Full<Bytes>> {
        self.say(StatusCode::SERVICE_UNAVAILABLE, None, Some(why))
    }

    fn say(
        &self,
        status: StatusCode,
        left: Option<Duration>,
        why: Option<String>,
    ) -> Response<Full<Bytes>> {
        let for_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        let mut line =
            serde_json::to_string(&Said { node: &self.node, for_ms, why }).unwrap_or_default();
        line.push('\n');
        let mut answer = Response::new(Full::new(Bytes::from(line)));
        *answer.status_mut() = status;
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    }
}

#[cfg(test)]
mod tests;
