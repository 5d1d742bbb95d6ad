//! HTTP on loopback, served by a thread of its own so that any test can use it.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// A body, which may break off in the middle.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// The connection ends here, without an answer.
#[derive(Debug)]
pub(super) struct HangUp;

impl std::fmt::Display for HangUp {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the connection was closed on purpose")
    }
}

impl std::error::Error for HangUp {}

/// Whoever answers requests.
pub(super) trait Answer: Send + Sync + 'static {
    fn answer(
        &self,
        request: Request<Bytes>,
    ) -> impl Future<Output = Result<Response<Body>, HangUp>> + Send;
}

/// A server that ends with the value.
#[derive(Debug)]
pub(super) struct Serving {
    endpoint: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Listens on a free port of the loopback address.
    pub(super) fn start<A: Answer>(answer: Arc<A>) -> Result<Self> {
        Self::on(std::net::TcpListener::bind(("127.0.0.1", 0))?, answer)
    }

    /// Listens again where one that was stopped did.
    pub(super) fn restart<A: Answer>(&mut self, answer: Arc<A>) -> Result<()> {
        let address = self.endpoint.trim_start_matches("http://");
        *self = Self::on(std::net::TcpListener::bind(address)?, answer)?;
        Ok(())
    }

    fn on<A: Answer>(listener: std::net::TcpListener, answer: Arc<A>) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).context("cannot listen")?
        };
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, answer) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { endpoint, stop: Some(stop), thread: Some(thread) })
    }

    /// `http://127.0.0.1:port`.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// All connections break, and nobody listens.
    pub(super) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept<A: Answer>(listener: TcpListener, answer: Arc<A>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                connections.spawn(connection(stream, Arc::clone(&answer)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection<A: Answer>(stream: TcpStream, answer: Arc<A>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = Arc::clone(&answer);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|_| HangUp)?.to_bytes();
            answer.answer(Request::from_parts(head, body)).await
        }
    });
    // A client may leave at any time; that is its business.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A body that arrives whole.
pub(super) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}
