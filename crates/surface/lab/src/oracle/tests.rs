use super::*;
use crate::ledger::Way;

const SECOND: u64 = 1_000_000_000;

/// An acknowledged write of a node on a timeline, answered at a tenth of a second.
fn write(node: &str, timeline: u32, tenth: u64) -> Entry {
    Entry {
        answer: Answer::Acknowledged,
        writer: "client-1".to_owned(),
        way: Way::Endpoint,
        session: u64::from(timeline),
        sequence: tenth,
        node: Some(node.to_owned()),
        system: Some("7".to_owned()),
        timeline: Some(timeline),
        sent_ns: tenth * SECOND / 10 - 1000,
        done_ns: tenth * SECOND / 10,
        why: None,
    }
}

/// East writes for ten seconds, something happens, the west goes on three seconds later.
fn sound() -> Evidence {
    let east = (1..=100).map(|tenth| write("east-1", 1, tenth));
    let west = (130..=200).map(|tenth| write("west-1", 2, tenth));
    let entries: Vec<Entry> = east.chain(west).collect();
    let rows = entries.iter().map(row).collect();
    Evidence {
        history: History { entries },
        survivor: Some(Survivor { node: "west-1".to_owned(), rows }),
        disturbances: vec![Disturbed { name: "region east".to_owned(), at_ns: 10 * SECOND }],
        moves: Some(vec![Move {
            run: "run 1".to_owned(),
            from: "east-1".to_owned(),
            to: "west-1".to_owned(),
            rto: Some(Duration::from_millis(3200)),
            loss: Loss::Nothing,
            unexplained: Vec::new(),
        }]),
    }
}

fn finding(evidence: &Evidence, name: &str) -> Finding {
    let verdict = judge(evidence);
    verdict.checks.into_iter().find(|check| check.name == name).unwrap().finding
}

fn violated(evidence: &Evidence, name: &str) -> String {
    assert!(!judge(evidence).holds());
    match finding(evidence, name) {
        Finding::Violated(cases) => cases.join("; "),
        other => panic!("not violated: {other:?}"),
    }
}

fn not_checked(evidence: &Evidence, name: &str) {
    assert!(!judge(evidence).holds());
    let found = finding(evidence, name);
    assert!(matches!(found, Finding::NotChecked(_)), "{found:?}");
    let failure = judge(evidence).outcome().unwrap_err();
    assert_eq!(failure.code(), Code::OracleBlind, "{failure:?}");
}

const ONE: &str = "one node writes at a time";
const KEPT: &str = "what was acknowledged is there";
const REFUSED: &str = "what was refused is not there";
const TIMES: &str = "reported times are what clients saw";
const STEPS: &str = "the journal explains each step";

#[test]
fn a_sound_move_holds() {
    let verdict = judge(&sound());
    assert!(verdict.holds(), "{:#?}", verdict.lines());
    verdict.outcome().unwrap();
    assert_eq!(outages(&sound().history)[0].first.as_millis(), 3000);
}

#[test]
fn a_write_of_the_old_primary_after_the_first_of_the_new_one_is_caught() {
    let mut evidence = sound();
    evidence.history.entries.push(write("east-1", 1, 131));
    evidence.survivor.as_mut().unwrap().rows.insert(("client-1".to_owned(), 1, 131));
    let said = violated(&evidence, ONE);
    assert!(said.contains("both acknowledged"), "{said}");
    assert_eq!(judge(&evidence).outcome().unwrap_err().code(), Code::OracleViolated);
}

#[test]
fn two_nodes_promoted_to_one_timeline_are_caught_also_apart_in_time() {
    let mut evidence = sound();
    for entry in &mut evidence.history.entries {
        entry.timeline = Some(2);
    }
    assert!(violated(&evidence, ONE).contains("both wrote on timeline 2"));
}

#[test]
fn a_timeline_that_goes_back_is_caught() {
    let mut evidence = sound();
    evidence.history.entries.push(write("east-1", 1, 300));
    evidence
        .history
        .entries
        .retain(|entry| entry.node.as_deref() != Some("east-1") || entry.sequence == 300);
    assert!(violated(&evidence, ONE).contains("began to write on timeline 1 after"));
}

#[test]
fn another_cluster_is_caught() {
    let mut evidence = sound();
    evidence.history.entries[5].system = Some("8".to_owned());
    assert!(violated(&evidence, ONE).contains("different clusters"));
}

#[test]
fn an_acknowledgement_without_identity_is_not_judged() {
    let mut evidence = sound();
    evidence.history.entries[5].timeline = None;
    not_checked(&evidence, ONE);
}

#[test]
fn a_lost_row_is_caught_unless_it_was_reported() {
    let mut evidence = sound();
    let rows = &mut evidence.survivor.as_mut().unwrap().rows;
    rows.remove(&("client-1".to_owned(), 1, 99));
    assert!(violated(&evidence, KEPT).contains("row 99"));
    let report = |evidence: &mut Evidence, loss| {
        evidence.moves.as_mut().unwrap()[0].loss = loss;
    };
    report(&mut evidence, Loss::Last(Duration::from_secs(1)));
    assert!(judge(&evidence).holds());
    // What is far outside of the reported loss is no part of it.
    let rows = &mut evidence.survivor.as_mut().unwrap().rows;
    rows.remove(&("client-1".to_owned(), 1, 50));
    assert!(violated(&evidence, KEPT).contains("row 50"));
    report(&mut evidence, Loss::Unknown);
    assert!(judge(&evidence).holds());
}

#[test]
fn a_row_that_the_new_primary_acknowledged_and_lost_is_no_part_of_any_loss() {
    let mut evidence = sound();
    evidence.moves.as_mut().unwrap()[0].loss = Loss::Unknown;
    let rows = &mut evidence.survivor.as_mut().unwrap().rows;
    rows.remove(&("client-1".to_owned(), 2, 150));
    assert!(violated(&evidence, KEPT).contains("row 150"));
}

#[test]
fn unknown_answers_may_be_either_and_refused_ones_may_not() {
    let mut evidence = sound();
    for (sequence, answer) in [(501, Answer::Unknown), (502, Answer::Unknown)] {
        let mut entry = write("east-1", 1, 100);
        (entry.sequence, entry.answer) = (sequence, answer);
        evidence.history.entries.push(entry);
    }
    let rows = &mut evidence.survivor.as_mut().unwrap().rows;
    rows.insert(("client-1".to_owned(), 1, 501));
    assert!(judge(&evidence).holds());
    evidence.history.entries.last_mut().unwrap().answer = Answer::Refused;
    assert!(judge(&evidence).holds());
    let rows = &mut evidence.survivor.as_mut().unwrap().rows;
    rows.insert(("client-1".to_owned(), 1, 502));
    assert!(violated(&evidence, REFUSED).contains("row 502"));
}

#[test]
fn a_report_that_is_not_what_clients_saw_is_caught() {
    let mut evidence = sound();
    let one = |evidence: &mut Evidence, change: fn(&mut Move)| {
        change(&mut evidence.moves.as_mut().unwrap()[0]);
    };
    one(&mut evidence, |one| one.rto = Some(Duration::from_millis(1900)));
    assert!(violated(&evidence, TIMES).contains("reported 1.9 s"));
    one(&mut evidence, |one| one.rto = Some(Duration::from_millis(4100)));
    violated(&evidence, TIMES);
    one(&mut evidence, |one| one.rto = None);
    assert!(violated(&evidence, TIMES).contains("no RTO"));
    one(&mut evidence, |one| {
        one.rto = Some(Duration::from_secs(3));
        "north-1".clone_into(&mut one.to);
    });
    assert!(violated(&evidence, TIMES).contains("clients moved"));
}

#[test]
fn a_move_that_nobody_reported_and_a_step_without_a_word_are_caught() {
    let mut evidence = sound();
    evidence.moves.as_mut().unwrap()[0].unexplained.push("fence".to_owned());
    assert!(violated(&evidence, STEPS).contains("run 1: fence"));
    evidence.moves = Some(Vec::new());
    assert!(violated(&evidence, STEPS).contains("clients saw 1 moves"));
    not_checked_alone(&evidence, TIMES);
}

fn not_checked_alone(evidence: &Evidence, name: &str) {
    let found = finding(evidence, name);
    assert!(matches!(found, Finding::NotChecked(_)), "{found:?}");
}

#[test]
fn what_could_not_be_looked_at_is_no_success() {
    let mut evidence = sound();
    evidence.survivor = None;
    not_checked(&evidence, KEPT);
    not_checked(&evidence, REFUSED);
    let mut evidence = sound();
    evidence.moves = None;
    for name in [KEPT, TIMES, STEPS] {
        not_checked(&evidence, name);
    }
}

#[test]
fn a_scenario_in_which_nothing_happened_is_no_success() {
    let mut evidence = sound();
    evidence.disturbances.clear();
    not_checked(&evidence, "something was done to the lab");
    let mut evidence = sound();
    evidence.history.entries.clear();
    evidence.moves = Some(Vec::new());
    not_checked(&evidence, "clients were answered");
    not_checked(&evidence, ONE);
    // Acknowledgements that all came afterwards say nothing about the disturbance.
    let mut evidence = sound();
    evidence.disturbances[0].at_ns = 0;
    not_checked(&evidence, "clients were answered");
}

/// The east takes a write at eight seconds and answers at ten, when a link is mended: whoever waited
/// for that was not served.
#[test]
fn who_waits_for_an_answer_is_not_served() {
    let mut evidence = sound();
    let all = &mut evidence.history.entries;
    all.retain(|entry| entry.timeline != Some(1) || entry.sequence <= 80 || entry.sequence == 100);
    all.iter_mut().find(|entry| entry.sequence == 100).unwrap().sent_ns = 8 * SECOND;
    assert_eq!(outages(&evidence.history)[0].first, Duration::from_secs(5));
    violated(&evidence, TIMES);
    evidence.moves.as_mut().unwrap()[0].rto = Some(Duration::from_millis(4800));
    assert!(matches!(finding(&evidence, TIMES), Finding::Holds(_)));
}

/// A write that the east was asked for at nine seconds and acknowledged at 15, when the west wrote.
fn late_answer() -> Evidence {
    let mut evidence = sound();
    let mut entry = write("east-1", 1, 150);
    entry.sent_ns = 9 * SECOND;
    let kept = row(&entry);
    evidence.history.entries.push(entry);
    evidence.history.entries.sort_by_key(|entry| entry.done_ns);
    evidence.survivor.as_mut().unwrap().rows.insert(kept);
    evidence.disturbances[0].name = "freeze east".to_owned();
    evidence
}

#[test]
fn late_answers_of_a_frozen_host_are_told_and_others_are_not_forgiven() {
    let name = "one node writes at a time";
    match finding(&late_answer(), name) {
        Finding::Holds(on) => assert!(on.contains("1 late answers"), "{on}"),
        other => panic!("{other:?}"),
    }
    // Of a server alone, or of another host: the guard there was not frozen.
    for fault in ["freeze east/postgres", "freeze west", "isolate east"] {
        let mut evidence = late_answer();
        evidence.disturbances[0].name = fault.to_owned();
        violated(&evidence, name);
    }
    // Sent after the west began.
    let mut evidence = late_answer();
    let east = |entry: &&mut Entry| entry.sequence == 150 && entry.timeline == Some(1);
    evidence.history.entries.iter_mut().find(east).unwrap().sent_ns = 14 * SECOND;
    violated(&evidence, name);
    // The west does not have it.
    let mut evidence = late_answer();
    let lost = evidence
        .history
        .entries
        .iter()
        .find(|entry| entry.sequence == 150 && entry.timeline == Some(1));
    let lost = row(lost.unwrap());
    evidence.survivor.as_mut().unwrap().rows.remove(&lost);
    violated(&evidence, name);
}
