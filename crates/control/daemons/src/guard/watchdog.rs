//! A watchdog device: resets the host if nobody writes to it (R12).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// How often it is written to. Devices wait for 10 s and more.
const EVERY: Duration = Duration::from_secs(1);

/// A device, armed or not.
pub(super) struct Watchdog {
    path: Option<PathBuf>,
    device: Option<File>,
    last: Duration,
}

impl Watchdog {
    /// Not armed; without a path it never is.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path, device: None, last: Duration::ZERO }
    }

    /// Whether it counts.
    pub fn armed(&self) -> bool {
        self.device.is_some()
    }

    /// From now on the host is reset if this process does not write.
    pub fn arm(&mut self, now: Duration) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if self.device.is_none() {
            // Devices are opened by one process at a time; none of them makes a writer wait.
            let options =
                OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
            self.device = Some(options?);
            self.feed(now);
        }
        Ok(())
    }

    /// When it wants to be fed next.
    pub fn next(&self) -> Option<Duration> {
        self.armed().then(|| self.last.saturating_add(EVERY))
    }

    /// Feeds it, if it is time.
    pub fn tick(&mut self, now: Duration) {
        if self.next().is_some_and(|next| now >= next) {
            self.feed(now);
        }
    }

    /// The letter that a device takes for a clean end, and the end. It is not written when this
    /// process dies: then the device goes on counting.
    pub fn disarm(&mut self) {
        if let Some(mut device) = self.device.take() {
            let _ = device.write_all(b"V");
        }
    }

    fn feed(&mut self, now: Duration) {
        self.last = now;
        if let Some(device) = &mut self.device {
            let _ = device.write_all(b"\0");
        }
    }
}
