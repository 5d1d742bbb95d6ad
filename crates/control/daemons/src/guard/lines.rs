//! One JSON value a line over a socket that never makes this process wait.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// No line is longer: options and variables of a start are the longest that there is.
const LONGEST: usize = 64 << 10;

/// A socket with what was read of the next line.
pub(super) struct Lines {
    stream: UnixStream,
    buffer: Vec<u8>,
    closed: bool,
}

impl Lines {
    /// Takes over a socket.
    pub fn new(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(1024), closed: false })
    }

    /// Whether nothing more can come or go.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// The lines that have come; what is no `T` comes as the reason.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Vec<Result<T, String>> {
        let mut bytes = [0; 4096];
        while !self.closed && self.buffer.len() <= LONGEST {
            match self.stream.read(&mut bytes) {
                Ok(0) => self.closed = true,
                Ok(count) => self.buffer.extend(bytes.iter().take(count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.closed = true,
            }
        }
        let mut lines = Vec::new();
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            lines.push(serde_json::from_slice(&line).map_err(|error| error.to_string()));
        }
        if self.buffer.len() > LONGEST {
            self.closed = true;
        }
        lines
    }

    /// Sends a line. Lines are shorter than a socket's buffer: a peer that leaves no room for one
    /// has read nothing for long, and is given up.
    pub fn send<T: Serialize>(&mut self, value: &T) {
        let Ok(mut line) = serde_json::to_vec(value) else {
            self.closed = true;
            return;
        };
        line.push(b'\n');
        if self.stream.write_all(&line).is_err() {
            self.closed = true;
        }
    }
}

impl AsFd for Lines {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests;
