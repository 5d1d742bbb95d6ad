//! Waiting for whatever comes first: a descriptor, a signal, a moment of CLOCK_BOOTTIME.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// Wakes a loop that waits. Its timer counts while the machine sleeps: a machine that wakes up
/// behind a deadline wakes this up at once.
pub(super) struct Alarm {
    timer: TimerFd,
    signals: UnixStream,
    told: Arc<AtomicBool>,
}

impl Alarm {
    /// Takes over the signals of this process.
    pub fn new() -> io::Result<Self> {
        let (signals, wake) = UnixStream::pair()?;
        signals.set_nonblocking(true)?;
        // Handlers, for what is ignored stays ignored in PostgreSQL.
        for signal in [SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
            signal_hook::low_level::pipe::register(signal, wake.try_clone()?)?;
        }
        let told = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register(signal, Arc::clone(&told))?;
        }
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?;
        Ok(Self { timer, signals, told })
    }

    /// Whether somebody wanted this process to end since the last call.
    pub fn told_to_end(&self) -> bool {
        self.told.swap(false, Ordering::SeqCst)
    }

    /// Waits until one of `others` can be read, a signal has come, or it is `moment`.
    pub fn wait(&mut self, moment: Option<Duration>, others: &[BorrowedFd<'_>]) -> io::Result<()> {
        match moment {
            Some(moment) => {
                // A moment of zero would turn the timer off.
                let moment = TimeSpec::from_duration(moment.max(Duration::from_nanos(1)));
                let once = Expiration::OneShot(moment);
                self.timer.set(once, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            }
            None => self.timer.unset()?,
        }
        let own = [self.timer.as_fd(), self.signals.as_fd()];
        let all = own.into_iter().chain(others.iter().copied());
        let mut polled: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 64];
        while matches!(self.signals.read(&mut bytes), Ok(count) if count > 0) {}
        Ok(())
    }
}
