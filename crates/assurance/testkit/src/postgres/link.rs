//! A way to a server that breaks at a chosen message of the client.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use super::Cluster;
use crate::scratch::{self, Scratch};

/// When the link breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Before the message reaches the server.
    Before,
    /// After the server did what it says; the answer is lost.
    After,
}

/// A socket before a server's. Sessions that are open end by themselves with their client.
#[derive(Debug)]
pub struct Link {
    scratch: Scratch,
    connection: String,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Debug, Default)]
struct Plan {
    cut: Option<(usize, Cut)>,
    messages: Vec<u8>,
    ended: bool,
}

impl Link {
    /// Opens a link to a server, which need not run yet.
    pub fn to(cluster: &Cluster) -> Result<Self> {
        let scratch = Scratch::new()?;
        let name = format!(".s.PGSQL.{}", cluster.port());
        let socket = scratch.join(&name);
        let listener = UnixListener::bind(&socket)?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777))?;
        scratch::give(&socket)?;
        let folder = scratch.path().display().to_string();
        let connection = cluster.connection().replace(&shown(cluster.sockets()), &folder);
        let plan = Arc::new(Mutex::new(Plan::default()));
        let (server, shared) = (cluster.sockets().join(&name), Arc::clone(&plan));
        std::thread::spawn(move || accept(&listener, &server, &shared));
        Ok(Self { scratch, connection, plan })
    }

    /// A libpq connection string through the link.
    pub fn connection(&self) -> &str {
        &self.connection
    }

    /// Breaks at message number `message`, counted from 0 since the last [`Self::mend`], once.
    pub fn cut(&self, message: usize, cut: Cut) {
        lock(&self.plan).cut = Some((message, cut));
    }

    /// Nothing breaks any more; the count begins anew.
    pub fn mend(&self) {
        *lock(&self.plan) = Plan::default();
    }

    /// The types of all messages since the last [`Self::mend`]; 0 is the first one of a session.
    pub fn messages(&self) -> Vec<u8> {
        lock(&self.plan).messages.clone()
    }

    /// Whether a cut that was asked for is still to come.
    pub fn is_to_break(&self) -> bool {
        lock(&self.plan).cut.is_some()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        lock(&self.plan).ended = true;
        // One last client, so that the listener sees it.
        let _ = std::fs::read_dir(self.scratch.path()).map(|entries| {
            entries.flatten().for_each(|entry| drop(UnixStream::connect(entry.path())));
        });
    }
}

fn accept(listener: &UnixListener, server: &PathBuf, plan: &Arc<Mutex<Plan>>) {
    for client in listener.incoming().flatten() {
        if lock(plan).ended {
            return;
        }
        // Without a server the client is hung up on, as by a server that goes down.
        let Ok(server) = UnixStream::connect(server) else { continue };
        let plan = Arc::clone(plan);
        std::thread::spawn(move || {
            let _ = relay(&client, &server, &plan);
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        });
    }
}

/// Hands the client's messages on until one is to be lost.
fn relay(client: &UnixStream, server: &UnixStream, plan: &Mutex<Plan>) -> std::io::Result<()> {
    let deaf = Arc::new(AtomicBool::new(false));
    let (from, to, silent) = (server.try_clone()?, client.try_clone()?, Arc::clone(&deaf));
    let answers = std::thread::spawn(move || hand_back(from, to, &silent));
    let mut first = true;
    loop {
        let (kind, bytes) = message(client, first)?;
        first = false;
        match note(plan, kind) {
            None => (&*server).write_all(&bytes)?,
            Some(Cut::Before) => return Ok(()),
            Some(Cut::After) => {
                deaf.store(true, Ordering::SeqCst);
                (&*server).write_all(&bytes)?;
                // Only these are answered at once: a query, a sync, a beginning.
                if matches!(kind, b'Q' | b'S' | 0) {
                    let _ = answers.join();
                }
                return Ok(());
            }
        }
    }
}

/// Counts a message; what is to happen to it.
fn note(plan: &Mutex<Plan>, kind: u8) -> Option<Cut> {
    let mut plan = lock(plan);
    let number = plan.messages.len();
    plan.messages.push(kind);
    let hit = plan.cut.filter(|(message, _)| *message == number);
    if hit.is_some() {
        plan.cut = None;
    }
    hit.map(|(_, cut)| cut)
}

/// One message: its type, and all of its bytes. The first one of a session has no type.
fn message(mut client: &UnixStream, first: bool) -> std::io::Result<(u8, Vec<u8>)> {
    let mut bytes = vec![0; if first { 4 } else { 5 }];
    client.read_exact(&mut bytes)?;
    let (kind, length) = match bytes.as_slice() {
        [a, b, c, d] => (0, [*a, *b, *c, *d]),
        [kind, a, b, c, d] => (*kind, [*a, *b, *c, *d]),
        _ => return Err(std::io::ErrorKind::InvalidData.into()),
    };
    let rest = (u32::from_be_bytes(length) as usize).saturating_sub(4);
    let head = bytes.len();
    bytes.resize(head + rest, 0);
    client.read_exact(&mut bytes[head..])?;
    Ok((kind, bytes))
}

/// Hands answers back, until the first one that is to be lost.
fn hand_back(mut from: UnixStream, mut to: UnixStream, deaf: &AtomicBool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if deaf.load(Ordering::SeqCst) || to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn lock(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}
