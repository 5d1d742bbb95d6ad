use std::path::Path;

use lifeboat_telemetry::Code;

use crate::*;

const FULL: &str = include_str!("../../../../../examples/full.yaml");

fn full() -> Spec {
    Spec::load(FULL, Path::new("full.yaml")).accept().unwrap()
}

#[test]
fn databases_regions_and_nodes_are_found() {
    let spec = full();
    let id: DatabaseId = "payments/ledger".parse().unwrap();
    assert_eq!(spec.only_database().unwrap(), id);
    assert_eq!(spec.databases().map(|(id, _)| id).collect::<Vec<_>>(), std::slice::from_ref(&id));
    let database = spec.database(&id).unwrap();
    let west: RegionName = "west".parse().unwrap();
    let nodes: Vec<&str> = database.nodes_of(&west).map(|(name, _)| name.as_str()).collect();
    assert_eq!(nodes, ["west-1"]);
    let directory = Path::new("/var/lib/postgresql/15/main");
    let (found, name, node) = spec.node_by_data_directory(directory, Some(&west)).unwrap();
    assert_eq!((found, name.as_str()), (id, "west-1"));
    assert_eq!(node.connection.as_written(), "host=/run/postgresql port=5432 user=postgres");
    assert!(spec.node_by_data_directory(Path::new("/elsewhere"), None).is_none());
    assert!(spec.region(&west).is_ok());
    let failure = spec.region(&"north".parse().unwrap()).unwrap_err();
    assert_eq!(failure.code(), Code::RegionUnknown);
    let failure = spec.database(&"payments/x".parse().unwrap()).unwrap_err();
    assert_eq!(failure.hint_text(), Some("Name one of payments/ledger."));
}

#[test]
fn a_service_may_have_objectives_of_its_own() {
    let text = FULL.replace("    tier: tier-1", "    tier: tier-1\n    rpo: 1s");
    let spec = Spec::load(&text, Path::new("full.yaml")).accept().unwrap();
    let service = spec.services.get("payments").unwrap();
    let objectives = spec.objectives(service).unwrap();
    assert_eq!(
        (objectives.rto.to_string(), objectives.rpo.to_string()),
        ("5m".into(), "1s".into())
    );
}

#[test]
fn only_what_is_wrong_or_unsafe_is_refused() {
    let load = |from: &str, to: &str| {
        Spec::load(&FULL.replace(from, to), Path::new("full.yaml")).accept().map_err(|e| e.code())
    };
    assert!(load("mode: stream", "mode: archive").is_ok());
    assert_eq!(load("lease: 10s", "lease: 6s").unwrap_err(), Code::SpecUnsafe);
    assert_eq!(load("lease: 10s", "lease: soon").unwrap_err(), Code::SpecInvalid);
}

#[test]
fn wal_is_flushed_ten_times_an_rpo_within_bounds() {
    let flush = |rpo: &str| spec::default_flush_every(rpo.parse().unwrap()).to_string();
    assert_eq!([flush("0s"), flush("1m"), flush("24h")], ["500ms", "6s", "10s"]);
}

#[test]
fn anchors_and_merge_keys_may_be_used() {
    let text = "\
lifeboat: 1
regions: { east: { repository: { url: \"file:///e\" } } }
tiers:
  one: &one { rto: 5m, rpo: 1m }
  two: { <<: *one, rpo: 2m }
  three: *one
";
    let spec = Spec::load(text, Path::new("anchors.yaml")).accept().unwrap();
    let tiers: Vec<_> = spec.tiers.values().map(|tier| (tier.rto, tier.rpo)).collect();
    let time = |text: &str| text.parse::<TimeSpan>().unwrap();
    let one = (time("5m"), time("1m"));
    assert_eq!(tiers, [one, one, (time("5m"), time("2m"))]);
}
