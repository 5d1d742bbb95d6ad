//! The running server as the source of a backup: its facts, start and stop.

use std::path::{Path, PathBuf};

use lifeboat_model::{Lsn, Timeline};
use lifeboat_telemetry::{Code, Failure, Outcome, Reporter};
use lifeboat_wal::connect::{Connection, connect};

/// The oldest and newest major versions that this version knows.
const MAJORS: std::ops::RangeInclusive<u32> = 13..=18;

/// A session that holds a backup open.
pub struct Source {
    connection: Connection,
    facts: ServerFacts,
}

/// What the server says of itself.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// `server_version_num`.
    pub version: u32,
    /// `system_identifier`.
    pub system_identifier: u64,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// `data_directory`.
    pub data_directory: PathBuf,
    /// `config_file`, `hba_file`, `ident_file` where they are set.
    pub config_files: Vec<(String, PathBuf)>,
    /// Every file that settings were read from.
    pub included_files: Vec<PathBuf>,
    /// `wal_level`.
    pub wal_level: String,
    /// `archive_mode`.
    pub archive_mode: String,
    /// `archive_command`, or the library's name where one is used.
    pub archive_command: String,
    /// `full_page_writes`.
    pub full_page_writes: bool,
    /// `fsync`.
    pub fsync: bool,
    /// `wal_segment_size` in bytes.
    pub wal_segment_bytes: u32,
}

impl ServerFacts {
    /// The major version, as in 15.
    pub fn major(&self) -> u32 {
        self.version / 10_000
    }
}

/// What `pg_backup_start` said.
#[derive(Debug, Clone, Copy)]
pub struct Started {
    /// The start LSN.
    pub lsn: Lsn,
}

/// What `pg_backup_stop` said.
#[derive(Debug, Clone)]
pub struct Stopped {
    /// The stop LSN.
    pub lsn: Lsn,
    /// Contents for `backup_label`.
    pub backup_label: String,
    /// Contents for `tablespace_map`.
    pub tablespace_map: String,
}

impl Source {
    /// Connects and asks for everything that a backup depends on.
    pub async fn open(settings: &str) -> Outcome<Self> {
        let connection = connect(settings).await?;
        let facts = read_facts(&connection).await?;
        let major = facts.major();
        if !MAJORS.contains(&major) {
            let message = format!("PostgreSQL {major} at {} is not known", connection.place());
            return Err(Failure::new(Code::ClusterUnsupported, message)
                .hint("This version of lifeboat knows PostgreSQL 13 to 18."));
        }
        Ok(Self { connection, facts })
    }

    /// The server's facts.
    pub fn facts(&self) -> &ServerFacts {
        &self.facts
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Refuses a server that is not the one whose files will be read.
    pub fn check_identity(&self, data_directory: &Path, system_identifier: u64) -> Outcome<()> {
        let place = self.connection.place();
        let said = &self.facts.data_directory;
        let same = match (said.canonicalize(), data_directory.canonicalize()) {
            (Ok(said), Ok(own)) => said == own,
            _ => said == data_directory,
        };
        if !same || self.facts.system_identifier != system_identifier {
            let message = format!(
                "the server at {place} runs {} (system identifier {}), the spec names {} ({})",
                said.display(),
                self.facts.system_identifier,
                data_directory.display(),
                system_identifier,
            );
            return Err(Failure::new(Code::ClusterMismatch, message)
                .hint("Correct `data_directory` or `connection` of this node in the spec."));
        }
        Ok(())
    }

    /// Refuses settings under which a backup would not restore.
    pub fn check_settings(&self, archiving: bool, reporter: &Reporter) -> Outcome<()> {
        let facts = &self.facts;
        let refuse = |what: &str, hint: &str| {
            let message = format!("{what} at {}", self.connection.place());
            Err(Failure::new(Code::ClusterSettings, message).hint(hint))
        };
        if facts.wal_level == "minimal" {
            return refuse("wal_level is minimal", "Set wal_level = replica and restart.");
        }
        if !facts.fsync {
            // The files are read while the server runs: the backup itself is sound.
            reporter.warn(format!(
                "fsync is off at {}: a crash of its host may corrupt this cluster",
                self.connection.place(),
            ));
        }
        if !facts.full_page_writes {
            return refuse("full_page_writes is off", "Set full_page_writes = on and reload.");
        }
        let archives = facts.archive_mode != "off" && facts.archive_command != "(disabled)";
        if archiving && (!archives || facts.archive_command.trim().is_empty()) {
            return refuse(
                "WAL is not archived",
                "Set archive_mode = on and archive_command to `lifeboat … wal push \"%p\"`; \
                 `lifeboat check` prints the line.",
            );
        }
        Ok(())
    }

    /// Begins the backup on this session; a checkpoint is made at once.
    pub async fn start(&self, label: &str) -> Outcome<Started> {
        let query = match self.facts.major() {
            15.. => "SELECT pg_backup_start($1, fast => true)::text",
            _ => "SELECT pg_start_backup($1, true, false)::text",
        };
        let row = self.connection.row(query, &[&label]).await?;
        Ok(Started { lsn: self.lsn(row.get(0))? })
    }

    /// Ends the backup and takes what belongs into `backup_label`. The wait for the archive is
    /// ours: PostgreSQL's own knows nothing of repositories.
    pub async fn stop(&self) -> Outcome<Stopped> {
        let query = match self.facts.major() {
            15.. => {
                "SELECT lsn::text, labelfile, spcmapfile
                 FROM pg_backup_stop(wait_for_archive => false)"
            }
            _ => "SELECT lsn::text, labelfile, spcmapfile FROM pg_stop_backup(false, false)",
        };
        let row = self.connection.row(query, &[]).await?;
        let lsn = self.lsn(row.get(0))?;
        Ok(Stopped { lsn, backup_label: row.get(1), tablespace_map: row.get(2) })
    }

    /// The segment that archive_command failed on last, if nothing was archived since.
    pub async fn failing_segment(&self) -> Outcome<Option<String>> {
        let query = "SELECT last_failed_wal FROM pg_stat_archiver
                     WHERE last_failed_time > coalesce(last_archived_time, '-infinity')";
        let row = self.connection.row_if_any(query, &[]).await?;
        Ok(row.and_then(|row| row.get(0)))
    }

    /// The timeline that the server is on now.
    pub async fn timeline(&self) -> Outcome<Timeline> {
        let text =
            self.connection.text("SELECT timeline_id::text FROM pg_control_checkpoint()").await?;
        text.parse().map(Timeline).map_err(|_| self.nonsense(&text))
    }

    fn lsn(&self, text: String) -> Outcome<Lsn> {
        text.parse().map_err(|_| self.nonsense(&text))
    }

    fn nonsense(&self, text: &str) -> Failure {
        let message = format!("PostgreSQL at {} answered {text:?}", self.connection.place());
        Failure::new(Code::BackupAborted, message)
            .hint("See what answers at this address: it does not talk as PostgreSQL does.")
    }
}

/// Makes a primary finish its current WAL segment, so that a standby's backup is not left waiting
/// on an idle primary.
pub async fn switch_wal(settings: &str) -> Outcome<bool> {
    let connection = connect(settings).await?;
    let primary = connection.text("SELECT (NOT pg_is_in_recovery())::text").await? == "true";
    if primary {
        connection.text("SELECT pg_switch_wal()::text").await?;
    }
    Ok(primary)
}

const FACTS: &str = "
    SELECT current_setting('server_version_num'),
           (SELECT system_identifier::text FROM pg_control_system()),
           pg_is_in_recovery()::text,
           current_setting('data_directory'),
           current_setting('wal_level'),
           current_setting('archive_mode'),
           CASE WHEN current_setting('archive_library', true) <> ''
                THEN current_setting('archive_library', true)
                ELSE current_setting('archive_command') END,
           current_setting('full_page_writes'),
           current_setting('fsync'),
           (SELECT (setting::bigint * CASE unit WHEN '8kB' THEN 8192 WHEN 'kB' THEN 1024
                    WHEN 'MB' THEN 1048576 ELSE 1 END)::text
            FROM pg_settings WHERE name = 'wal_segment_size')";

async fn read_facts(connection: &Connection) -> Outcome<ServerFacts> {
    let row = connection.row(FACTS, &[]).await?;
    let text = |index: usize| row.get::<_, Option<String>>(index).unwrap_or_default();
    let number = |index: usize| {
        text(index).parse().map_err(|_| {
            let message = format!("PostgreSQL at {} answered nonsense", connection.place());
            Failure::new(Code::BackupAborted, message)
        })
    };
    let files = connection
        .rows(
            "SELECT name, setting FROM pg_settings
             WHERE name IN ('config_file', 'hba_file', 'ident_file') AND setting <> ''",
            &[],
        )
        .await?;
    let included = connection
        .rows("SELECT DISTINCT sourcefile FROM pg_file_settings WHERE sourcefile <> ''", &[])
        .await
        // Only superusers may read pg_file_settings; the files that it names are then found by
        // following the include directives.
        .unwrap_or_default();
    let path = |row: &tokio_postgres::Row, index: usize| PathBuf::from(row.get::<_, String>(index));
    Ok(ServerFacts {
        version: number(0)? as u32,
        system_identifier: number(1)?,
        in_recovery: text(2) == "true",
        data_directory: PathBuf::from(text(3)),
        config_files: files.iter().map(|row| (row.get(0), path(row, 1))).collect(),
        included_files: included.iter().map(|row| path(row, 0)).collect(),
        wal_level: text(4),
        archive_mode: text(5),
        archive_command: text(6),
        full_page_writes: text(7) == "on",
        fsync: text(8) == "on",
        wal_segment_bytes: number(9)? as u32,
    })
}
