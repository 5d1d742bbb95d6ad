//! The manual shows what the tests run.

use lifeboat_drivers::traffic::Stamp;
use lifeboat_model::Spec;
use lifeboat_testkit::bind::{Key, Zone};
use lifeboat_testkit::haproxy::{Member, proxies};

const MANUAL: &str = include_str!("../../../../../docs/operations/traffic.md");
const EXAMPLE: &str = include_str!("../../../../../examples/postgres-quorum-failover.yaml");

#[test]
fn the_manual_shows_the_configurations_of_the_tests() {
    let key = Key { name: "lifeboat".to_owned(), secret: "SECRET".to_owned() };
    let record = "ledger.example.test.".to_owned();
    let zone = Zone { name: "example.test.".to_owned(), records: vec![record], key };
    let shown = zone.statements("");
    assert!(MANUAL.contains(&shown), "the manual lacks\n{shown}");

    let member = |name: &str, host: &str| Member {
        name: name.to_owned(),
        serves: format!("{host}:5432").parse().unwrap(),
        agent: format!("{host}:8008").parse().unwrap(),
    };
    let members = [member("pg-east", "10.1.0.10"), member("pg-west", "10.2.0.10")];
    let shown = proxies("ledger", "10.1.0.5:5432".parse().unwrap(), &members);
    assert!(MANUAL.contains(&shown), "the manual lacks\n{shown}");

    let stamp = MANUAL.lines().find_map(|line| line.split("TXT \"").nth(1)).unwrap();
    assert!(Stamp::read(stamp.trim_end_matches('"')).is_some(), "{stamp}");
}

/// What it says for the spec is what the spec takes.
#[test]
fn the_manual_shows_traffic_that_loads() {
    let (before, _) = EXAMPLE.split_once("    traffic:\n").unwrap();
    let blocks = MANUAL.split("```\n").filter(|block| block.starts_with("traffic:\n"));
    let mut loaded = 0;
    for block in blocks {
        let indented: String = block.lines().map(|line| format!("    {line}\n")).collect();
        let text = format!("{before}{indented}");
        let spec = Spec::load(&text, "lifeboat.yaml".as_ref()).accept();
        assert!(spec.is_ok(), "{block}\n{:?}", spec.map(|_| ()).unwrap_err());
        loaded += 1;
    }
    assert_eq!(loaded, 2);
}
