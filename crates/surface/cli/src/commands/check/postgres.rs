//! A database's node on this host: does it answer, may we back it up, does its WAL arrive.

mod command;

use lifeboat_backup::{ServerFacts, Source};
use lifeboat_cluster::ControlFile;
use lifeboat_cluster::control;
use lifeboat_model::DatabaseId;
use lifeboat_model::spec::{Database, Engine, PostgresNode, WalMode};
use lifeboat_repository::access::{Access, writer_path};
use lifeboat_repository::keys::WriterKey;
use lifeboat_telemetry::Outcome;
use lifeboat_wal::incarnation::{self, Marker};

use command::PushCommand;

use super::Lines;
use crate::site::Site;

/// Adds the lines about one database.
pub fn check(
    site: &Site<'_>,
    access: &Access<'_>,
    (id, database): (&DatabaseId, &Database),
    lines: &mut Lines,
) {
    lines.about(id.to_string());
    if database.engine != Engine::Postgres {
        return lines.not_tested("connection", "this version checks PostgreSQL servers only");
    }
    let node = match site.node(id, database) {
        Ok((_, node)) => node,
        Err(failure) => return lines.not_tested("connection", failure.message()),
    };
    let control = lines
        .need("data directory", control::read(&node.data_directory, access.environment))
        .inspect(|control| data_directory(node, control, lines));
    let opened = connect(access, node);
    let Some(source) = lines.need("connection", opened) else {
        return;
    };
    let facts = source.facts();
    let role = if facts.in_recovery { "standby" } else { "primary" };
    let place = source.connection().place();
    lines.pass("connection", format!("PostgreSQL {} at {place}, {role}", facts.major()));
    if let Some(control) = control {
        let same = source.check_identity(&node.data_directory, control.system.0);
        if lines.need("identity", same).is_some() {
            lines.pass("identity", "the server runs on this data directory");
        }
        may_write(site, (id, node), lines);
    }
    access.blocking.run(permissions(&source, lines));
    settings(facts, lines);
    archiving(site, (id, database, node), facts, lines);
    let pushes = PushCommand::find(&facts.archive_command).is_some();
    if database.wal.mode == WalMode::Archive && pushes {
        access.blocking.run(archiver(&source, lines));
        if let Some(every) = database.wal.every {
            access.blocking.run(archive_timeout(&source, every.duration().as_secs(), lines));
        }
    }
}

fn connect(access: &Access<'_>, node: &PostgresNode) -> Outcome<Source> {
    let connection = node.connection.resolve(access.environment)?;
    access.blocking.run(Source::open(&connection))
}

fn data_directory(node: &PostgresNode, control: &ControlFile, lines: &mut Lines) {
    let shown = node.data_directory.display();
    lines.pass("data directory", format!("{shown}, system identifier {}", control.system.0));
    if control.data_checksums {
        lines.pass("data checksums", "on");
    } else {
        lines.warn(
            "data checksums",
            "off: a page that the disk damaged cannot be told from a good one",
            "Stop the server once and run `pg_checksums --enable`.",
        );
    }
}

async fn permissions(source: &Source, lines: &mut Lines) {
    let functions = match source.facts().major() {
        15.. => ["pg_backup_start(text, boolean)", "pg_backup_stop(boolean)", "pg_switch_wal()"],
        _ => [
            "pg_start_backup(text, boolean, boolean)",
            "pg_stop_backup(boolean, boolean)",
            "pg_switch_wal()",
        ],
    };
    let mut missing = Vec::new();
    for function in functions {
        let query = format!("SELECT has_function_privilege('{function}', 'execute')::text");
        match source.connection().text(&query).await {
            Ok(answer) if answer == "true" => {}
            Ok(_) => missing.push(function),
            Err(failure) => return lines.failure("role", &failure),
        }
    }
    if missing.is_empty() {
        lines.pass("role", "may start and stop a backup");
    } else {
        let user = source.connection().text("SELECT current_user::text").await;
        let user = user.unwrap_or_else(|_| "the role".to_owned());
        let message = format!("{user} may not run {}", missing.join(", "));
        let grants =
            missing.iter().map(|name| format!("GRANT EXECUTE ON FUNCTION {name} TO {user};"));
        lines.fail("role", message, grants.collect::<Vec<_>>().join(" "));
    }
}

fn settings(facts: &ServerFacts, lines: &mut Lines) {
    if facts.wal_level == "minimal" {
        lines.fail("wal_level", "minimal", "Set wal_level = replica and restart the server.");
    } else {
        lines.pass("wal_level", facts.wal_level.clone());
    }
    if facts.full_page_writes {
        lines.pass("full_page_writes", "on");
    } else {
        let advice = "Set full_page_writes = on and reload.";
        lines.fail("full_page_writes", "off: pages may be torn in a backup", advice);
    }
    if facts.fsync {
        lines.pass("fsync", "on");
    } else {
        lines.warn("fsync", "off: a crash of this host may corrupt the cluster", "Set fsync = on.");
    }
}

fn archiving(
    site: &Site<'_>,
    (id, database, node): (&DatabaseId, &Database, &PostgresNode),
    facts: &ServerFacts,
    lines: &mut Lines,
) {
    if database.wal.mode == WalMode::Stream {
        return lines.not_tested("archiving", "wal.mode is stream: no archive_command is needed");
    }
    match (facts.archive_mode.as_str(), facts.in_recovery) {
        ("on" | "always", false) | ("always", true) => {
            lines.pass("archive_mode", facts.archive_mode.clone());
        }
        ("on", true) => lines.pass("archive_mode", "on, from the promotion of this standby"),
        (other, _) => {
            lines.fail("archive_mode", other, "Set archive_mode = on and restart the server.")
        }
    }
    let command = &facts.archive_command;
    let trouble = match PushCommand::find(command) {
        Some(push) => push.trouble(site, id, node),
        None if command.trim().is_empty() => Some("not set".to_owned()),
        None => Some(command.clone()),
    };
    match trouble {
        None => lines.pass("archive_command", command.clone()),
        Some(trouble) => {
            let line = archive_command(site, id, node);
            lines.fail("archive_command", trouble, format!("Set archive_command = '{line}'"));
        }
    }
}

/// Whether the cluster in the data directory may write into this archive.
fn may_write(site: &Site<'_>, (id, node): (&DatabaseId, &PostgresNode), lines: &mut Lines) {
    let database = id.to_string();
    let writer = WriterKey::load(&writer_path(&site.spec, &site.state)).ok();
    // Without a key or a binding the marker alone can forbid.
    let checked = match writer.as_ref().and_then(|writer| writer.stream(&database)) {
        Some(stream) => incarnation::check(&node.data_directory, &database, stream),
        None => match Marker::read(&node.data_directory) {
            Ok(Some(marker)) if !marker.granted => Err(incarnation::not_adopted(&marker)),
            read => read.map(drop),
        },
    };
    if lines.need("incarnation", checked).is_some() {
        lines.pass("incarnation", "this cluster may write into the archive");
    }
}

/// The line for postgresql.conf; its environment is the server's, so everything is spelt out.
fn archive_command(site: &Site<'_>, id: &DatabaseId, node: &PostgresNode) -> String {
    let program = std::env::current_exe()
        .map_or_else(|_| "lifeboat".to_owned(), |path| path.display().to_string());
    let (spec, here) = (site.origin.display(), &node.region);
    format!("{program} --spec {spec} --here {here} wal push \"%p\" --db {id}")
}

/// What PostgreSQL itself remembers of its archive_command.
async fn archiver(source: &Source, lines: &mut Lines) {
    const QUERY: &str = "
        SELECT CASE
          WHEN last_failed_time IS NOT NULL
               AND last_failed_time > coalesce(last_archived_time, '-infinity')
          THEN format('%s failed at %s', last_failed_wal, last_failed_time)
          WHEN last_archived_time IS NULL THEN 'nothing was archived yet'
          ELSE '' END
        FROM pg_stat_archiver";
    match source.connection().text(QUERY).await {
        Ok(trouble) if trouble.is_empty() => lines.pass("archiver", "the last segment arrived"),
        Ok(trouble) => lines.warn(
            "archiver",
            trouble,
            "Run `SELECT pg_switch_wal()` and look into the server's log.",
        ),
        Err(failure) => lines.failure("archiver", &failure),
    }
}

/// A quiet server closes a segment only when it is full, unless archive_timeout says otherwise.
async fn archive_timeout(source: &Source, every_seconds: u64, lines: &mut Lines) {
    const QUERY: &str = "SELECT setting FROM pg_settings WHERE name = 'archive_timeout'";
    match source.connection().text(QUERY).await.map(|text| text.parse::<u64>()) {
        Ok(Ok(seconds)) if (1..=every_seconds).contains(&seconds) => {
            lines.pass("archive_timeout", format!("{seconds} s"));
        }
        Ok(Ok(seconds)) => lines.warn(
            "archive_timeout",
            format!("{seconds} s, and the spec wants WAL every {every_seconds} s"),
            format!("Set archive_timeout = {every_seconds} and reload; 0 means never."),
        ),
        Ok(Err(_)) => lines.not_tested("archive_timeout", "the server's answer is no number"),
        Err(failure) => lines.failure("archive_timeout", &failure),
    }
}
