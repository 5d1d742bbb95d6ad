use proptest::prelude::*;

use super::*;

const fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn it_never_moves_back_and_never_wakes_up_again() {
    let mut deadline = Deadline::new(at(1000));
    assert!(!deadline.passed(at(u64::MAX / 2)), "a standby lives for ever");
    assert_eq!(deadline.extend(at(100), at(600)), Ok(at(600)));
    assert_eq!(deadline.extend(at(100), at(500)), Ok(at(600)), "the later one holds");
    assert_eq!(deadline.extend(at(300), at(300)), Err(Declined::Past(at(0))));
    assert_eq!(deadline.extend(at(300), at(1301)), Err(Declined::TooFar(at(1))));
    assert_eq!(deadline.extend(at(300), at(1300)), Ok(at(1300)));
    assert!(!deadline.passed(at(1299)));
    assert!(deadline.passed(at(1300)));
    assert_eq!(deadline.extend(at(1300), at(2000)), Err(Declined::Over));
    assert_eq!(deadline.until(), Some(at(1300)));
    deadline.clear();
    assert_eq!(deadline.until(), None);
}

proptest! {
    #[test]
    fn whatever_is_asked_it_is_within_a_lease_and_grows(
        asks in prop::collection::vec((0..50u64, 0..5000u64), 1..50),
    ) {
        let mut deadline = Deadline::new(at(1000));
        let (mut now, mut before) = (0, None);
        for (later, to) in asks {
            now += later;
            let alive = !deadline.passed(at(now));
            if deadline.extend(at(now), at(to)).is_ok() {
                prop_assert!(alive);
                let until = deadline.until().unwrap();
                prop_assert!(until <= at(now + 1000) && until > at(now));
            }
            prop_assert!(deadline.until() >= before);
            before = deadline.until();
        }
    }
}
