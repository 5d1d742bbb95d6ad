//! TLS and passwords with real servers.

use std::fs;
use std::path::PathBuf;

use lifeboat_environment::Environment;
use lifeboat_telemetry::Code;
use lifeboat_testkit::postgres::Cluster;

use super::transcript::{PASSWORD, ROLE};
use super::{server, streams};
use crate::{Condition, Config, Connection, Error, Start, System};

fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/tls").join(name)
}

/// A server with this certificate; `rule` is the end of pg_hba.conf's line for the role.
fn serve(major: u32, certificate: Option<&str>, encryption: &str, rule: &str) -> Cluster {
    let builder = Cluster::builder(major).tcp();
    let mut cluster = builder.setting(format!("password_encryption = '{encryption}'"));
    if certificate.is_some() {
        cluster = cluster.setting("ssl = on").setting("ssl_ca_file = 'root.crt'");
    }
    let mut cluster = cluster.create().unwrap();
    if let Some(name) = certificate {
        for (from, to) in [
            (format!("{name}.crt"), "server.crt"),
            (format!("{name}.key"), "server.key"),
            ("ca.crt".to_owned(), "root.crt"),
        ] {
            let content = fs::read(testdata(&from)).unwrap();
            lifeboat_testkit::scratch::write(&cluster.data().join(to), content).unwrap();
        }
    }
    let hba = cluster.data().join("pg_hba.conf");
    let kind = if rule == "cert" { "hostssl" } else { "host" };
    let rules = format!("local all all trust\n{kind} replication {ROLE} 127.0.0.1/32 {rule}\n");
    lifeboat_testkit::scratch::write(&hba, rules).unwrap();
    cluster.start().unwrap();
    cluster.psql(&format!("CREATE ROLE {ROLE} REPLICATION LOGIN PASSWORD '{PASSWORD}'")).unwrap();
    cluster
}

fn config(cluster: &Cluster, more: &str) -> Config {
    let port = cluster.port();
    let known = format!("hostaddr=127.0.0.1 port={port} user={ROLE} password='{PASSWORD}'");
    let more = more.replace("DIR", testdata("").to_str().unwrap());
    Config::parse(&format!("host=db.test {known} {more}")).unwrap()
}

async fn connect(cluster: &Cluster, more: &str) -> Result<Connection, Error> {
    let mut connection = Connection::open(&config(cluster, more), &Environment::system()).await?;
    connection.identify().await?;
    Ok(connection)
}

async fn untrusted(cluster: &Cluster, more: &str) -> String {
    let error = connect(cluster, more).await.unwrap_err();
    let failure = error.at("db.test");
    assert_eq!(failure.code(), Code::ServerUntrusted, "{failure}");
    failure.full_message()
}

fn encrypted(cluster: &Cluster) -> String {
    cluster
        .psql(
            "SELECT s.ssl FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
               WHERE a.backend_type = 'walsender'",
        )
        .unwrap()
}

/// The way that receivers go: TLS, channel binding, much data, many acknowledgements.
#[tokio::test]
async fn pg18_bytes_over_tls_are_those_of_pg_wal() {
    let cluster = serve(18, Some("server"), "scram-sha-256", "scram-sha-256");
    let bound = "sslmode=verify-full sslrootcert=DIR/ca.crt channel_binding=require";
    let mut connection = connect(&cluster, bound).await.unwrap();
    let System { flushed: start, timeline, .. } = connection.identify().await.unwrap();
    cluster
        .psql("CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 200000) n")
        .unwrap();
    let asked = Start { slot: None, lsn: start, timeline };
    let mut stream = connection.start(asked).await.unwrap();
    let wal = streams::follow(&mut stream, start, server::flushed(&cluster)).await;
    assert!(wal.len() > 10 << 20);
    let folder = cluster.data().join("pg_wal");
    assert!(wal == streams::segments(&folder, timeline, start, wal.len()));
}

/// Each sslmode against a right and a wrong certificate, and SCRAM bound to the TLS session.
async fn tls(major: u32) {
    let cluster = serve(major, Some("server"), "scram-sha-256", "scram-sha-256");
    let verified = "sslmode=verify-full sslrootcert=DIR/ca.crt";
    let bound = format!("{verified} channel_binding=require require_auth=scram-sha-256");
    let connection = connect(&cluster, &bound).await.unwrap();
    assert_eq!(encrypted(&cluster), "t");
    drop(connection);

    connect(&cluster, &format!("{verified} channel_binding=disable")).await.unwrap();
    let named = untrusted(&cluster, &format!("host=localhost {verified}")).await;
    assert!(named.contains("localhost"), "{named}");
    connect(&cluster, "host=localhost sslmode=verify-ca sslrootcert=DIR/ca.crt").await.unwrap();
    untrusted(&cluster, "sslmode=verify-ca sslrootcert=DIR/other.crt").await;
    untrusted(&cluster, "sslmode=verify-full sslrootcert=DIR/other.crt").await;
    // The system's authorities have not signed it.
    untrusted(&cluster, "sslmode=verify-full").await;
    // Roots that are named are used; without them `require` asks nobody, as in libpq.
    untrusted(&cluster, "sslmode=require sslrootcert=DIR/other.crt").await;
    connect(&cluster, "host=localhost sslmode=require channel_binding=require").await.unwrap();
    connect(&cluster, "").await.unwrap();
    connect(&cluster, "sslmode=disable").await.unwrap();
    untrusted(&cluster, "sslmode=disable channel_binding=require").await;

    let error = connect(&cluster, &format!("{verified} password=wrong")).await.unwrap_err();
    assert_eq!(error.condition(), Some(Condition::PasswordWrong));
    let failure = error.at("db.test");
    assert_eq!(failure.code(), Code::ClusterPermission);
    assert!(!format!("{failure:?}").contains("wrong"));
}

#[tokio::test]
async fn pg15_tls() {
    tls(15).await;
}

#[tokio::test]
async fn pg16_tls() {
    tls(16).await;
}

#[tokio::test]
async fn pg18_tls() {
    tls(18).await;
}

#[tokio::test]
async fn pg15_channel_binding_follows_the_hash_of_the_certificate() {
    let cluster = serve(15, Some("server-sha384"), "scram-sha-256", "scram-sha-256");
    let bound = "sslmode=verify-full sslrootcert=DIR/ca.crt channel_binding=require";
    connect(&cluster, bound).await.unwrap();
}

#[tokio::test]
async fn pg15_a_certificate_that_stands_alone_can_be_pinned() {
    let cluster = serve(15, Some("alone"), "scram-sha-256", "scram-sha-256");
    let pinned = "sslmode=verify-full sslrootcert=DIR/alone.crt channel_binding=require";
    connect(&cluster, pinned).await.unwrap();
    untrusted(&cluster, &format!("{pinned} host=localhost")).await;
    untrusted(&cluster, "sslmode=verify-ca sslrootcert=DIR/ca.crt").await;
}

#[tokio::test]
async fn pg15_an_expired_certificate_is_refused() {
    let cluster = serve(15, Some("expired"), "scram-sha-256", "scram-sha-256");
    for roots in ["ca.crt", "expired.crt"] {
        let message =
            untrusted(&cluster, &format!("sslmode=verify-ca sslrootcert=DIR/{roots}")).await;
        assert!(message.contains("expired"), "{message}");
    }
}

#[tokio::test]
async fn pg15_a_certificate_of_ours_is_shown() {
    let cluster = serve(15, Some("server"), "scram-sha-256", "cert");
    let verified = "sslmode=verify-full sslrootcert=DIR/ca.crt";
    let error = connect(&cluster, verified).await.unwrap_err();
    assert_eq!(error.condition(), Some(Condition::NotPermitted), "{error}");
    // Keys in a working tree are readable for all; this one must not be.
    let key = cluster.scratch().file("client.key", fs::read(testdata("client.key")).unwrap());
    let ours = format!("{verified} sslcert=DIR/client.crt sslkey={}", key.unwrap().display());
    connect(&cluster, &ours).await.unwrap();
    let open = cluster.scratch().join("client.key");
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert!(untrusted(&cluster, &ours).await.contains("0600"));
}

#[tokio::test]
async fn pg15_weak_passwords_need_a_word_and_tls() {
    for (rule, word) in [("md5", "md5"), ("password", "password")] {
        let cluster = serve(15, Some("server"), "md5", rule);
        untrusted(&cluster, "sslmode=require").await;
        let asked = format!("sslmode=require require_auth={word}");
        connect(&cluster, &asked).await.unwrap();
        untrusted(&cluster, &format!("{asked} channel_binding=require")).await;
        untrusted(&cluster, &format!("sslmode=disable require_auth={word}")).await;
    }
}

#[tokio::test]
async fn pg15_a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let cluster = serve(15, None, "scram-sha-256", "scram-sha-256");
    assert!(untrusted(&cluster, "sslmode=require").await.contains("no TLS"));
    untrusted(&cluster, "sslmode=verify-full sslrootcert=DIR/ca.crt").await;
    let connection = connect(&cluster, "").await.unwrap();
    assert_eq!(encrypted(&cluster), "f");
    drop(connection);
    let error = connect(&cluster, "require_auth=none").await.unwrap_err();
    assert!(error.to_string().contains("excludes"), "{error}");
}
