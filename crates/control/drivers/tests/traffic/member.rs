//! What stands behind HAProxy in a test: a server that says its name, and an agent that says whether
//! it may write.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use lifeboat_testkit::haproxy;

pub struct Member {
    name: &'static str,
    server: Listening,
    agent: Listening,
    serves: Arc<AtomicBool>,
}

impl Member {
    pub fn start(name: &'static str) -> Result<Self> {
        let serves = Arc::new(AtomicBool::new(false));
        let says = Arc::clone(&serves);
        let server = Listening::start(move |mut stream| {
            let _ = stream.write_all(name.as_bytes());
            // A session lives until somebody ends it.
            let _ = stream.read_to_end(&mut Vec::new());
        })?;
        let agent = Listening::start(move |mut stream| {
            let status = match says.load(Ordering::SeqCst) {
                true => "200 OK",
                false => "503 Service Unavailable",
            };
            let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
            let _ = stream.read(&mut [0; 1024]);
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes());
        })?;
        Ok(Self { name, server, agent, serves })
    }

    pub fn serve(&self, serves: bool) {
        self.serves.store(serves, Ordering::SeqCst);
    }

    pub fn described(&self) -> haproxy::Member {
        haproxy::Member {
            name: format!("pg-{}", self.name),
            serves: self.server.address,
            agent: self.agent.address,
        }
    }
}

/// A thread a connection; ends with the value.
struct Listening {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let over = Arc::new(AtomicBool::new(false));
        let (serve, until) = (Arc::new(serve), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if until.load(Ordering::SeqCst) {
                    return;
                }
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(stream));
            }
        });
        Ok(Self { address, over, thread: Some(thread) })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
