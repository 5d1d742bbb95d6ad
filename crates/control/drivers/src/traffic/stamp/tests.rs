use super::*;

fn stamp(epoch: u64) -> Stamp {
    let name = |text: &str| text.parse().unwrap();
    Stamp { service: name("ledger"), epoch, region: "west".parse().unwrap() }
}

#[test]
fn a_stamp_reads_back() {
    for epoch in [0, 7, u64::MAX] {
        assert_eq!(Stamp::read(&stamp(epoch).to_string()), Some(stamp(epoch)));
    }
    assert_eq!(stamp(7).to_string(), "lifeboat=1 service=ledger epoch=7 region=west");
}

#[test]
fn nothing_else_is_a_stamp() {
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
        assert_eq!(Stamp::read(text), None, "{text}");
    }
}
