//! Connection strings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use crate::{ChannelBinding, Config, Host, Methods, TlsMode};

fn refused(text: &str) -> String {
    Config::parse(text).unwrap_err().to_string()
}

#[test]
fn the_usual_string() {
    let config = Config::parse("host=/run/postgresql port=5433 user=postgres").unwrap();
    assert_eq!(config.host, Host::Socket(PathBuf::from("/run/postgresql")));
    assert_eq!((config.port, config.user.as_str()), (5433, "postgres"));
    assert_eq!(config.place(), "/run/postgresql:5433");
}

#[test]
fn all_keys() {
    let config = Config::parse(
        "host=db.east hostaddr=10.1.0.10 port=6000 user='a \\'b' password = 'x y' dbname=z
         application_name=east options='-c wal_sender_timeout=5s' connect_timeout=3
         keepalives_idle=7 keepalives_interval=8 keepalives_count=9 sslmode=verify-full
         sslrootcert=/etc/root.crt sslcert=/etc/a.crt sslkey=/etc/a.key channel_binding=require
         require_auth=scram-sha-256,md5",
    )
    .unwrap();
    assert_eq!(config.host, Host::Tcp("db.east".to_owned()));
    assert_eq!(config.address.unwrap().to_string(), "10.1.0.10");
    assert_eq!(config.user, "a 'b");
    assert_eq!(config.password.unwrap().as_bytes(), b"x y");
    assert_eq!(config.application_name, "east");
    assert_eq!(config.options.as_deref(), Some("-c wal_sender_timeout=5s"));
    assert_eq!(config.connect_timeout, Duration::from_secs(3));
    let keepalive = config.keepalive.unwrap();
    assert_eq!((keepalive.idle, keepalive.count), (Duration::from_secs(7), 9));
    assert_eq!(config.tls.mode, TlsMode::VerifyFull);
    assert_eq!(config.tls.roots.as_deref(), Some(Path::new("/etc/root.crt")));
    assert_eq!(config.tls.identity.unwrap().key, Path::new("/etc/a.key"));
    assert_eq!(config.tls.channel_binding, ChannelBinding::Require);
    assert_eq!(config.methods, Methods { none: false, scram: true, md5: true, cleartext: false });
}

#[test]
fn uris() {
    let uri = "postgresql://me:p%40ss@db.east:5433/any?sslmode=require&application_name=a%20b";
    let config = Config::parse(uri).unwrap();
    assert_eq!(config.place(), "db.east:5433");
    assert_eq!((config.user.as_str(), config.database.as_deref()), ("me", Some("any")));
    assert_eq!(config.password.unwrap().as_bytes(), b"p@ss");
    assert_eq!(config.tls.mode, TlsMode::Require);
    assert_eq!(config.application_name, "a b");
    let config = Config::parse("postgres://me@%2Frun%2Fpostgresql").unwrap();
    assert_eq!(config.host, Host::Socket(PathBuf::from("/run/postgresql")));
    let config = Config::parse("postgres://me@[::1]:5433/").unwrap();
    assert_eq!(config.host, Host::Tcp("::1".to_owned()));
    assert!(refused("postgres://a:hidden@[").contains("URI"));
}

#[test]
fn defaults_are_those_of_libpq() {
    let config = Config::parse("").unwrap();
    assert_eq!(config.host, Host::Socket(PathBuf::from("/var/run/postgresql")));
    let account = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap().unwrap();
    assert_eq!(config.user, account.name);
    assert_eq!(config.tls.mode, TlsMode::Prefer);
    assert_eq!(config.methods, Methods { none: true, scram: true, md5: false, cleartext: false });
    assert_eq!(Config::parse("connect_timeout=0").unwrap().connect_timeout, Duration::MAX);
    assert!(Config::parse("keepalives=0").unwrap().keepalive.is_none());
}

#[test]
fn what_would_weaken_or_surprise_is_refused() {
    assert!(refused("sslmode=allow").contains("sslmode"));
    assert!(refused("sslmode=verify-ca").contains("sslrootcert"));
    assert!(refused("sslmode=require sslrootcert=system").contains("verify-full"));
    assert!(refused("sslcert=/a").contains("sslkey"));
    assert!(refused("sslcrl=/a").contains("sslcrl"));
    assert!(refused("host=a,b").contains("one host"));
    assert!(refused("require_auth=!md5").contains("require_auth"));
    assert!(refused("user=x password='open").contains("quote"));
    assert!(refused("user").contains('='));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_and_a_password_never_shown(text in "[a-z=' \\\\]{0,60}") {
        let _ = Config::parse(&text);
        let _ = Config::parse(&format!("postgres://{text}"));
        let secret = format!("password=QQQ{} {text}", text.replace([' ', '\'', '\\'], ""));
        match Config::parse(&secret) {
            Ok(config) => {
                let shown = format!("{config:?}");
                prop_assert!(!shown.contains("QQQ"));
            }
            Err(error) => prop_assert!(!error.to_string().contains("QQQ")),
        }
    }
}
