use lifeboat_model::spec::{Acknowledge, Durable, OnLoss};
use lifeboat_model::{DatabaseId, Lsn, RegionName};

use super::{Plan, Way, Weight, Wish};
use crate::acknowledge::{Memory, Override, Setting, Survey};
use crate::senders::{Sender, Slot};

const WEST: &str = "lifeboat_shop_main_west";
const NORTH: &str = "lifeboat_shop_main_north";

fn sender(pid: i32, name: &str, slot: Option<&str>) -> Sender {
    Sender {
        pid,
        role: "replicator".to_owned(),
        application_name: name.to_owned(),
        address: Some("10.2.0.9".to_owned()),
        state: Some("streaming".to_owned()),
        sync_state: Some("async".to_owned()),
        written: None,
        flushed: None,
        reply_age_seconds: None,
        lag_seconds: None,
        slot: slot.map(str::to_owned),
        encrypted: Some(true),
    }
}

fn slot(name: &str) -> Slot {
    Slot {
        name: name.to_owned(),
        active: true,
        wal_status: Some("reserved".to_owned()),
        restart: None,
        held_bytes: None,
        safe_bytes: None,
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
        sessions: 7,
        waiting: 0,
        senders,
        slots: vec![slot(WEST), slot(NORTH)],
        flushed: Lsn(0x300_0000),
        now: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn plan_with(
    receivers: &[&str],
    acknowledge: Acknowledge,
    survey: &Survey,
    memory: Option<&Memory>,
    replace: Option<&str>,
) -> Plan {
    let id: DatabaseId = "shop/main".parse().unwrap();
    let receivers: Vec<RegionName> = receivers.iter().map(|name| name.parse().unwrap()).collect();
    let writes = "east".parse().unwrap();
    let (id, writes) = (&id, &writes);
    let wish = Wish {
        replace,
        role: Some("replicator".to_owned()),
        hosts: vec!["10.1.0.10".to_owned()],
        ..Wish::new(id, writes, &receivers, &acknowledge)
    };
    Plan::set(&wish, survey, memory)
}

fn remote(remote: u8) -> Acknowledge {
    Acknowledge { remote, durable: Durable::Spool, on_loss: OnLoss::Block }
}

fn plan(receivers: &[&str], survey: &Survey) -> Plan {
    plan_with(receivers, remote(1), survey, None, None)
}

fn refused(plan: &Plan, said: &str) {
    let refusals: Vec<_> = plan.refusals().collect();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert!(refusals[0].message.contains(said), "{refusals:?}");
    assert!(refusals[0].advice.is_some());
}

fn warned(plan: &Plan, said: &str) {
    let found = plan
        .remarks
        .iter()
        .any(|remark| remark.weight == Weight::Warning && remark.message.contains(said));
    assert!(found, "{said}: {:?}", plan.remarks);
}

#[test]
fn only_receivers_outside_the_region_that_writes_count() {
    let senders = vec![sender(1, WEST, Some(WEST)), sender(2, "lifeboat_shop_main_east", None)];
    let plan = plan(&["east", "west"], &survey("", senders));
    assert_eq!(plan.after, "ANY 1 (\"lifeboat_shop_main_west\")");
    assert_eq!((plan.between.as_deref(), plan.way), (None, Way::Protect));
    assert_eq!(plan.refusals().count(), 0, "{:?}", plan.remarks);
    let alone = plan_with(&["east"], remote(1), &survey("", Vec::new()), None, None);
    refused(&alone, "0 receivers outside east");
}

#[test]
fn too_few_receivers_are_refused_and_each_is_named() {
    refused(&plan(&["west", "north"], &survey("", Vec::new())), "0 of 1 needed receivers");
    let mut late = sender(1, WEST, Some(WEST));
    late.state = Some("catchup".to_owned());
    refused(&plan(&["west"], &survey("", vec![late])), "is in state catchup");
    let mut lost = survey("", Vec::new());
    lost.slots[0].wal_status = Some("lost".to_owned());
    refused(&plan(&["west"], &lost), "its slot is lost");
    // One is enough, and the other is named.
    let one = plan(&["west", "north"], &survey("", vec![sender(1, WEST, Some(WEST))]));
    assert_eq!(one.refusals().count(), 0);
    warned(&one, "north");
}

#[test]
fn impostors_and_duplicates_are_refused() {
    let real = sender(1, WEST, Some(WEST));
    for impostor in [
        sender(99, WEST, None),
        sender(99, "LIFEBOAT_shop_MAIN_west", None),
        sender(99, WEST, Some("another_slot")),
    ] {
        let both = plan(
            &["west", "north"],
            &survey("", vec![real.clone(), impostor.clone(), sender(3, NORTH, Some(NORTH))]),
        );
        refused(&both, "process 99");
        assert!(both.refusals().next().unwrap().message.contains("besides the receiver"));
        let alone = plan(&["west"], &survey("", vec![impostor]));
        assert_eq!(alone.refusals().count(), 2, "{:?}", alone.remarks);
    }
}

#[test]
fn who_has_not_begun_to_receive_is_no_impostor() {
    let mut again = sender(2, WEST, None);
    again.state = Some("startup".to_owned());
    let plan = plan(&["west"], &survey("", vec![sender(1, WEST, Some(WEST)), again]));
    assert_eq!(plan.refusals().count(), 0, "{:?}", plan.remarks);
}

#[test]
fn undo_leaves_no_line_behind() {
    let mut survey = survey("", Vec::new());
    survey.names.by_alter_system = false;
    let memory = Memory::new("42", &survey.names);
    assert!(Plan::undo(&survey, &memory, None).changes_nothing());
    // An empty line of ours is one too many.
    survey.names.by_alter_system = true;
    let undo = Plan::undo(&survey, &memory, None);
    assert_eq!((undo.changes_nothing(), undo.way), (false, Way::Reset));
    // A line that was there stays.
    let memory = Memory::new("42", &survey.names);
    let undo = Plan::undo(&survey, &memory, None);
    assert_eq!((undo.changes_nothing(), undo.way), (true, Way::Restore));
}

#[test]
fn a_value_of_somebody_else_must_be_named() {
    let senders = || vec![sender(1, WEST, Some(WEST)), sender(2, "rack", None)];
    let foreign = survey("FIRST 1 (rack)", senders());
    refused(&plan(&["west"], &foreign), "FIRST 1 (rack)");
    let wrong = plan_with(&["west"], remote(1), &foreign, None, Some("rack"));
    refused(&wrong, "FIRST 1 (rack)");
    let named = plan_with(&["west"], remote(1), &foreign, None, Some("FIRST 1 (rack)"));
    assert_eq!(named.refusals().count(), 0);
    // Nobody loses what was promised while it changes.
    assert_eq!(named.between.as_deref(), Some("ANY 2 (\"lifeboat_shop_main_west\", \"rack\")"));
    refused(&plan(&["west"], &survey("*", senders())), "lets anybody");

    let memory = Memory::new("42", &foreign.names);
    let own = plan_with(&["west"], remote(1), &foreign, Some(&memory), None);
    assert_eq!(own.refusals().count(), 0);
    let changed = survey("FIRST 2 (rack, other)", senders());
    refused(&plan_with(&["west"], remote(1), &changed, Some(&memory), None), "other");
    let undo = Plan::undo(&changed, &memory, None);
    refused(&undo, "other");
}

#[test]
fn what_the_command_line_says_wins() {
    let mut survey = survey("", vec![sender(1, WEST, Some(WEST))]);
    survey.names.source = "command line".to_owned();
    refused(&plan(&["west"], &survey), "command line");
    survey.names.source = "configuration file".to_owned();
    survey.broken = vec!["/etc/postgresql.conf line 3: syntax error".to_owned()];
    refused(&plan(&["west"], &survey), "line 3");
}

#[test]
fn commits_that_would_not_wait_are_found() {
    let mut survey = survey("", vec![sender(1, WEST, Some(WEST))]);
    for value in ["off", "local", "remote_write"] {
        survey.commit = Some(value.to_owned());
        refused(&plan(&["west"], &survey), value);
    }
    survey.commit = Some("remote_apply".to_owned());
    assert_eq!(plan(&["west"], &survey).refusals().count(), 0);
    survey.commit = None;
    warned(&plan(&["west"], &survey), "cannot be seen");
    survey.commit = Some("on".to_owned());
    let own = |who: &str, value: &str| Override {
        who: who.to_owned(),
        value: value.to_owned(),
        sessions: 3,
    };
    survey.overrides = vec![own("role batch in database main", "off"), own("role app", "on")];
    let plan = plan(&["west"], &survey);
    warned(&plan, "role batch in database main has synchronous_commit = off (3 sessions now)");
    assert!(!plan.remarks.iter().any(|remark| remark.message.contains("role app")));
}

#[test]
fn who_has_the_slot_and_may_be_somebody_else_is_named() {
    let mut stranger = sender(1, WEST, Some(WEST));
    stranger.role = "intern".to_owned();
    let plan_of = |sender| plan(&["west"], &survey("", vec![sender]));
    warned(&plan_of(stranger), "logged in as intern");
    let mut beside = sender(1, WEST, Some(WEST));
    beside.address = Some("10.1.0.10".to_owned());
    warned(&plan_of(beside.clone()), "connects from 10.1.0.10, which is in east");
    beside.address = None;
    warned(&plan_of(beside), "a socket of the server's own host");
    let known = plan_of(sender(1, WEST, Some(WEST)));
    assert!(!known.remarks.iter().any(|remark| remark.weight == Weight::Warning));
}

#[test]
fn what_only_controllers_act_on_is_said() {
    let survey = survey("", vec![sender(1, WEST, Some(WEST))]);
    let degrade = OnLoss::DegradeAfter("30s".parse().unwrap());
    let acknowledge = Acknowledge { on_loss: degrade, ..remote(1) };
    warned(&plan_with(&["west"], acknowledge, &survey, None, None), "by controllers alone");
    let nobody = plan_with(&["west"], remote(0), &survey, None, None);
    assert_eq!(nobody.after, "");
    assert_eq!(nobody.refusals().count(), 0);
}

#[test]
fn two_regions_of_one_name_are_refused() {
    let survey =
        survey("", vec![sender(1, "lifeboat_shop_main_a_b", Some("lifeboat_shop_main_a_b"))]);
    refused(&plan(&["a-b", "a_b"], &survey), "both called lifeboat_shop_main_a_b");
}
