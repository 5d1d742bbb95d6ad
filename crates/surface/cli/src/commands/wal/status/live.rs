//! The part of `wal status` that only the writing server knows.

use lifeboat_model::spec::Database;
use lifeboat_model::{DatabaseId, Lsn, RegionName};
use lifeboat_repository::access::Access;
use lifeboat_telemetry::{Outcome, bytes};
use lifeboat_wal::acknowledge::{Standing, Survey};
use lifeboat_wal::live::{self, LiveReceiver, Question, Rpo};
use lifeboat_wal::status::RegionWindow;
use lifeboat_wal::writing_server::{self, WritingServer};
use schemars::JsonSchema;
use serde::Serialize;

use crate::output::{Mark, emphasis, strong};
use crate::site::Site;

/// Who receives at this moment, and what would be lost with the region that writes.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Live {
    /// The node that writes; null if no server answers.
    node: Option<String>,
    /// The region that writes.
    region: Option<String>,
    /// Why the server could not be asked.
    unanswered: Option<String>,
    /// The end of the server's own durable WAL.
    lsn: Option<String>,
    /// `synchronous_standby_names`.
    synchronous_standby_names: Option<String>,
    /// The receivers of the spec.
    receivers: Vec<Receiver>,
    /// The age of the oldest commit that would be lost with the region that writes, at most; null
    /// if it is not known.
    rpo_seconds: Option<f64>,
    /// Whether it is promised: commits wait for another region.
    rpo_promised: bool,
    /// Why, in words.
    rpo_reason: String,
}

/// A receiver at this moment.
#[derive(Debug, Serialize, JsonSchema)]
struct Receiver {
    /// Its region.
    region: String,
    /// Its application name and slot.
    name: String,
    /// `streaming`, `catchup`, …; null if it is not connected or the server does not answer.
    state: Option<String>,
    /// What it has written to its spool.
    received_lsn: Option<String>,
    /// What it has flushed there.
    durable_lsn: Option<String>,
    /// What lies in its region's repository.
    shipped_lsn: Option<String>,
    /// `async`, `quorum`, `sync` or `potential`.
    sync_state: Option<String>,
    /// Durable on the server, and not with it.
    bytes_behind: Option<u64>,
    /// For how long.
    seconds_behind: Option<f64>,
    /// Since its last reply.
    reply_age_seconds: Option<f64>,
    /// `active`, `inactive`, `lost` or `missing`; null if the server does not answer.
    slot: Option<&'static str>,
    /// WAL that its slot holds back on the server.
    held_bytes: Option<i64>,
    /// Others who use its name.
    impostors: Vec<String>,
}

/// Asks the writing server, and joins its answer with what the repositories hold.
pub fn ask(
    site: &Site<'_>,
    access: &Access<'_>,
    (id, database): (&DatabaseId, &Database),
    windows: &[RegionWindow],
) -> Live {
    match survey(site, access, (id, database)) {
        Ok((server, survey)) => Live::answered((id, database), &server, &survey, windows),
        Err(failure) => {
            let rpo = Rpo::unknown("the server does not answer");
            let receivers = &database.wal.receivers;
            let receivers = receivers.iter().map(|region| Receiver::silent(id, region, windows));
            Live {
                node: None,
                region: None,
                unanswered: Some(failure.full_message()),
                lsn: None,
                synchronous_standby_names: None,
                receivers: receivers.collect(),
                rpo_seconds: rpo.seconds,
                rpo_promised: rpo.promised,
                rpo_reason: rpo.reason,
            }
        }
    }
}

fn survey(
    site: &Site<'_>,
    access: &Access<'_>,
    (id, database): (&DatabaseId, &Database),
) -> Outcome<(WritingServer, Survey)> {
    access.blocking.run(async {
        let here = site.here.as_ref();
        let server = writing_server::find(id, database, here, access.environment).await?;
        let survey = Survey::take(&server.connection).await?;
        Ok((server, survey))
    })
}

impl Live {
    fn answered(
        (id, database): (&DatabaseId, &Database),
        server: &WritingServer,
        survey: &Survey,
        windows: &[RegionWindow],
    ) -> Self {
        let elsewhere = windows.iter().filter(|window| window.region != server.region.as_str());
        let stored = elsewhere.filter_map(|window| window.shipped?.last_commit);
        let live = live::Live::of(
            &Question {
                id,
                writes: &server.region,
                receivers: &database.wal.receivers,
                acknowledge: database.wal.acknowledge.as_ref(),
                stored_elsewhere: stored.max(),
            },
            survey,
        );
        Self {
            node: Some(server.node.to_string()),
            region: Some(server.region.to_string()),
            unanswered: None,
            lsn: Some(live.flushed.to_string()),
            synchronous_standby_names: Some(live.names),
            receivers: live.receivers.iter().map(|one| Receiver::new(one, windows)).collect(),
            rpo_seconds: live.rpo.seconds,
            rpo_promised: live.rpo.promised,
            rpo_reason: live.rpo.reason,
        }
    }

    /// As a person reads it.
    pub fn text(&self) -> String {
        let mut text = match (&self.node, &self.unanswered, &self.lsn) {
            (Some(node), _, Some(lsn)) => {
                let region = self.region.as_deref().unwrap_or_default();
                format!("{} {node} in {region} writes, at {lsn}\n", strong("Now:"))
            }
            (_, why, _) => {
                let why = why.as_deref().unwrap_or_default();
                format!("{} {} {why}\n", strong("Now:"), Mark::Unknown.paint("NOT KNOWN"))
            }
        };
        for receiver in &self.receivers {
            let name = emphasis(&receiver.region);
            text.push_str(&format!("  {name}  {}\n", receiver.shown(self.node.is_some())));
            for impostor in &receiver.impostors {
                let label = Mark::Bad.paint("impostor");
                text.push_str(&format!("    {label}  {} is also {impostor}\n", receiver.name));
            }
        }
        let mark = match (self.rpo_promised, self.rpo_seconds) {
            (true, _) => Mark::Good,
            (_, Some(_)) => Mark::Doubtful,
            (_, None) => Mark::Unknown,
        };
        let value = match self.rpo_seconds {
            None => "unknown".to_owned(),
            Some(0.0) => "0".to_owned(),
            Some(seconds) => format!("{seconds:.1} s"),
        };
        text.push_str(&format!("  RPO  {}: {}\n", mark.paint(&value), self.rpo_reason));
        text
    }
}

impl Receiver {
    fn new(one: &LiveReceiver, windows: &[RegionWindow]) -> Self {
        let Standing { region, name, sender, impostors, slot } = &one.standing;
        let sender = sender.as_ref();
        let text = |lsn: Option<Lsn>| lsn.map(|lsn| lsn.to_string());
        Self {
            region: region.to_string(),
            name: name.clone(),
            state: sender.and_then(|sender| sender.state.clone()),
            received_lsn: text(sender.and_then(|sender| sender.written)),
            durable_lsn: text(sender.and_then(|sender| sender.flushed)),
            shipped_lsn: shipped(region, windows),
            sync_state: sender.and_then(|sender| sender.sync_state.clone()),
            bytes_behind: one.bytes_behind,
            seconds_behind: one.seconds_behind,
            reply_age_seconds: sender.and_then(|sender| sender.silence()),
            slot: Some(match slot {
                None => "missing",
                Some(slot) if slot.is_lost() => "lost",
                Some(slot) if slot.active => "active",
                Some(_) => "inactive",
            }),
            held_bytes: slot.as_ref().and_then(|slot| slot.held_bytes),
            impostors: impostors.iter().map(|one| one.describe()).collect(),
        }
    }

    /// Of a receiver whose server does not answer, only the repository tells something.
    fn silent(id: &DatabaseId, region: &RegionName, windows: &[RegionWindow]) -> Self {
        Self {
            region: region.to_string(),
            name: lifeboat_wal::receiver_name(id, region),
            state: None,
            received_lsn: None,
            durable_lsn: None,
            shipped_lsn: shipped(region, windows),
            sync_state: None,
            bytes_behind: None,
            seconds_behind: None,
            reply_age_seconds: None,
            slot: None,
            held_bytes: None,
            impostors: Vec::new(),
        }
    }

    fn shown(&self, answered: bool) -> String {
        let mut parts = vec![match (&self.state, answered) {
            (Some(state), _) => state.clone(),
            (None, true) => {
                Mark::Doubtful.paint(&format!("not connected, slot {}", self.slot.unwrap_or("")))
            }
            (None, false) => "not known".to_owned(),
        }];
        let positions = [
            ("received", &self.received_lsn),
            ("durable", &self.durable_lsn),
            ("shipped", &self.shipped_lsn),
        ];
        let known = positions.iter().filter_map(|(what, lsn)| Some((what, lsn.as_ref()?)));
        parts.extend(known.map(|(what, lsn)| format!("{what} {lsn}")));
        parts.extend(self.sync_state.clone());
        parts.extend(self.bytes_behind.map(|behind| format!("{} behind", bytes(behind))));
        let seconds = self.seconds_behind.filter(|seconds| *seconds > 0.0);
        parts.extend(seconds.map(|seconds| format!("{seconds:.1} s behind")));
        parts.extend(self.reply_age_seconds.map(|age| format!("replied {age:.1} s ago")));
        parts.join(", ")
    }
}

fn shipped(region: &RegionName, windows: &[RegionWindow]) -> Option<String> {
    let window = windows.iter().find(|window| window.region == region.as_str())?;
    Some(window.shipped?.lsn.to_string())
}
