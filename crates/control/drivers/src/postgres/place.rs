//! Where servers are, how this node logs in there, and where what PostgreSQL itself reads lies.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown, lchown};
use std::path::{Path, PathBuf};

use lifeboat_model::NodeName;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wire::{ChannelBinding, Config, Host, TlsMode};

use super::session::Place;
use super::settings::Settings;

/// The way to this node's own server.
pub(crate) fn own(settings: &Settings) -> Outcome<Place> {
    let connection = settings.node()?.connection.resolve(&settings.environment)?;
    Ok(Place { settings: connection, address: None })
}

/// The way to another node's server: who logs in as its `connection` says, where as its `address`
/// says. Without one, it can only be on this host.
pub(crate) fn other(settings: &Settings, name: &NodeName) -> Outcome<Place> {
    let node = settings.other(name)?;
    let connection = node.connection.resolve(&settings.environment)?;
    match &node.address {
        Some(address) => {
            let address = Some(address.resolve(&settings.environment)?);
            Ok(Place { settings: connection, address })
        }
        None if node.region == settings.node()?.region => {
            Ok(Place { settings: connection, address: None })
        }
        None => Err(Failure::new(Code::SpecInvalid, format!("node {name} has no `address`"))
            .hint("Other regions reach it by that: write HOST:PORT.")),
    }
}

/// How libpq reaches a place, and the password that it finds in a file.
pub(crate) struct Conninfo {
    /// The words, with everything but the password.
    pub(crate) words: String,
    /// A line of a password file.
    pub(crate) passfile_line: Option<String>,
}

/// The parsed way to a place.
pub(crate) fn config(place: &Place) -> Outcome<Config> {
    let mut config = Config::parse(&place.settings).map_err(|error| error.at("`connection`"))?;
    if let Some(address) = &place.address {
        let invalid = || {
            Failure::new(Code::SpecInvalid, format!("{address:?} is no address of a server"))
                .hint("Write `address` of this node as HOST:PORT.")
        };
        let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        config.host = Host::Tcp(host.to_owned());
        config.port = port.parse().map_err(|_| invalid())?;
        config.address = None;
        if !place.settings.contains("sslmode=") {
            config.tls.mode = TlsMode::VerifyFull;
        }
    }
    Ok(config)
}

/// The words of libpq for a place. `database` is what the password file calls it too.
pub(crate) fn conninfo(place: &Place, name: &str, passfile: &Path) -> Outcome<Conninfo> {
    let config = config(place)?;
    let mut words = Words(String::new());
    let host = match &config.host {
        Host::Tcp(name) => name.clone(),
        Host::Socket(folder) => folder.display().to_string(),
    };
    words.add("host", &host);
    if let Some(address) = config.address {
        words.add("hostaddr", &address.to_string());
    }
    words.add("port", &config.port.to_string());
    words.add("user", &config.user);
    words.add("application_name", name);
    words.add("connect_timeout", "3");
    words.add("keepalives_idle", "2");
    words.add("keepalives_interval", "1");
    words.add("keepalives_count", "3");
    words.add("tcp_user_timeout", "5000");
    if let Host::Tcp(_) = config.host {
        security(&config, &mut words);
    }
    let passfile_line = config.password.as_ref().map(|password| {
        let password = String::from_utf8_lossy(password.as_bytes()).into_owned();
        let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
        format!("*:{}:*:{}:{}\n", config.port, escape(&config.user), escape(&password))
    });
    // Always named: else libpq would look into the home of whoever runs PostgreSQL.
    if passfile_line.is_some() {
        words.add("passfile", &passfile.display().to_string());
    }
    Ok(Conninfo { words: words.0, passfile_line })
}

fn security(config: &Config, words: &mut Words) {
    words.add(
        "sslmode",
        match config.tls.mode {
            TlsMode::Disable => "disable",
            TlsMode::Prefer => "prefer",
            TlsMode::Require => "require",
            TlsMode::VerifyCa => "verify-ca",
            TlsMode::VerifyFull => "verify-full",
        },
    );
    if let Some(roots) = &config.tls.roots {
        words.add("sslrootcert", &roots.display().to_string());
    }
    if let Some(identity) = &config.tls.identity {
        words.add("sslcert", &identity.certificate.display().to_string());
        words.add("sslkey", &identity.key.display().to_string());
    }
    match config.tls.channel_binding {
        ChannelBinding::Disable => words.add("channel_binding", "disable"),
        ChannelBinding::Prefer => {}
        ChannelBinding::Require => words.add("channel_binding", "require"),
    }
}

struct Words(String);

impl Words {
    fn add(&mut self, key: &str, value: &str) {
        let plain = !value.is_empty()
            && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-:".contains(&byte));
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        let value = match plain {
            true => value.to_owned(),
            false => format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'")),
        };
        self.0.push_str(&format!("{key}={value}"));
    }
}

/// A folder for what PostgreSQL reads and may not lie in its data directory, owned as that is:
/// beside it, as a restore leaves it, or where nobody may write there, in the state directory.
pub(crate) fn aside(settings: &Settings) -> Outcome<PathBuf> {
    let data = settings.data()?;
    let mut name = data.file_name().unwrap_or_default().to_owned();
    name.push(".lifeboat");
    let beside = data.with_file_name(&name);
    let owner = owner_of(settings)?;
    match make_private(&beside, owner) {
        Ok(()) => Ok(beside),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let inside = settings.state.join("instances").join(name);
            make_private(&inside, owner).map(|()| inside.clone()).map_err(|e| failed(&inside, e))
        }
        Err(error) => Err(failed(&beside, error)),
    }
}

/// Whom the data directory belongs to; whom that around it belongs to before there is one.
pub(crate) fn owner_of(settings: &Settings) -> Outcome<(u32, u32)> {
    let data = settings.data()?;
    let around = data.ancestors().find_map(|folder| std::fs::metadata(folder).ok());
    around.map(|found| (found.uid(), found.gid())).ok_or_else(|| {
        Failure::new(Code::DataDirectoryInvalid, format!("cannot look at {}", data.display()))
    })
}

/// Gives a file or folder to the owner of the data directory.
pub(crate) fn give(settings: &Settings, path: &Path) -> Outcome<()> {
    if !nix::unistd::Uid::effective().is_root() {
        return Ok(());
    }
    let (user, group) = owner_of(settings)?;
    lchown(path, Some(user), Some(group)).map_err(|error| failed(path, error))
}

fn make_private(path: &Path, (user, group): (u32, u32)) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if nix::unistd::Uid::effective().is_root() {
        lchown(path, Some(user), Some(group))?;
    }
    Ok(())
}

/// Writes a small file in one step, of mode 0600 and of the owner of its folder. A file that says
/// so already is left alone; whether it was written.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Outcome<bool> {
    match std::fs::read(path).is_ok_and(|before| before == bytes) {
        true => Ok(false),
        false => write_new(path, bytes).map(|()| true),
    }
}

/// The same, whatever the file says now.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let attempt = || -> std::io::Result<()> {
        let folder = path.parent().unwrap_or_else(|| Path::new("/"));
        let owner = std::fs::metadata(folder)?;
        let mut staged = path.as_os_str().to_owned();
        staged.push(".new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
        file.write_all(bytes)?;
        if file.metadata()?.uid() != owner.uid() {
            fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
        file.sync_all()?;
        std::fs::rename(&staged, path)?;
        File::open(folder)?.sync_all()
    };
    attempt().map_err(|error| failed(path, error))
}

/// Removes a file durably; one that is not there is as good.
pub(crate) fn remove(path: &Path) -> Outcome<()> {
    let attempt = || -> std::io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        }
        File::open(path.parent().unwrap_or_else(|| Path::new("/")))?.sync_all()
    };
    attempt().map_err(|error| failed(path, error))
}

pub(crate) fn failed(path: &Path, error: std::io::Error) -> Failure {
    Failure::new(Code::LocalFile, format!("cannot write {}", path.display()))
        .because(error)
        .hint("See that this user can write there, and that the disk has room.")
}
