//! A server that nobody but us can reach: own folder, own socket, no network, no archive, no jobs.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lifeboat_cluster::settings;
use lifeboat_model::{RecoveryTarget, Timeline};
use lifeboat_repository::enroll::newest_binding;
use lifeboat_restore::{FetchCommand, RestoreContext, RestoreRequest, Source, TargetAction};
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::connect::{Connection, connect};
use lifeboat_wire::Config;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::settings::Settings;
use super::super::{archive, configuration, place, session};
use super::Salvaging;

/// Recovery may have to replay as much as the old primary had.
const STARTING: Duration = Duration::from_secs(3600);
const LOOK: Duration = Duration::from_millis(100);

/// What both have, whatever the old primary was set to.
const QUIET: [(&str, &str); 16] = [
    ("listen_addresses", ""),
    ("port", "5432"),
    ("archive_mode", "off"),
    ("synchronous_standby_names", ""),
    ("shared_preload_libraries", ""),
    ("session_preload_libraries", ""),
    ("max_logical_replication_workers", "0"),
    ("primary_conninfo", ""),
    ("primary_slot_name", ""),
    ("autovacuum", "off"),
    ("event_triggers", "off"),
    ("shared_buffers", "64MB"),
    ("huge_pages", "off"),
    ("logging_collector", "off"),
    ("ssl", "off"),
    // Thrown away in any case.
    ("fsync", "off"),
];

/// A server in its sandbox. Dropping it ends the server.
pub(crate) struct Sandbox {
    name: &'static str,
    folder: PathBuf,
    sockets: PathBuf,
    role: String,
    server: Child,
}

impl Sandbox {
    /// A copy of the old directory, which recovers what it wrote.
    pub(crate) fn of_directory(salvaging: &Salvaging<'_>, folder: &Path) -> Outcome<Self> {
        let own = salvaging.settings;
        let data = folder.join("after");
        salvaging.reporter.note("copying the old directory".to_owned());
        // Links are followed: the copy must not write where the original does.
        let mut copy = Command::new("cp");
        copy.arg("-aL").arg("--reflink=auto").arg(own.data()?).arg(&data);
        let copied = copy.stdin(Stdio::null()).output();
        let copied = copied.map_err(|error| place::failed(&data, error))?;
        if !copied.status.success() {
            let said = String::from_utf8_lossy(&copied.stderr).into_owned();
            let message = format!("{} cannot be copied", own.data()?.display());
            return Err(Failure::new(Code::SalvageFailed, message)
                .details(said.lines().take(10).map(str::to_owned))
                .hint("Make room for one copy of it, and for one restored, beside it."));
        }
        for name in ["postmaster.pid", "standby.signal", "recovery.signal"] {
            place::remove(&data.join(name))?;
        }
        // Settings of the original that win over those of the sandbox.
        place::write_new(&data.join("postgresql.auto.conf"), b"")?;
        let configured = configuration::read(own)?;
        Self::start(own, "after", folder, configured.into_iter().collect())
    }

    /// The database as it was at the fork, from the repository. Along the new primary's timeline,
    /// whose first record changes no row: a recovery goes one record too far.
    pub(crate) fn at_fork(
        salvaging: &Salvaging<'_>,
        folder: &Path,
        left: Timeline,
    ) -> Outcome<Self> {
        let (own, access) = (salvaging.settings, salvaging.access);
        let database = own.database.to_string();
        let binding = access.blocking.run(newest_binding(salvaging.regions, &database))?;
        let binding = binding.ok_or_else(|| {
            Failure::new(Code::DatabaseUnknown, format!("{database} is bound to no cluster"))
        })?;
        let secrets = access.secrets(salvaging.regions)?;
        let source = Source::new(
            access.blocking.clone(),
            salvaging.regions,
            secrets.stream_keys(binding.body.stream),
            secrets.read_key(),
            salvaging.reporter.clone(),
        );
        let context = RestoreContext {
            environment: &own.environment,
            source: &source,
            reporter: salvaging.reporter,
            cancel: salvaging.cancel,
        };
        let request = request(salvaging, folder.join("before"))?;
        let plan = lifeboat_restore::plan(&request, context, salvaging.regions)?;
        if plan.timeline <= left {
            let message = format!("the repository does not know who left timeline {left}");
            return Err(Failure::new(Code::SalvageFailed, message)
                .hint("The new primary archives its history in a moment: run the step again."));
        }
        lifeboat_restore::restore(&plan, context)?;
        Self::start(own, "before", folder, Vec::new())
    }

    fn start(
        own: &Settings,
        name: &'static str,
        folder: &Path,
        configured: Vec<(String, String)>,
    ) -> Outcome<Self> {
        let data = folder.join(name);
        let sockets = folder.join(format!("{name}.run"));
        fs::create_dir(&sockets).map_err(|error| place::failed(&sockets, error))?;
        place::give(own, &sockets)?;
        let hba = folder.join(format!("{name}.hba"));
        place::write_new(&hba, b"local all all trust\n")?;
        let main = match configured.is_empty() {
            true => data.join("postgresql.conf"),
            false => {
                let main = folder.join(format!("{name}.conf"));
                place::write_new(&main, &plain(&configured))?;
                main
            }
        };
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log).map_err(|error| place::failed(&log, error))?;
        let errors = output.try_clone().map_err(|error| place::failed(&log, error))?;
        let mut command = Command::new(own.server_program("postgres")?);
        command.arg("-D").arg(&data);
        let mut set = |name: &str, value: &str| {
            command.arg("-c").arg(format!("{name}={value}"));
        };
        set("config_file", &main.display().to_string());
        set("hba_file", &hba.display().to_string());
        set("unix_socket_directories", &sockets.display().to_string());
        let major = own.release()?.major;
        for (name, value) in QUIET {
            if name != "event_triggers" || major >= 17 {
                set(name, value);
            }
        }
        command.stdin(Stdio::null()).stdout(output).stderr(errors).current_dir(folder);
        command.process_group(0);
        if nix::unistd::Uid::effective().is_root() {
            let (user, group) = place::owner_of(own)?;
            command.uid(user).gid(group);
        }
        let server = command.spawn().map_err(|error| place::failed(&data, error))?;
        let connection = own.node()?.connection.resolve(&own.environment)?;
        let config = Config::parse(&connection).map_err(|error| error.at("`connection`"))?;
        let folder = folder.to_owned();
        Ok(Self { name, folder, sockets, role: config.user, server })
    }

    /// A session in a database of it, once it has recovered.
    pub(crate) fn session(
        &mut self,
        salvaging: &Salvaging<'_>,
        database: &str,
    ) -> Outcome<Connection> {
        let (own, blocking) = (salvaging.settings, salvaging.access.blocking);
        let clock = own.environment.clock();
        let end = clock.elapsed().saturating_add(STARTING);
        let quote = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
        loop {
            salvaging.cancel.check()?;
            let words = format!(
                "host='{}' port=5432 user='{}' dbname='{}'",
                quote(&self.sockets.display().to_string()),
                quote(&self.role),
                quote(database)
            );
            let opened = blocking.run(async {
                let connection = connect(&words).await?;
                let rows = session::rows(&connection, READY).await?;
                let row = rows.first();
                let ready = row.and_then(|row| session::text(row, 0)) == Some("true");
                let role = row.and_then(|row| session::text(row, 1)).map(str::to_owned);
                Ok((connection, ready, role))
            });
            match opened {
                Ok((connection, true, role)) => match role {
                    // Rows that a policy hides would be missed.
                    Some(role) if role != self.role => self.role = role,
                    _ => return Ok(connection),
                },
                Ok((_, false, _)) => clock.sleep(LOOK),
                Err(failure) => self.still_starts(own, failure, clock.elapsed() > end)?,
            }
        }
    }

    fn still_starts(&mut self, own: &Settings, failure: Failure, late: bool) -> Outcome<()> {
        let ended = self.server.try_wait().ok().flatten().is_some();
        if !ended && !late {
            own.environment.clock().sleep(LOOK);
            return Ok(());
        }
        let log = self.folder.join(format!("{}.log", self.name));
        let said = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let skipped = lines.len().saturating_sub(12);
        let what = match self.name {
            "after" => "the copy of the old directory",
            _ => "the database as it was at the fork",
        };
        Err(Failure::new(Code::SalvageFailed, format!("{what} does not start"))
            .because(failure)
            .details(lines.into_iter().skip(skipped).map(str::to_owned))
            .hint("The old directory was only read. See the lines above, then run it again."))
    }

    /// Ends the server and removes everything but the results.
    pub(crate) fn remove(mut self) -> Outcome<()> {
        self.end();
        let remove = |path: PathBuf| match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(place::failed(&path, error))
            }
            _ => Ok(()),
        };
        remove(self.folder.join(self.name))?;
        remove(self.folder.join(format!("{}.lifeboat", self.name)))?;
        remove(self.sockets.clone())?;
        ["conf", "hba", "log"]
            .iter()
            .try_for_each(|end| place::remove(&self.folder.join(format!("{}.{end}", self.name))))
    }

    fn end(&mut self) {
        let pid = Pid::from_raw(self.server.id().cast_signed());
        if self.server.try_wait().ok().flatten().is_none() {
            // An immediate shutdown: there is nothing to keep.
            let _ = kill(pid, Signal::SIGQUIT);
            let _ = self.server.wait();
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether everything was replayed, and who may see everything.
const READY: &str = "
    SELECT (NOT pg_is_in_recovery() OR pg_is_wal_replay_paused())::text,
      (SELECT rolname::text FROM pg_roles WHERE rolsuper AND rolcanlogin
       ORDER BY rolname = current_user DESC, rolname LIMIT 1)";

fn request(salvaging: &Salvaging<'_>, to: PathBuf) -> Outcome<RestoreRequest> {
    let own = salvaging.settings;
    let node = own.node()?;
    Ok(RestoreRequest {
        database: own.database.to_string(),
        to,
        target: RecoveryTarget::Lsn(salvaging.fork),
        backup: None,
        timeline: None,
        action: TargetAction::Pause,
        delta: false,
        adopt: false,
        standby: false,
        tablespaces: Vec::new(),
        owner: None,
        workers: 0,
        bin_directory: node.bin_directory.clone(),
        fetch: FetchCommand {
            binary: own.program.clone(),
            spec: own.spec_path.clone(),
            here: node.region.to_string(),
            repositories: archive::repositories(own, salvaging.access)?,
            deadline: own.database()?.wal.fetch_deadline.duration(),
        },
        state: own.state.clone(),
    })
}

/// The old primary's settings, without what leads out of the sandbox.
fn plain(configured: &[(String, String)]) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in configured {
        let leads_out = name.contains('.')
            || name.ends_with("_file")
            || name.ends_with("_command")
            || name.ends_with("_library")
            || name.starts_with("recovery_")
            || name.starts_with("ssl_")
            || matches!(name.as_str(), "data_directory" | "restore_command");
        if !leads_out {
            lines.extend_from_slice(format!("{name} = {}\n", settings::quote(value)).as_bytes());
        }
    }
    lines
}
