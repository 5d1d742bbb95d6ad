//! Whether a stopped directory can follow another node: by that node's own history.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_cluster::ControlFile;
use lifeboat_cluster::wal::History;
use lifeboat_model::{Lsn, NodeName, SegmentName, SystemIdentifier, Timeline};
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wire::{Connection, Error};

use super::settings::Settings;
use super::{place, session, stopped, wal_end};

const PATIENCE: Duration = Duration::from_secs(5);

/// What another node says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    pub(crate) name: NodeName,
    pub(crate) system: SystemIdentifier,
    pub(crate) history: History,
    pub(crate) flushed: Lsn,
}

/// How a directory stands to another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lineage {
    /// It has nothing that the other one lacks.
    Follows {
        timeline: Timeline,
        end: Lsn,
        /// WAL that was received and never replayed lies behind the fork.
        beyond: bool,
    },
    /// It has.
    Diverged {
        timeline: Timeline,
        end: Lsn,
        /// Where the other one left the timeline; none if it was never on it.
        fork: Option<Lsn>,
    },
}

/// Asks a node, which must be the primary.
pub(crate) async fn ask(settings: &Settings, name: &NodeName) -> Outcome<Upstream> {
    let place = place::other(settings, name)?;
    let config = place::config(&place)?;
    let shown = config.place();
    let at = |error: Error| error.at(&shown);
    let asked = async {
        let mut connection = Connection::open(&config, &settings.environment).await.map_err(at)?;
        let recovers = match connection.in_recovery().await {
            // Version 13: what a server in recovery begins is always read-only.
            Err(Error::Unsupported { .. }) => {
                connection.show("transaction_read_only").await.map_err(at)? == "on"
            }
            answer => answer.map_err(at)?,
        };
        if recovers {
            return Err(Failure::new(Code::NotPrimary, format!("node {name} is a standby"))
                .hint("It has to be promoted before others can follow it."));
        }
        let system = connection.identify().await.map_err(at)?;
        let timeline = system.timeline;
        let history = match timeline {
            Timeline::FIRST => History::root(timeline),
            _ => match connection.timeline_history(timeline).await.map_err(at)? {
                Some(file) => History::parse(timeline, &file.content)
                    .map_err(|error| error.at(format!("{timeline}.history")))?,
                None => History::root(timeline),
            },
        };
        connection.close().await;
        let (system, flushed) = (system.identifier, system.flushed);
        Ok(Upstream { name: name.clone(), system, history, flushed })
    };
    session::within(PATIENCE, asked).await
}

/// Compares. Reads the directory's WAL: for a thread of its own.
pub(crate) fn compare(data: &Path, control: &ControlFile, upstream: &Upstream) -> Outcome<Lineage> {
    if control.system != upstream.system {
        let message = format!(
            "{} is of cluster {}, node {} of {}",
            data.display(),
            control.system,
            upstream.name,
            upstream.system
        );
        return Err(Failure::new(Code::ClusterMismatch, message)
            .hint("Correct `data_directory`, `connection` and `address` in the spec."));
    }
    let (timeline, end) = wal_end::end(data, control)?;
    let history = &upstream.history;
    let was_primary = stopped::was_primary(data, control);
    let follows = match timeline == history.timeline {
        // Two that both wrote on one timeline have nothing in common behind where it began.
        true => !was_primary && end <= upstream.flushed,
        false => history.contains(timeline, end),
    };
    if !follows {
        let fork = history.switch_of(timeline);
        return Ok(Lineage::Diverged { timeline, end, fork });
    }
    let received = match was_primary {
        true => end,
        false => wal_end::end_of_wal(data, control)?.max(end),
    };
    let beyond = history.switch_of(timeline).is_some_and(|fork| received > fork);
    Ok(Lineage::Follows { timeline, end, beyond })
}

/// Puts WAL aside that a standby received and that the primary does not have: it would be replayed
/// from pg_wal before anybody could tell. Returns where it lies now.
pub(crate) fn set_beyond_aside(
    settings: &Settings,
    control: &ControlFile,
    upstream: &Upstream,
) -> Outcome<PathBuf> {
    let data = settings.data()?;
    let timeline = wal_end::recovered(control).0;
    let fork = upstream.history.switch_of(timeline).unwrap_or(Lsn::MAX);
    let first = SegmentName::from_lsn(timeline, fork, control.wal_segment_size);
    let folder = place::aside(settings)?.join(format!("wal-after-{}", first));
    std::fs::create_dir_all(&folder).map_err(|error| place::failed(&folder, error))?;
    let wal = data.join("pg_wal");
    let entries = std::fs::read_dir(&wal).map_err(|error| place::failed(&wal, error))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let segment: Option<SegmentName> = name.to_str().and_then(|name| name.parse().ok());
        if segment.is_some_and(|one| one.timeline() == timeline && one >= first) {
            let to = folder.join(&name);
            // Another file system may hold the folder: copied first, then removed.
            std::fs::copy(entry.path(), &to).map_err(|error| place::failed(&to, error))?;
            std::fs::File::open(&to)
                .and_then(|file| file.sync_all())
                .map_err(|error| place::failed(&to, error))?;
            place::remove(&entry.path())?;
        }
    }
    Ok(folder)
}
