use super::*;

fn mark(epoch: u64) -> Mark {
    let name = |text: &str| text.parse().unwrap();
    Mark { service: name("ledger"), epoch, region: "west".parse().unwrap() }
}

#[test]
fn a_mark_reads_back() {
    for epoch in [0, 7, u64::MAX] {
        assert_eq!(Mark::read(&mark(epoch).to_string()), Some(mark(epoch)));
    }
    assert_eq!(mark(7).to_string(), "lifeboat=1 service=ledger epoch=7 region=west");
}

#[test]
fn nothing_else_is_a_mark() {
    for text in [
        "",
        "v=spf1 -all",
        "lifeboat=2 service=ledger epoch=7 region=west",
        "lifeboat=1 service=ledger epoch=7 region=west more=1",
        "lifeboat=1 service=ledger epoch=7",
        "lifeboat=1 service=ledger epoch=07 region=west",
        "lifeboat=1 service=ledger epoch=+7 region=west",
        "lifeboat=1 service=ledger epoch=-7 region=west",
        "lifeboat=1 service=ledger epoch=18446744073709551616 region=west",
        "lifeboat=1 service= epoch=7 region=west",
        "lifeboat=1 epoch=7 service=ledger region=west",
        "lifeboat=1  service=ledger epoch=7 region=west",
        "lifeboat=1 service=ledger epoch=7 region=west ",
    ] {
        assert_eq!(Mark::read(text), None, "{text}");
    }
}
