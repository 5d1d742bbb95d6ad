//! Where the server is, who asks, and what must be proved before WAL flows.

mod parse;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

/// How to reach a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it is.
    pub host: Host,
    /// Its port; names the socket too.
    pub port: u16,
    /// Dial this address instead of asking for the host's; the name is still checked.
    pub address: Option<IpAddr>,
    /// The role.
    pub user: String,
    /// The database: for sessions that run SQL. A replication session has none.
    pub database: Option<String>,
    /// Its password.
    pub password: Option<Password>,
    /// What the server may ask of us.
    pub methods: Methods,
    /// Encryption; a Unix socket has none.
    pub tls: Tls,
    /// What `synchronous_standby_names` matches.
    pub application_name: String,
    /// Settings for the session, as in `-c wal_sender_timeout=10s`.
    pub options: Option<String>,
    /// How long connecting may take, authentication included.
    pub connect_timeout: Duration,
    /// TCP keep-alives; `None` leaves them off.
    pub keepalive: Option<Keepalive>,
}

impl Config {
    /// libpq's defaults for this host and role, except that weak passwords need a word.
    pub fn new(host: Host, user: impl Into<String>) -> Self {
        Self {
            host,
            port: 5432,
            address: None,
            user: user.into(),
            database: None,
            password: None,
            methods: Methods::default(),
            tls: Tls::default(),
            application_name: "lifeboat".to_owned(),
            options: None,
            connect_timeout: Duration::from_secs(10),
            keepalive: Some(Keepalive::default()),
        }
    }

    /// Host and port, for messages.
    pub fn place(&self) -> String {
        match &self.host {
            Host::Tcp(name) => format!("{name}:{}", self.port),
            Host::Socket(folder) => format!("{}:{}", folder.display(), self.port),
        }
    }
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name or an address.
    Tcp(String),
    /// The folder of its Unix socket.
    Socket(PathBuf),
}

/// A password. It is wiped when dropped and never printed.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// A password.
    pub fn new(text: impl Into<Zeroizing<String>>) -> Self {
        Self(text.into())
    }

    /// Its bytes, for a library that logs in.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password")
    }
}

/// What the server may ask for; libpq's `require_auth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Methods {
    /// Nothing: the server trusts us, or took the certificate or the account for proof.
    pub none: bool,
    /// SCRAM-SHA-256.
    pub scram: bool,
    /// An MD5 digest; over TLS or a Unix socket only.
    pub md5: bool,
    /// The password itself; over TLS or a Unix socket only.
    pub cleartext: bool,
}

impl Default for Methods {
    fn default() -> Self {
        Self { none: true, scram: true, md5: false, cleartext: false }
    }
}

/// Encryption and whom to believe.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// How much is asked for.
    pub mode: TlsMode,
    /// The certificates to trust (PEM); the system's if none is named.
    pub roots: Option<PathBuf>,
    /// The certificate to show.
    pub identity: Option<Identity>,
    /// Whether the password's proof must be bound to this TLS session.
    pub channel_binding: ChannelBinding,
}

/// libpq's `sslmode`. `allow` is missing on purpose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// No TLS.
    Disable,
    /// TLS if the server has it; nobody is checked.
    #[default]
    Prefer,
    /// TLS. The certificate is checked only if roots are named.
    Require,
    /// TLS, and one of the roots signed the certificate.
    VerifyCa,
    /// TLS, and the certificate is made out for the host's name.
    VerifyFull,
}

/// A client certificate and its key, both PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The chain, our own certificate first.
    pub certificate: PathBuf,
    /// The key, without passphrase.
    pub key: PathBuf,
}

/// libpq's `channel_binding`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// If the server can.
    #[default]
    Prefer,
    /// Always: nothing but SCRAM over TLS with binding is taken for a proof.
    Require,
}

/// TCP keep-alives: they find a host that is gone while nothing is sent.
#[derive(Debug, Clone, Copy)]
pub struct Keepalive {
    /// Quiet time before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes that end the connection.
    pub count: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(10), interval: Duration::from_secs(5), count: 3 }
    }
}
