//! A database in stream mode: can receivers receive, do they, and do commits wait for them.

use lifeboat_model::spec::{Acknowledge, Database};
use lifeboat_model::{DatabaseId, RegionName};
use lifeboat_repository::access::Access;
use lifeboat_telemetry::{Code, Failure, Outcome, bytes};
use lifeboat_wal::acknowledge::{Standing, Survey, Wish, weakness};
use lifeboat_wal::senders::{Sender, Slot};
use lifeboat_wal::writing_server::{self, WritingServer};
use lifeboat_wire::Connection;

use super::Lines;
use crate::commands::wal::receive;
use crate::site::Site;

/// A receiver replies at least this often.
const REPLY_SECONDS: i64 = 1;

/// Adds the lines about receivers and about commits that wait for them.
pub fn check(
    site: &Site<'_>,
    access: &Access<'_>,
    (id, database): (&DatabaseId, &Database),
    lines: &mut Lines,
) {
    replication_login(site, access, (id, database), lines);
    let here = site.here.as_ref();
    let found = writing_server::find(id, database, here, access.environment);
    let server = match access.blocking.run(found) {
        Ok(server) => server,
        Err(failure) => return lines.not_tested("receivers", failure.full_message()),
    };
    let survey = access.blocking.run(Survey::take(&server.connection));
    let Some(survey) = lines.need("receivers", survey) else { return };
    let receivers = database.wal.receivers.iter();
    let receivers = receivers
        .map(|region| Standing::find(id, region, &survey.senders, &survey.slots))
        .collect::<Vec<_>>();
    let limits = access.blocking.run(Limits::read(&server));
    if let Some(limits) = lines.need("max_wal_senders", limits) {
        limits.check(&survey, &receivers, lines);
    }
    for one in &receivers {
        receiver(id, one, lines);
    }
    if let Some(acknowledge) = &database.wal.acknowledge {
        waiting(acknowledge, (id, &server.region, &database.wal.receivers), &survey, lines);
    }
}

/// Logs in as the receiver of this region would: role, password, pg_hba.conf and TLS.
fn replication_login(
    site: &Site<'_>,
    access: &Access<'_>,
    (id, database): (&DatabaseId, &Database),
    lines: &mut Lines,
) {
    const CHECK: &str = "replication";
    let region = match receive::region(site, id, database) {
        Ok(region) if database.wal.receivers.contains(&region) => region,
        _ => return lines.not_tested(CHECK, "the spec has no receiver in this region"),
    };
    // Not under the receiver's name: it would be taken for it.
    let nodes = receive::nodes(site.context(), database, &region, "lifeboat check");
    let Some(nodes) = lines.need(CHECK, nodes) else { return };
    let mut trouble = Vec::new();
    for node in nodes {
        let place = node.config.place();
        let opened: Outcome<Connection> = access.blocking.run(async {
            let failure = |error: lifeboat_wire::Error| error.at(&place);
            let opened = Connection::open(&node.config, access.environment).await;
            let mut connection = opened.map_err(failure)?;
            connection.identify().await.map_err(failure)?;
            Ok(connection)
        });
        match opened {
            Ok(connection) => {
                access.blocking.run(connection.close());
                let message = format!("{} may receive from {place}", node.config.user);
                return lines.pass(CHECK, message);
            }
            Err(failure) => trouble.push((node.name, failure)),
        }
    }
    let said = trouble.iter().map(|(node, failure)| format!("{node}: {}", failure.full_message()));
    let message = said.collect::<Vec<_>>().join("; ");
    let hint = trouble.first().and_then(|(_, failure)| failure.hint_text()).unwrap_or_default();
    lines.fail(
        CHECK,
        message,
        format!("{hint} The role needs REPLICATION, and pg_hba.conf a line for `replication`."),
    );
}

/// How much the server has room for.
struct Limits {
    senders: i64,
    slots: i64,
    slots_used: i64,
    /// In megabytes; -1 is no limit.
    keep_mb: i64,
    /// In milliseconds; 0 is never.
    timeout_ms: i64,
}

impl Limits {
    async fn read(server: &WritingServer) -> Outcome<Self> {
        const QUERY: &str = "
            SELECT concat_ws(' ',
              current_setting('max_wal_senders'), current_setting('max_replication_slots'),
              (SELECT count(*) FROM pg_replication_slots),
              (SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
              (SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'))";
        let text = server.connection.text(QUERY).await?;
        let numbers: Vec<i64> = text.split(' ').filter_map(|word| word.parse().ok()).collect();
        match numbers.as_slice() {
            [senders, slots, slots_used, keep_mb, timeout_ms] => Ok(Self {
                senders: *senders,
                slots: *slots,
                slots_used: *slots_used,
                keep_mb: *keep_mb,
                timeout_ms: *timeout_ms,
            }),
            _ => Err(Failure::new(Code::ClusterUnreachable, "the server answered nonsense")),
        }
    }

    fn check(&self, survey: &Survey, receivers: &[Standing], lines: &mut Lines) {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let to_come = count(receivers.iter().filter(|one| one.sender.is_none()).count());
        let without_slot = count(receivers.iter().filter(|one| one.slot.is_none()).count());
        let used = count(survey.senders.len());
        room("max_wal_senders", self.senders, (used, to_come), lines);
        room("max_replication_slots", self.slots, (self.slots_used, without_slot), lines);
        match self.keep_mb {
            ..0 => lines.warn(
                "max_slot_wal_keep_size",
                "no limit: a receiver that stays away lets the server's disk fill",
                "Set it to what the disk can spare, as in 64GB, and reload. Beyond it a slot is \
                 lost, and a gap follows.",
            ),
            keep => lines.pass(
                "max_slot_wal_keep_size",
                format!(
                    "a receiver may stay away for {} of WAL",
                    bytes(keep.unsigned_abs().saturating_mul(1 << 20))
                ),
            ),
        }
        match self.timeout_ms {
            0 => lines.warn(
                "wal_sender_timeout",
                "0: a receiver that died without a word is held for alive",
                "Set wal_sender_timeout = 10s and reload.",
            ),
            timeout if timeout <= 2000 * REPLY_SECONDS => lines.fail(
                "wal_sender_timeout",
                format!("{timeout} ms, and receivers reply every {REPLY_SECONDS} s"),
                "Set wal_sender_timeout = 10s and reload: else they are cut off again and again.",
            ),
            timeout => lines.pass("wal_sender_timeout", format!("{timeout} ms")),
        }
    }
}

/// Whether `more` fit besides those `used`.
fn room(check: &str, limit: i64, (used, more): (i64, i64), lines: &mut Lines) {
    let needed = used.saturating_add(more);
    let message = format!("{limit}, of which {used} are in use, and {more} are still to come");
    if needed > limit {
        lines.fail(check, message, format!("Set {check} to {needed} or more and restart."));
    } else {
        lines.pass(check, message);
    }
}

/// One receiver of the spec: its slot, its connection, its name.
fn receiver(id: &DatabaseId, one: &Standing, lines: &mut Lines) {
    let check = format!("receiver {}", one.region);
    for impostor in &one.impostors {
        lines.fail(
            &check,
            format!("its name {} is also used by {}", one.name, impostor.describe()),
            "Whoever has the name acknowledges commits in its place: end that session.",
        );
    }
    let start = format!("Start it: `lifeboat wal receive {id} --here {}`.", one.region);
    let held = |slot: &Slot| bytes(slot.held_bytes.unwrap_or_default().max(0).unsigned_abs());
    match (&one.sender, &one.slot) {
        (_, Some(slot)) if slot.is_lost() => lines.fail(
            &check,
            format!("its slot {} is lost: WAL that it needs is gone", slot.name),
            format!("{start} It records the gap. Then take a backup: `lifeboat backup {id}`."),
        ),
        (Some(sender), slot) => {
            let state = sender.state.as_deref().unwrap_or("in a state that this role may not see");
            let kept = slot.as_ref().map(held).unwrap_or_default();
            let message = format!("{state}, its slot holds back {kept}");
            if sender.is_streaming() {
                lines.pass(&check, message);
            } else {
                lines.warn(&check, message, "It is catching up if this line changes.");
            }
            encryption(&check, sender, lines);
        }
        (None, Some(slot)) => {
            let message =
                format!("not connected; its slot {} holds back {}", slot.name, held(slot));
            lines.warn(&check, message, start);
        }
        (None, None) => {
            lines.warn(&check, format!("not connected, and no slot {}", one.name), start);
        }
    }
}

/// WAL holds everything that is in the database.
fn encryption(check: &str, sender: &Sender, lines: &mut Lines) {
    if sender.is_remote() && sender.encrypted == Some(false) {
        let address = sender.address.as_deref().unwrap_or_default();
        lines.fail(
            check,
            format!("WAL goes to {address} without TLS"),
            "Set ssl = on at the server, and sslmode=verify-full in `connection`.",
        );
    }
}

/// Whether commits wait as the spec says.
fn waiting(
    acknowledge: &Acknowledge,
    (id, writes, receivers): (&DatabaseId, &RegionName, &[RegionName]),
    survey: &Survey,
    lines: &mut Lines,
) {
    const CHECK: &str = "synchronous_standby_names";
    let wish = Wish::new(id, writes, receivers, acknowledge);
    let wanted = wish.rule().map(|rule| rule.to_string()).unwrap_or_default();
    let found = &survey.names.value;
    let shown = |value: &str| match value {
        "" => "empty: no commit waits for another region".to_owned(),
        value => value.to_owned(),
    };
    if *found == wanted {
        lines.pass(CHECK, shown(found));
    } else {
        let message = format!("{}, and the spec asks for {}", shown(found), shown(&wanted));
        lines.warn(CHECK, message, format!("Run `lifeboat wal acknowledge {id}`."));
    }
    if wanted.is_empty() {
        return;
    }
    let overrides = survey.overrides.iter().filter_map(|own| Some((own, own.means()?)));
    for (own, means) in overrides {
        lines.warn(
            "synchronous_commit",
            format!("{} has {} ({} sessions now): {means}", own.who, own.value, own.sessions),
            "What it commits is not protected: ALTER … RESET synchronous_commit.",
        );
    }
    match survey.commit.as_deref() {
        None => lines.not_tested("synchronous_commit", "this role may not see the server's value"),
        Some(value) => match weakness(value) {
            None => lines.pass("synchronous_commit", value),
            Some(means) => lines.fail(
                "synchronous_commit",
                format!("{value}: {means}"),
                "ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf();",
            ),
        },
    }
}
