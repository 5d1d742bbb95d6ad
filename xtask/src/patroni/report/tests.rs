use super::*;

const EAST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
const WEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

fn told(client: i32, number: i32, server: IpAddr, at_ms: u64) -> Told {
    Told { client, number, server, at: Duration::from_millis(at_ms) }
}

/// Two clients; the second one is told for the last time earlier, and comes back later.
fn history() -> Vec<Told> {
    vec![
        told(0, 1, EAST, 100),
        told(1, 1, EAST, 90),
        told(0, 2, EAST, 110),
        told(0, 4, WEST, 500),
        told(1, 3, WEST, 700),
        told(0, 5, WEST, 600),
    ]
}

#[test]
fn an_outage_is_between_two_sides_for_all_and_for_each() {
    let found = outage(&history(), 2, EAST, WEST).unwrap();
    let ms = Duration::from_millis;
    let wanted = Outage { first: ms(390), slowest: ms(610), served_at: ms(500), overlap: 0 };
    assert_eq!(found, wanted);
}

#[test]
fn what_the_old_side_says_too_late_is_counted() {
    let mut told = history();
    told.push(self::told(1, 2, EAST, 550));
    let found = outage(&told, 2, EAST, WEST).unwrap();
    assert_eq!(found.overlap, 1);
    // That is the other client's last word, but the service was back before it.
    assert_eq!(found.first, Duration::from_millis(390));
    assert_eq!(found.slowest, Duration::from_millis(390));
}

#[test]
fn a_client_that_was_not_served_on_both_sides_is_no_measurement() {
    let error = outage(&history(), 3, EAST, WEST).unwrap_err().to_string();
    assert_eq!(error, "client 2 was not served on both sides");
    assert!(outage(&history(), 2, WEST, EAST).is_err());
    assert!(outage(&[], 0, EAST, WEST).is_err());
}

#[test]
fn what_is_acknowledged_and_gone_is_found() {
    let rows = "0|1\n1|1\n0|3\n0|4\n1|3\n0|5";
    assert_eq!(gone(&history(), rows).unwrap(), [told(0, 2, EAST, 110)]);
    assert!(gone(&history(), "").is_err());
    assert!(gone(&history(), "0;1").is_err());
}
