use super::receiver_name;

fn name(id: &str, region: &str) -> String {
    receiver_name(&id.parse().unwrap(), &region.parse().unwrap())
}

#[test]
fn a_name_can_be_that_of_a_slot() {
    assert_eq!(name("payments/ledger", "west"), "lifeboat_payments_ledger_west");
    assert_eq!(name("Pay-ments/led.ger", "EU-2"), "lifeboat_pay_ments_led_ger_eu_2");
}

#[test]
fn a_long_name_keeps_its_difference() {
    let service = "s".repeat(40);
    // 9 + 40 + 1 + 2 + 1 + 10 bytes: the longest that is left alone.
    let whole = name(&format!("{service}/db"), "west-23456");
    assert_eq!(whole.len(), 63);
    assert!(whole.ends_with("_db_west_23456"), "{whole}");

    let west = name(&format!("{service}/db"), "west-234567");
    let east = name(&format!("{service}/db"), "east-234567");
    assert_eq!((west.len(), east.len()), (63, 63));
    assert_ne!(west, east);
    assert_eq!(west[..54], whole[..54]);
    assert!(west[55..].bytes().all(|byte| byte.is_ascii_hexdigit()), "{west}");
}
