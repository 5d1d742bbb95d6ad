use super::*;

fn promise(line: &str) -> Promise {
    Promise::of(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
}

#[test]
fn the_promise_is_read_from_any_order_of_flags() {
    assert_eq!(promise("lifeboat wal fetch"), Promise::Fetch);
    assert_eq!(promise("lifeboat --spec wal wal fetch --nonsense"), Promise::Fetch);
    assert_eq!(promise("lifeboat --json wal --here=east fetch a b"), Promise::Fetch);
    assert_eq!(promise("lifeboat -v wal --here east push"), Promise::Push);
    assert_eq!(promise("lifeboat wal status fetch"), Promise::Plain);
    assert_eq!(promise("lifeboat explain wal fetch"), Promise::Plain);
    assert_eq!(promise("lifeboat"), Promise::Plain);
}

#[test]
fn fetch_ends_a_recovery_only_with_proved_absence() {
    for code in Code::ALL {
        let expected = if *code == Code::WalAbsent { 1 } else { 200 };
        assert_eq!(Promise::Fetch.failure(&Failure::new(*code, "x")), expected, "{code}");
    }
    assert_eq!(Promise::Fetch.interrupted(), 200);
    assert_eq!(Promise::Fetch.success(0), 0);
    assert_eq!(Promise::Fetch.success(5), 200);
}

#[test]
fn push_failures_stay_where_the_archiver_counts_them() {
    for code in Code::ALL {
        let exit = Promise::Push.failure(&Failure::new(*code, "x"));
        assert!((1..=125).contains(&exit), "{code} gives {exit}");
    }
    assert!((1..=125).contains(&Promise::Push.interrupted()));
}
