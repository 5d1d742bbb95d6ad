//! libpq's connection strings: `host=db.east user=lifeboat sslmode=verify-full`.

use std::borrow::Cow;
use std::iter::Peekable;
use std::path::PathBuf;
use std::str::{Chars, FromStr};
use std::time::Duration;

use url::Url;
use zeroize::Zeroizing;

use super::{ChannelBinding, Config, Host, Identity, Keepalive, Methods, Password, TlsMode};
use crate::Error;

/// Where Debian's and most other servers put their socket.
const SOCKETS: &str = "/var/run/postgresql";

impl Config {
    /// Reads a connection string of libpq: `key=value ...`, or a URI. An unknown key is an error:
    /// what it asks for may be needed for safety.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let uri = text.starts_with("postgresql://") || text.starts_with("postgres://");
        let pairs = if uri { uri_pairs(text) } else { pairs(text) };
        let mut config = Self::new(Host::Socket(PathBuf::from(SOCKETS)), "");
        let mut parts = Parts::default();
        for (key, value) in pairs? {
            config.set(&key, value, &mut parts)?;
        }
        if config.user.is_empty() {
            config.user = account()?;
        }
        config.tls.identity = match (parts.certificate, parts.key) {
            (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
            (None, None) => None,
            _ => return Err(invalid("sslcert and sslkey belong together")),
        };
        if parts.system_roots && config.tls.mode != TlsMode::VerifyFull {
            // Anybody can have a certificate of a public authority: only the name tells.
            return Err(invalid("sslrootcert=system needs sslmode=verify-full"));
        }
        if config.tls.mode == TlsMode::VerifyCa && config.tls.roots.is_none() {
            return Err(invalid("sslmode=verify-ca needs sslrootcert"));
        }
        Ok(config)
    }

    fn set(&mut self, key: &str, value: Zeroizing<String>, parts: &mut Parts) -> Result<(), Error> {
        let text = || value.as_str().to_owned();
        match key {
            "host" if value.contains(',') => {
                return Err(invalid("name one host: a stream comes from one server"));
            }
            "host" if value.starts_with('/') => self.host = Host::Socket(PathBuf::from(text())),
            "host" if value.is_empty() => {}
            "host" => self.host = Host::Tcp(text()),
            "hostaddr" => {
                self.address = Some(word(key, &value)?);
                // Without a host the address is the name.
                if let Host::Socket(_) = self.host {
                    self.host = Host::Tcp(text());
                }
            }
            "port" => self.port = word(key, &value)?,
            "user" => self.user = text(),
            "password" => self.password = Some(Password::new(value)),
            "application_name" => self.application_name = text(),
            "options" => self.options = Some(text()),
            "dbname" => self.database = Some(text()),
            // These have no meaning for a replication session.
            "replication" | "client_encoding" | "fallback_application_name" => {}
            "connect_timeout" => {
                self.connect_timeout = match word::<u32>(key, &value)? {
                    0 => Duration::MAX,
                    seconds => Duration::from_secs(u64::from(seconds)),
                }
            }
            "keepalives" => {
                self.keepalive = (word::<u8>(key, &value)? != 0).then(Keepalive::default)
            }
            "keepalives_idle" => self.keepalive_mut().idle = seconds(key, &value)?,
            "keepalives_interval" => self.keepalive_mut().interval = seconds(key, &value)?,
            "keepalives_count" => self.keepalive_mut().count = word(key, &value)?,
            _ => return self.set_security(key, &value, parts),
        }
        Ok(())
    }

    fn set_security(&mut self, key: &str, value: &str, parts: &mut Parts) -> Result<(), Error> {
        let tls = &mut self.tls;
        match (key, value) {
            ("sslmode", "disable") => tls.mode = TlsMode::Disable,
            ("sslmode", "prefer") => tls.mode = TlsMode::Prefer,
            ("sslmode", "require") => tls.mode = TlsMode::Require,
            ("sslmode", "verify-ca") => tls.mode = TlsMode::VerifyCa,
            ("sslmode", "verify-full") => tls.mode = TlsMode::VerifyFull,
            ("sslrootcert", "system") => parts.system_roots = true,
            ("sslrootcert", path) => tls.roots = Some(PathBuf::from(path)),
            ("sslcert", path) => parts.certificate = Some(PathBuf::from(path)),
            ("sslkey", path) => parts.key = Some(PathBuf::from(path)),
            ("channel_binding", "disable") => tls.channel_binding = ChannelBinding::Disable,
            ("channel_binding", "prefer") => tls.channel_binding = ChannelBinding::Prefer,
            ("channel_binding", "require") => tls.channel_binding = ChannelBinding::Require,
            ("require_auth", list) => self.methods = methods(list)?,
            ("sslmode" | "channel_binding", _) => {
                return Err(invalid(format!("the value of {key} is not one that can be used")));
            }
            _ => return Err(invalid(format!("the key {key:?} is not known here"))),
        }
        Ok(())
    }

    fn keepalive_mut(&mut self) -> &mut Keepalive {
        self.keepalive.get_or_insert_default()
    }
}

/// What only makes sense together.
#[derive(Default)]
struct Parts {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    system_roots: bool,
}

fn methods(list: &str) -> Result<Methods, Error> {
    let mut methods = Methods { none: false, scram: false, md5: false, cleartext: false };
    for method in list.split(',').map(str::trim) {
        match method {
            "none" => methods.none = true,
            "scram-sha-256" => methods.scram = true,
            "md5" => methods.md5 = true,
            "password" => methods.cleartext = true,
            _ => return Err(invalid("require_auth takes none, scram-sha-256, md5 and password")),
        }
    }
    Ok(methods)
}

type Pairs = Vec<(String, Zeroizing<String>)>;

/// The pairs of `postgresql://user:password@host:port/database?key=value`.
fn uri_pairs(text: &str) -> Result<Pairs, Error> {
    // The error of the parser may repeat the text, which may hold a password.
    let unreadable = || invalid("a connection URI cannot be read");
    let uri = Url::parse(text).map_err(|_| unreadable())?;
    let decode = |text: &str| {
        let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
        decoded.map(|text| Zeroizing::new(text.into_owned())).map_err(|_| unreadable())
    };
    let mut pairs = Vec::new();
    if let Some(host) = uri.host_str() {
        // An IPv6 address stands in brackets.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        pairs.push(("host".to_owned(), decode(host)?));
    }
    if let Some(port) = uri.port() {
        pairs.push(("port".to_owned(), Zeroizing::new(port.to_string())));
    }
    if !uri.username().is_empty() {
        pairs.push(("user".to_owned(), decode(uri.username())?));
    }
    if let Some(password) = uri.password() {
        pairs.push(("password".to_owned(), decode(password)?));
    }
    let database = uri.path().trim_start_matches('/');
    if !database.is_empty() {
        pairs.push(("dbname".to_owned(), decode(database)?));
    }
    for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(unreadable)?;
        pairs.push((decode(key)?.to_string(), decode(value)?));
    }
    Ok(pairs)
}

/// The pairs of a connection string. Values may be quoted; a backslash takes the next letter as
/// it is. Messages never repeat a value: it may be a password.
fn pairs(text: &str) -> Result<Pairs, Error> {
    let mut letters = text.chars().peekable();
    let mut pairs = Vec::new();
    loop {
        skip_blanks(&mut letters);
        if letters.peek().is_none() {
            return Ok(pairs);
        }
        let mut key = String::new();
        while let Some(letter) = letters.next_if(|it| *it != '=' && !it.is_whitespace()) {
            key.push(letter);
        }
        skip_blanks(&mut letters);
        if letters.next() != Some('=') {
            return Err(invalid("a connection string needs `=` after each key"));
        }
        skip_blanks(&mut letters);
        pairs.push((key, value(&mut letters)?));
    }
}

fn value(letters: &mut Peekable<Chars<'_>>) -> Result<Zeroizing<String>, Error> {
    let quoted = letters.next_if_eq(&'\'').is_some();
    let mut value = Zeroizing::new(String::new());
    loop {
        let letter = match letters.peek() {
            None if quoted => return Err(invalid("a quote of a connection string is not closed")),
            None => return Ok(value),
            Some('\'') if quoted => {
                letters.next();
                return Ok(value);
            }
            Some(blank) if !quoted && blank.is_whitespace() => return Ok(value),
            Some('\\') => {
                letters.next();
                letters.next()
            }
            Some(_) => letters.next(),
        };
        value.extend(letter);
    }
}

fn skip_blanks(letters: &mut Peekable<Chars<'_>>) {
    while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
}

fn word<T: FromStr>(key: &str, value: &str) -> Result<T, Error> {
    value.trim().parse().map_err(|_| invalid(format!("the value of {key} cannot be read")))
}

fn seconds(key: &str, value: &str) -> Result<Duration, Error> {
    Ok(Duration::from_secs(word::<u32>(key, value)?.max(1).into()))
}

/// libpq's default role: the account that this process runs as.
fn account() -> Result<String, Error> {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective());
    let user = user.ok().flatten().map(|user| user.name);
    user.ok_or_else(|| invalid("a connection string needs `user=`: this account has no name"))
}

fn invalid(what: impl Into<Cow<'static, str>>) -> Error {
    Error::Config(what.into())
}
