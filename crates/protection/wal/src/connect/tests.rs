use lifeboat_telemetry::Code;
use tokio_postgres::config::{Host as SessionHost, SslMode};

use super::{TlsMode, host_and_port, parse, role_of, session};

#[test]
fn a_session_is_what_the_string_says() {
    let config = parse("host=db.east port=6000 user=app dbname=shop sslmode=verify-full").unwrap();
    let session = session(&config);
    assert_eq!(session.get_hosts(), [SessionHost::Tcp("db.east".to_owned())]);
    assert_eq!(session.get_ports(), [6000]);
    assert_eq!((session.get_user(), session.get_dbname()), (Some("app"), Some("shop")));
    assert_eq!(session.get_ssl_mode(), SslMode::Require);
    assert_eq!(config.tls.mode, TlsMode::VerifyFull);
}

#[test]
fn what_cannot_be_read_is_refused_without_its_secrets() {
    let failure = parse("host=db user=app password=hunter2 sslmode=nonsense").unwrap_err();
    assert_eq!(failure.code(), Code::SpecInvalid);
    assert!(!failure.full_message().contains("hunter2"), "{failure}");
    for address in ["db.east", "db.east:", ":5432", "db.east:port"] {
        assert_eq!(host_and_port(address).unwrap_err().code(), Code::SpecInvalid, "{address}");
    }
    assert_eq!(host_and_port("[2001:db8::1]:5432").unwrap(), ("2001:db8::1", 5432));
}

#[test]
fn only_a_role_that_is_named_is_known() {
    assert_eq!(role_of("host=/run/postgresql user=app"), Some("app".to_owned()));
    assert_eq!(role_of("host=/run/postgresql"), None);
}
