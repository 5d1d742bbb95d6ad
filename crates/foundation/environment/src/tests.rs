use std::sync::Arc;
use std::time::Duration;

use super::*;

#[test]
fn a_seed_gives_the_same_bytes_and_another_seed_others() {
    let take = |seed| {
        let mut bytes = [0; 21];
        SeededRandom::new(seed).fill(&mut bytes);
        bytes
    };
    assert_eq!(take(7), take(7));
    assert_ne!(take(7), take(8));
}

#[test]
fn failpoints_fail_as_often_as_asked() {
    let list = "a=error*2;b=sleep:1; c = error ;nonsense;d=explode".to_owned();
    let points = Failpoints::from_list(Some(&list));
    assert!(points.hit("a").is_err());
    assert!(points.hit("a").is_err());
    assert!(points.hit("a").is_ok());
    assert!(points.hit("b").is_ok());
    assert!(points.hit("c").is_err());
    assert!(points.hit("d").is_ok());
    assert!(points.hit("unnamed").is_ok());
}

#[test]
fn a_manual_clock_moves_only_when_told() {
    let clock = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
    let environment =
        Environment::for_test(Arc::<ManualClock>::clone(&clock), Arc::new(SeededRandom::new(1)));
    environment.clock().sleep(Duration::from_secs(5));
    assert_eq!(environment.clock().elapsed(), Duration::from_secs(5));
    clock.jump_wall(jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(environment.clock().now(), jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(environment.clock().elapsed(), Duration::from_secs(5));
}
