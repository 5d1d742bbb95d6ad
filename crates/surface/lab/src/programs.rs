//! The programs of others that a lab is made of.

use std::path::{Path, PathBuf};

use lifeboat_telemetry::{Code, Failure, Outcome};

/// Where Debian puts the programs of PostgreSQL 15.
pub const POSTGRES: &str = "/usr/lib/postgresql/15/bin";

const FOLDERS: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Program and Debian package.
const NEEDED: [(&str, &str); 5] = [
    ("openssl", "openssl"),
    ("etcd", "etcd-server"),
    ("named", "bind9"),
    ("haproxy", "haproxy"),
    ("dig", "bind9-dnsutils"),
];

/// The path of a program.
pub fn find(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// The path of a program that must be there.
pub fn require(name: &str) -> Outcome<String> {
    find(name).map(|path| path.to_string_lossy().into_owned()).ok_or_else(|| missing(&[name]))
}

/// A program of PostgreSQL.
pub fn postgres(name: &str) -> String {
    Path::new(POSTGRES).join(name).to_string_lossy().into_owned()
}

/// Fails with the names of all that is missing.
pub fn check() -> Outcome<()> {
    let mut absent: Vec<&str> = NEEDED
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !Path::new(&postgres("postgres")).is_file() {
        absent.push("postgresql-15");
    }
    if absent.is_empty() { Ok(()) } else { Err(missing(&absent)) }
}

fn missing(what: &[&str]) -> Failure {
    Failure::new(Code::LabPart, format!("this machine lacks {}", what.join(", ")))
        .hint("`cargo xtask install`, or `apt-get install` with these names.")
}
