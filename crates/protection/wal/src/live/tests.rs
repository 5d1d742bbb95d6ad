use jiff::Timestamp;
use lifeboat_model::spec::{Acknowledge, Durable, OnLoss};
use lifeboat_model::{DatabaseId, Lsn, RegionName};

use super::{Live, Question};
use crate::acknowledge::{Override, Setting, Survey};
use crate::senders::Sender;

const RULE: &str = "ANY 1 (\"lifeboat_shop_main_west\")";
const END: Lsn = Lsn(0x300_0100);

fn sender(region: &str, flushed: Lsn) -> Sender {
    let name = format!("lifeboat_shop_main_{region}");
    Sender {
        pid: 1,
        role: "replicator".to_owned(),
        application_name: name.clone(),
        address: None,
        state: Some("streaming".to_owned()),
        sync_state: Some("quorum".to_owned()),
        written: Some(flushed),
        flushed: Some(flushed),
        reply_age_seconds: Some(0.5),
        lag_seconds: Some(0.25),
        slot: Some(name),
        encrypted: None,
    }
}

fn survey(value: &str, senders: Vec<Sender>) -> Survey {
    Survey {
        system_identifier: "42".to_owned(),
        names: Setting {
            value: value.to_owned(),
            source: "configuration file".to_owned(),
            by_alter_system: true,
        },
        commit: Some("on".to_owned()),
        broken: Vec::new(),
        overrides: Vec::new(),
        sessions: 1,
        waiting: 0,
        senders,
        slots: Vec::new(),
        flushed: END,
        now: "2026-11-21T12:00:10Z".parse().unwrap(),
    }
}

fn live(survey: &Survey, stored: Option<&str>) -> Live {
    let id: DatabaseId = "shop/main".parse().unwrap();
    let receivers: Vec<RegionName> =
        ["east", "west"].iter().map(|name| name.parse().unwrap()).collect();
    let acknowledge = Acknowledge { remote: 1, durable: Durable::Spool, on_loss: OnLoss::Block };
    let stored_elsewhere = stored.map(|time| time.parse::<Timestamp>().unwrap());
    let writes = "east".parse().unwrap();
    let question = Question {
        id: &id,
        writes: &writes,
        receivers: &receivers,
        acknowledge: Some(&acknowledge),
        stored_elsewhere,
    };
    Live::of(&question, survey)
}

fn doubted(survey: &Survey, said: &str) {
    let rpo = live(survey, None).rpo;
    assert!(!rpo.promised, "{rpo:?}");
    assert!(rpo.reason.contains(said), "{rpo:?}");
}

#[test]
fn zero_is_promised_only_while_the_server_counts_enough_receivers() {
    let behind = Lsn(0x300_0000);
    let good = survey(RULE, vec![sender("west", behind)]);
    let rpo = live(&good, None).rpo;
    assert_eq!((rpo.seconds, rpo.promised), (Some(0.0), true), "{rpo:?}");
    assert!(rpo.reason.contains("west has acknowledged up to 0/3000000"), "{rpo:?}");

    doubted(&survey("", vec![sender("west", behind)]), "commits wait for nobody");
    // Satisfied by the region that writes, or by anybody.
    let value = "ANY 1 (lifeboat_shop_main_east, lifeboat_shop_main_west)";
    doubted(&survey(value, vec![sender("west", behind)]), "and not ANY 1");
    doubted(&survey("*", vec![sender("west", behind)]), "and not ANY 1");
    doubted(&survey(RULE, Vec::new()), "0 of 1 needed receivers");
    let mut late = sender("west", behind);
    late.sync_state = Some("async".to_owned());
    doubted(&survey(RULE, vec![late]), "0 of 1 needed receivers");
    let impostor = Sender { slot: None, pid: 2, ..sender("west", behind) };
    doubted(&survey(RULE, vec![sender("west", behind), impostor]), "somebody else");

    let mut off = good.clone();
    off.commit = Some("local".to_owned());
    doubted(&off, "synchronous_commit is local");
    let mut role = good.clone();
    role.overrides =
        vec![Override { who: "role batch".to_owned(), value: "off".to_owned(), sessions: 0 }];
    doubted(&role, "role batch has synchronous_commit = off");
    let mut hidden = good;
    hidden.commit = None;
    doubted(&hidden, "may not see");
}

#[test]
fn without_a_promise_it_is_a_bound_or_not_known() {
    let behind = survey("", vec![sender("west", Lsn(0x300_0000))]);
    let rpo = live(&behind, Some("2026-11-21T12:00:06.8Z")).rpo;
    assert!(!rpo.promised && rpo.seconds.is_some_and(|age| (age - 3.2).abs() < 0.001), "{rpo:?}");
    let rpo = live(&behind, None).rpo;
    assert_eq!((rpo.seconds, rpo.promised), (None, false));
    // A clock that is ahead does not make it negative.
    let ahead = live(&behind, Some("2026-11-21T13:00:00Z")).rpo;
    assert_eq!(ahead.seconds, Some(0.0));
    // Everything of this moment is there, and nobody promised it.
    let even = live(&survey("", vec![sender("west", END)]), None).rpo;
    assert_eq!((even.seconds, even.promised), (Some(0.0), false));
    // What the region that writes has itself is lost with it.
    let own = live(&survey("", vec![sender("east", END)]), None).rpo;
    assert_eq!(own.seconds, None);
    // So is what somebody claims who only has the name.
    let impostor = Sender { slot: None, ..sender("west", END) };
    assert_eq!(live(&survey("", vec![impostor]), None).rpo.seconds, None);
}

#[test]
fn a_receiver_that_fell_silent_falls_behind() {
    let mut quiet = sender("west", Lsn(0x300_0000));
    quiet.reply_age_seconds = Some(7.0);
    let live = live(&survey(RULE, vec![quiet, sender("east", END)]), None);
    let west = live.receivers.iter().find(|one| one.standing.region.as_str() == "west").unwrap();
    assert_eq!((west.bytes_behind, west.seconds_behind), (Some(0x100), Some(7.25)));
    let east = live.receivers.iter().find(|one| one.standing.region.as_str() == "east").unwrap();
    assert_eq!((east.bytes_behind, east.seconds_behind), (Some(0), Some(0.0)));
}
