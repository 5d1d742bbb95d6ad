use super::super::Stamp;
use super::*;

fn found(epoch: Option<u64>, leads_to: LeadsTo) -> Outcome<Found> {
    let service = "ledger".parse().unwrap();
    let region = "west".parse().unwrap();
    Ok(Found { stamp: epoch.map(|epoch| Stamp { service, epoch, region }), leads_to, flaw: None })
}

fn to(region: &str) -> LeadsTo {
    LeadsTo::Region(region.parse().unwrap())
}

fn failed(code: Code) -> Outcome<Found> {
    Err(Failure::new(code, "ns3 does not answer"))
}

fn answers(found: Vec<Outcome<Found>>) -> Vec<Answer> {
    let number = |(number, found)| Answer { server: format!("ns{}", number + 1), found };
    found.into_iter().enumerate().map(number).collect()
}

#[test]
fn the_newest_stamp_wins_and_all_others_dissent() {
    let shown = vec![
        found(Some(4), to("west")),
        found(Some(5), LeadsTo::Nowhere),
        failed(Code::TrafficSilent),
        found(Some(5), to("west")),
        found(Some(5), to("east")),
        found(None, to("west")),
        found(None, LeadsTo::Elsewhere("203.0.113.9".to_owned())),
    ];
    let pointing = picture(answers(shown)).unwrap();
    assert_eq!(pointing.epoch, Some(5));
    assert_eq!(pointing.region, Some("west".parse().unwrap()));
    assert_eq!(
        pointing.dissent,
        [
            "ns1 leads to west, for epoch 4",
            "ns2 leads nowhere",
            "ns3 does not answer",
            "ns5 leads to east, but epoch 5 is of west",
            "ns6 leads to west, without a stamp of ours",
            "ns7 leads to 203.0.113.9, which is not one region's",
        ]
    );
}

#[test]
fn a_record_before_its_adoption_has_no_epoch() {
    let same = answers(vec![found(None, to("east")), found(None, to("east"))]);
    let pointing = picture(same).unwrap();
    assert_eq!((pointing.epoch, pointing.dissent.len()), (None, 0));
    let apart = picture(answers(vec![found(None, to("east")), found(None, to("west"))])).unwrap();
    assert_eq!(apart.dissent, ["ns2 leads to west, without a stamp of ours"]);
}

#[test]
fn where_nobody_shows_anything_the_telling_failure_is_told() {
    let all = vec![failed(Code::TrafficSilent), failed(Code::TrafficKeyRefused)];
    let failure = picture(answers(all)).unwrap_err();
    assert_eq!(failure.code(), Code::TrafficKeyRefused);
    assert_eq!(failure.detail_lines().len(), 1);
    assert_eq!(picture(Vec::new()).unwrap_err().code(), Code::TrafficSilent);
}

#[test]
fn one_server_with_a_later_epoch_refuses_for_all() {
    let all = vec![found(Some(4), to("west")), failed(Code::TrafficSuperseded)];
    assert_eq!(result(answers(all)).unwrap_err().code(), Code::TrafficSuperseded);
    let some = vec![failed(Code::TrafficForeign), found(Some(4), to("west"))];
    assert_eq!(result(answers(some)).unwrap().dissent.len(), 1);
}
