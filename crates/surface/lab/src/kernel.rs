//! Requests to the kernel that no safe wrapper knows: the end of a file system's power, a device whose
//! packets a process carries, and signals that do what they do by default.
#![expect(unsafe_code, reason = "ioctls and signal actions are unsafe; each says why it is sound")]

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;

use lifeboat_telemetry::{Code, Failure, Outcome};
use nix::sys::signal::{SigHandler, Signal};

use crate::state::local;

/// Without even flushing the journal: what a power cut leaves.
const NO_LOG_FLUSH: u32 = 2;

/// A TUN device without a header before each packet (IFF_TUN, IFF_NO_PI).
const TUN_PLAIN: i16 = 0x1001;

/// `struct ifreq`, as far as the request for a TUN device reads it.
#[repr(C)]
struct Interface {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

nix::ioctl_read!(shutdown, b'X', 125, u32);
nix::ioctl_write_ptr_bad!(attach, nix::request_code_write!(b'T', 202, size_of::<i32>()), Interface);

/// Shuts a mounted file system down; every later access fails.
pub(crate) fn shut_down(mounted: &Path) -> Outcome<()> {
    let failed = |error| local("cannot cut the power of", mounted).because(error);
    let folder = fs::File::open(mounted).map_err(failed)?;
    let mut how = NO_LOG_FLUSH;
    // SAFETY: the request reads one u32, and `how` lives until it returns.
    unsafe { shutdown(folder.as_raw_fd(), &raw mut how) }
        .map(drop)
        .map_err(|error| failed(error.into()))
}

/// From now on these signals end the process, and ask nothing of it any more.
pub(crate) fn stop_listening() -> Outcome<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the default action runs no code of this process.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }.map_err(|error| {
            Failure::new(Code::Internal, format!("cannot leave {signal} to the kernel"))
                .because(error)
        })?;
    }
    Ok(())
}

/// Opens the packets of a TUN device that is there already.
pub(crate) fn open_tun(name: &str) -> Outcome<fs::File> {
    let failed = |error: std::io::Error| {
        Failure::new(Code::LabNetwork, format!("cannot open the device {name}")).because(error)
    };
    let file = fs::File::options().read(true).write(true).open("/dev/net/tun").map_err(failed)?;
    let mut interface = Interface { name: [0; 16], flags: TUN_PLAIN, rest: [0; 22] };
    // The last byte stays zero: the kernel reads a C string.
    for (place, byte) in interface.name.iter_mut().take(15).zip(name.bytes()) {
        *place = byte;
    }
    // SAFETY: the request reads and writes one `ifreq`, and `interface` is as long as one.
    unsafe { attach(file.as_raw_fd(), &raw const interface) }
        .map_err(|error| failed(error.into()))?;
    Ok(file)
}
