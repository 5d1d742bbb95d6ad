use super::*;
use crate::process::run;

/// initdb, start, one query, stop.
fn starts(major: u32) {
    let mut cluster = Cluster::builder(major).start().unwrap();
    let version = cluster.psql("SELECT version()").unwrap();
    assert!(version.starts_with(&format!("PostgreSQL {major}.")), "{version}");
    assert_eq!(cluster.psql("SHOW data_checksums").unwrap(), "on");
    cluster.stop(Stop::Fast).unwrap();
    assert!(cluster.psql("SELECT 1").is_err());
}

#[test]
fn pg13_starts() {
    starts(13);
}

#[test]
fn pg14_starts() {
    starts(14);
}

#[test]
fn pg15_starts() {
    starts(15);
}

#[test]
fn pg16_starts() {
    starts(16);
}

#[test]
fn pg17_starts() {
    starts(17);
}

#[test]
fn pg18_starts() {
    starts(18);
}

#[test]
fn an_unknown_version_is_an_error_not_a_skip() {
    assert!(Installation::find(12).is_err());
}

#[test]
fn pg15_is_built_as_asked() {
    let builder = Cluster::builder(15).checksums(false).wal_segment_size_mb(4).encoding("LATIN1");
    let cluster = builder.setting("work_mem = 7MB").tcp().start().unwrap();
    let shown = |name: &str| cluster.psql(&format!("SHOW {name}")).unwrap();
    assert_eq!(shown("data_checksums"), "off");
    assert_eq!(shown("wal_segment_size"), "4MB");
    assert_eq!(shown("server_encoding"), "LATIN1");
    assert_eq!(shown("work_mem"), "7MB");
    std::net::TcpStream::connect(("127.0.0.1", cluster.port())).unwrap();
}

#[test]
fn pg18_can_do_without_checksums() {
    let cluster = Cluster::builder(18).checksums(false).start().unwrap();
    assert_eq!(cluster.psql("SHOW data_checksums").unwrap(), "off");
}

#[test]
fn pg15_debian_layout_keeps_configuration_outside() {
    let cluster = Cluster::builder(15).debian().start().unwrap();
    assert!(!cluster.data().join("postgresql.conf").exists());
    let file = cluster.psql("SHOW config_file").unwrap();
    assert!(file.ends_with("/etc/15/main/postgresql.conf"), "{file}");
    let drop_in = cluster.configuration().with_file_name("conf.d").join("x.conf");
    crate::scratch::write(&drop_in, "work_mem = 9MB\n").unwrap();
    cluster.psql("SELECT pg_reload_conf()").unwrap();
    let mut cluster = cluster;
    cluster.wait_for("SHOW work_mem", "9MB").unwrap();
}

#[test]
fn pg15_recovers_after_each_way_to_die() {
    let mut cluster = Cluster::builder(15).start().unwrap();
    cluster.psql("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").unwrap();
    cluster.stop(Stop::Immediate).unwrap();
    cluster.start().unwrap();
    cluster.psql("INSERT INTO t VALUES (2)").unwrap();
    cluster.kill9().unwrap();
    cluster.start().unwrap();
    cluster.restart().unwrap();
    assert_eq!(cluster.psql("SELECT sum(n) FROM t").unwrap(), "3");
    assert!(cluster.log().contains("redo done"));
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let mut cluster = Cluster::builder(15).setting("work_mem = nonsense").create().unwrap();
    let error = cluster.start().unwrap_err().to_string();
    assert!(error.contains("work_mem"), "{error}");
}

#[test]
fn pg15_standby_follows_with_its_own_tablespace() {
    let mut primary = Cluster::builder(15).start().unwrap();
    primary.tablespace("fast").unwrap();
    primary.psql("CREATE TABLE t (n int) TABLESPACE fast").unwrap();
    let mut standby = primary.standby().unwrap();
    primary.psql("INSERT INTO t SELECT generate_series(1, 1000)").unwrap();
    primary.wait_for_replay(&mut standby).unwrap();
    assert_eq!(standby.psql("SELECT count(*) FROM t").unwrap(), "1000");
    assert_eq!(standby.psql("SELECT pg_is_in_recovery()").unwrap(), "t");
}

#[test]
fn pg15_pgbench_runs_and_stops_with_its_handle() {
    let cluster = Cluster::builder(15).start().unwrap();
    cluster.pgbench(["-i", "-s", "1", "-q"]).unwrap();
    let load = cluster.pgbench_in_background(["-T", "1000", "-n"]).unwrap();
    let mut cluster = cluster;
    cluster.wait_for("SELECT count(*) > 10 FROM pgbench_history", "t").unwrap();
    drop(load);
    cluster
        .wait_for("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'", "0")
        .unwrap();
}

#[test]
fn pg15_a_copied_directory_is_a_cluster_beside_its_source() {
    let mut source = Cluster::builder(15).start().unwrap();
    source.psql("CREATE TABLE t AS SELECT 42 AS n").unwrap();
    source.stop(Stop::Fast).unwrap();
    let place = crate::scratch::Scratch::new().unwrap();
    let mut copy = std::process::Command::new("cp");
    copy.arg("-a").arg(source.data()).arg(place.join("copy"));
    run(&mut copy).unwrap().success().unwrap();
    source.start().unwrap();
    let mut restored = Cluster::over(15, place.join("copy")).unwrap();
    restored.start().unwrap();
    assert_eq!(restored.psql("SELECT n FROM t").unwrap(), "42");
}

#[test]
fn pg15_a_link_breaks_at_the_message_that_was_chosen() {
    let cluster = Cluster::builder(15).start().unwrap();
    let link = Link::to(&cluster).unwrap();
    let insert = || {
        let mut command = cluster.installation().client_command("psql").unwrap();
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c"]);
        command.arg("INSERT INTO t VALUES (1)").arg("-d").arg(link.connection());
        run(&mut command).unwrap()
    };
    cluster.psql("CREATE TABLE t (n int)").unwrap();
    insert().success().unwrap();
    // The beginning, the query, the end.
    assert_eq!(link.messages(), [0, b'Q', b'X']);
    for (cut, rows) in [(Cut::Before, "1"), (Cut::After, "2")] {
        link.mend();
        link.cut(1, cut);
        assert_ne!(insert().code, Some(0));
        assert!(!link.is_to_break());
        assert_eq!(cluster.psql("SELECT count(*) FROM t").unwrap(), rows, "{cut:?}");
    }
    link.mend();
    insert().success().unwrap();
}
