use lifeboat_telemetry::Code;
use lifeboat_testkit::postgres::Cluster;
use tokio_postgres::config::{Host as SessionHost, SslMode};

use super::{TlsMode, connect, connect_at, host_and_port, parse, probe, role_of, session};

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

/// The certificates that the replication protocol is tested with.
fn certificate(name: &str) -> std::path::PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../postgres/wire/testdata/tls");
    std::path::Path::new(folder).join(name)
}

#[tokio::test]
async fn pg15_a_server_far_away_must_prove_who_it_is() {
    let cluster = Cluster::builder(15).tcp().setting("ssl = on").create().unwrap();
    for name in ["server.crt", "server.key"] {
        let content = std::fs::read(certificate(name)).unwrap();
        lifeboat_testkit::scratch::write(&cluster.data().join(name), content).unwrap();
    }
    let mut cluster = cluster;
    cluster.start().unwrap();
    let address = format!("127.0.0.1:{}", cluster.port());
    let (roots, others) = (certificate("ca.crt"), certificate("alone.crt"));
    let known = |more: String| format!("host=/run/postgresql user=postgres dbname=postgres {more}");
    let signed = known(format!("sslmode=verify-ca sslrootcert={}", roots.display()));
    let connection = connect_at(&signed, &address).await.unwrap();
    let encrypted = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(connection.text(encrypted).await.unwrap(), "true");

    for doubtful in [
        known(format!("sslmode=verify-ca sslrootcert={}", others.display())),
        // Without a word the name counts, and this one is of another host.
        known(format!("sslrootcert={}", roots.display())),
    ] {
        let Err(failure) = connect_at(&doubtful, &address).await else {
            panic!("{doubtful} was believed");
        };
        assert_eq!(failure.code(), Code::ClusterUnreachable, "{failure}");
        assert!(failure.full_message().contains("certificate"), "{failure}");
    }
}

#[test]
fn a_probe_takes_no_password_along() {
    let config = parse("host=db.east user=app password=hunter2 sslmode=verify-full").unwrap();
    assert!(session(&config).get_password().is_some());
    let probe = probe(&config);
    assert_eq!((probe.get_password(), probe.get_ssl_mode()), (None, SslMode::Disable));
}

/// All processes of a server stop, as in a frozen container: its sockets stay open.
#[test]
fn pg15_a_frozen_server_is_not_waited_for_and_a_slow_one_is() {
    let cluster = Cluster::builder(15).start().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let every = std::time::Duration::from_millis(200);
    runtime.block_on(async {
        let connection = connect(&cluster.connection()).await.unwrap();
        let slow = connection.client().query_one("SELECT pg_sleep(2)::text", &[]);
        connection.wait(slow, every).await.unwrap().unwrap();

        let processes = lifeboat_testkit::process::tree(cluster.pid().unwrap());
        let all = |signal| {
            for process in &processes {
                nix::sys::signal::kill(*process, signal).unwrap();
            }
        };
        all(nix::sys::signal::Signal::SIGSTOP);
        let never = connection.client().query_one("SELECT 'here'", &[]);
        let waited = connection.wait(never, every).await.map(|answer| answer.is_ok());
        all(nix::sys::signal::Signal::SIGCONT);
        let failure = waited.unwrap_err();
        assert_eq!(failure.code(), Code::ClusterUnreachable);
        assert!(failure.full_message().contains("answers nothing"), "{failure}");
    });
}
