//! A disk for each region: an ext4 in a file, so that it can lose its power and run full.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use lifeboat_telemetry::Outcome;
use nix::mount::{MntFlags, umount2};
use nix::unistd::{User, syncfs};

use crate::enter::{ACCOUNT, no_account};
use crate::kernel;
use crate::layout::{Domain, Layout};
use crate::shell::tool;
use crate::state::local;

/// Sparse: only what is written takes space.
const SIZE_BYTES: u64 = 3 << 30;
/// What takes the space of a full disk.
const FILL: &str = ".filled-by-the-lab";

/// Makes and mounts the disk of a region; without namespaces a plain folder does.
pub fn build(layout: &Layout, domain: Domain) -> Outcome<()> {
    let place = layout.disk(domain);
    make_folder(layout, &place)?;
    if !layout.has_namespaces() || !domain.is_region() {
        return Ok(());
    }
    let image = layout.image(domain);
    let made = fs::File::create(&image).and_then(|file| file.set_len(SIZE_BYTES));
    made.map_err(|error| local("cannot make", &image).because(error))?;
    let path = image.to_string_lossy();
    // Initialising later would go on for minutes in the background.
    let options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
    tool("mkfs.ext4", &["-q", "-F", "-m", "0", "-O", "^metadata_csum", "-E", options, &path])?;
    mount(layout, domain)?;
    give(layout, &place)
}

/// Mounts the disk of a region, if it has one that is not mounted.
pub fn mount(layout: &Layout, domain: Domain) -> Outcome<()> {
    let (image, place) = (layout.image(domain), layout.disk(domain));
    if !image.exists() || mounts_below(&place).contains(&place) {
        return Ok(());
    }
    let (image, place) = (image.to_string_lossy(), place.to_string_lossy());
    tool("mount", &["-o", "loop,noatime,noinit_itable", &image, &place]).map(drop)
}

/// Takes away everything that is mounted below a directory.
pub fn unmount_below(directory: &Path) -> Outcome<()> {
    for place in mounts_below(directory).into_iter().rev() {
        umount2(&place, MntFlags::MNT_DETACH)
            .map_err(|error| local("cannot unmount", &place).because(error))?;
    }
    Ok(())
}

/// Whether the kernel still holds the disk of a region: one that lost its power comes back only
/// once nothing remembers it, or it is found as it was, dead.
pub fn is_held(layout: &Layout, domain: Domain) -> bool {
    let image = layout.image(domain);
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut files = devices
        .filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok());
    files.any(|file| Path::new(file.trim_end()) == image)
}

/// The disks of regions that are mounted, of every lab on this machine.
pub fn of_all_labs() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let of_file = |line: &&str| {
        line.split_once(" - ").is_some_and(|(_, rest)| {
            rest.split(' ').nth(1).is_some_and(|source| source.starts_with("/dev/loop"))
        })
    };
    let places = text.lines().filter(of_file).filter_map(|line| line.split(' ').nth(4));
    let places = places.map(unescape).map(PathBuf::from);
    let of_region = |place: &PathBuf| Domain::REGIONS.iter().any(|one| place.ends_with(one.name()));
    places.filter(of_region).collect()
}

/// Whether a region's disk can lose its power or run full.
pub fn is_own(layout: &Layout, domain: Domain) -> bool {
    mounts_below(&layout.disk(domain)).contains(&layout.disk(domain))
}

/// Brings all that was written to a region's disk: files that were there long before a power cut outlive it.
pub fn settle(layout: &Layout, domain: Domain) -> Outcome<()> {
    let place = layout.disk(domain);
    let failed = |error| local("cannot flush the disk of", &place).because(error);
    let folder = fs::File::open(&place).map_err(failed)?;
    syncfs(&folder).map_err(|error| failed(error.into()))
}

/// Ends a disk as a power cut does: what was not flushed is gone, nothing more gets through.
pub fn cut_power(layout: &Layout, domain: Domain) -> Outcome<()> {
    kernel::shut_down(&layout.disk(domain))
}

/// Leaves no byte free.
pub fn fill(layout: &Layout, domain: Domain) -> Outcome<()> {
    let path = layout.disk(domain).join(FILL);
    let failed = |error: std::io::Error| local("cannot fill", &path).because(error);
    let file = fs::File::create(&path).map_err(failed)?;
    // In halves, for each call takes all of what it asks for or nothing.
    let (mut at, mut step) = (0_i64, 1_i64 << 31);
    while step >= 4096 {
        let mode = nix::fcntl::FallocateFlags::empty();
        match nix::fcntl::fallocate(&file, mode, at, step) {
            Ok(()) => at += step,
            Err(nix::Error::ENOSPC) => step /= 2,
            Err(error) => return Err(failed(error.into())),
        }
    }
    Ok(())
}

/// Gives the space back; whether any was taken.
pub fn drain(layout: &Layout, domain: Domain) -> Outcome<bool> {
    let path = layout.disk(domain).join(FILL);
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(local("cannot remove", &path).because(error)),
    }
}

/// Makes a folder that belongs to the account of the servers.
pub fn make_folder(layout: &Layout, path: &Path) -> Outcome<()> {
    fs::create_dir_all(path).map_err(|error| local("cannot make", path).because(error))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(path, mode)
        .map_err(|error| local("cannot protect", path).because(error))?;
    give(layout, path)
}

/// Writes a file that belongs to the account of the servers and that nobody else reads.
pub fn write(layout: &Layout, path: &Path, text: &str) -> Outcome<()> {
    fs::write(path, text).map_err(|error| local("cannot write", path).because(error))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(path, mode)
        .map_err(|error| local("cannot protect", path).because(error))?;
    give(layout, path)
}

/// Gives a file or folder to the account of the servers.
pub fn give(layout: &Layout, path: &Path) -> Outcome<()> {
    if !layout.has_namespaces() {
        return Ok(());
    }
    let account = User::from_name(ACCOUNT).ok().flatten().ok_or_else(no_account)?;
    chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw()))
        .map_err(|error| local("cannot give away", path).because(error))
}

/// What is mounted at or below a directory, outer ones first.
pub fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = text.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    places.map(PathBuf::from).filter(|place| place.starts_with(directory)).collect()
}

/// The kernel writes blanks and the like as `\040`.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|code| u8::from_str_radix(code, 8).ok());
        match (code, part.get(3..)) {
            (Some(code), Some(rest)) => {
                plain.push(char::from(code));
                plain.push_str(rest);
            }
            _ => plain.push_str(part),
        }
    }
    plain
}
