//! One fault at a time, where the right answer is known.

use lifeboat_objects::{Created, Store};
use lifeboat_telemetry::Code;
use lifeboat_testkit::store::{Fault, Kind, Misbehaviour};

use super::{Bench, bytes, key};

#[tokio::test]
async fn a_create_whose_answer_got_lost_is_new() {
    for fault in [Fault::LostReply, Fault::ErrorAfterwards] {
        let bench = Bench::new(1);
        bench.proxy.fail_call(0, fault);
        let created = bench.store.create(&key("a"), bytes("mine")).await.unwrap();
        assert_eq!(created, Created::New, "{fault:?}");
        assert_eq!(bench.proxy.count(Kind::Put), 1, "{fault:?}: it was there already");
    }
}

#[tokio::test]
async fn a_lost_answer_does_not_hide_a_rival() {
    let bench = Bench::new(1);
    bench.server.plant("repository/a", "theirs");
    bench.proxy.fail_call(0, Fault::LostReply);
    let failure = bench.store.create(&key("a"), bytes("mine")).await.unwrap_err();
    assert_eq!(failure.code(), Code::ObjectConflict);
    assert_eq!(bench.store.get(&key("a")).await.unwrap(), "theirs");
}

#[tokio::test]
async fn a_create_that_was_refused_early_is_sent_again() {
    for fault in [Fault::Reset, Fault::Throttle, Fault::Error, Fault::Corrupt] {
        let bench = Bench::new(1);
        bench.proxy.fail_call(0, fault);
        let created = bench.store.create(&key("a"), bytes("mine")).await.unwrap();
        assert_eq!(created, Created::New, "{fault:?}");
        assert_eq!(bench.server.objects().len(), 1);
    }
}

#[tokio::test]
async fn one_damaged_answer_raises_no_alarm() {
    for fault in [Fault::Corrupt, Fault::Halve, Fault::BrokenReply] {
        let bench = Bench::new(1);
        bench.server.plant("repository/a", "the same");
        // Call 0 is the refused PUT, call 1 the comparing GET.
        bench.proxy.fail_call(1, fault);
        let created = bench.store.create(&key("a"), bytes("the same")).await.unwrap();
        assert_eq!(created, Created::Identical, "{fault:?}");
    }
}

#[tokio::test]
async fn one_false_404_is_not_absence() {
    let bench = Bench::new(1);
    bench.server.plant("repository/a", "here");
    for call in 0..2 {
        bench.proxy.reset();
        bench.proxy.fail_call(call, Fault::FalseNotFound);
        assert_eq!(bench.store.stat(&key("a")).await.unwrap().unwrap().size, 4);
        bench.proxy.reset();
        bench.proxy.fail_call(call, Fault::FalseNotFound);
        assert_eq!(bench.store.get(&key("a")).await.unwrap(), "here");
    }
}

#[tokio::test]
async fn a_head_that_always_denies_an_object_is_contradicted() {
    let bench = Bench::new(1);
    bench.server.plant("repository/a", "here");
    bench.proxy.fail_kind(Kind::Head, Fault::FalseNotFound);
    let failure = bench.store.stat(&key("a")).await.unwrap_err();
    assert_eq!(failure.code(), Code::StoreUnavailable, "{failure}");
}

#[tokio::test]
async fn absence_takes_two_looks() {
    let bench = Bench::new(1);
    assert_eq!(bench.store.stat(&key("a")).await.unwrap(), None);
    assert!(bench.proxy.calls().len() >= 2);
    bench.proxy.reset();
    assert!(Store::failure_is_absence(&bench.store.get(&key("a")).await.unwrap_err()));
    assert_eq!(bench.proxy.count(Kind::Get), 2);
}

#[tokio::test]
async fn a_broken_body_is_read_again() {
    for fault in [Fault::BrokenReply, Fault::Reset, Fault::LostReply] {
        let bench = Bench::new(1);
        bench.server.plant("repository/a", "0123456789");
        bench.proxy.fail_call(0, fault);
        assert_eq!(bench.store.get(&key("a")).await.unwrap(), "0123456789", "{fault:?}");
        bench.proxy.reset();
        bench.proxy.fail_call(0, fault);
        assert_eq!(bench.store.get_range(&key("a"), 2..6).await.unwrap(), "2345", "{fault:?}");
    }
}

#[tokio::test]
async fn a_range_that_arrives_short_is_never_taken() {
    let bench = Bench::new(1);
    bench.server.plant("repository/a", "0123456789");
    bench.proxy.fail_call(0, Fault::Halve);
    assert_eq!(bench.store.get_range(&key("a"), 2..8).await.unwrap(), "234567");
    bench.proxy.fail_kind(Kind::Get, Fault::Halve);
    let failure = bench.store.get_range(&key("a"), 2..8).await.unwrap_err();
    assert_eq!(failure.code(), Code::StoreUnavailable, "{failure}");
}

#[tokio::test]
async fn refused_credentials_are_not_tried_again() {
    let bench = Bench::new(1);
    bench.server.plant("repository/a", "x");
    for kind in [Kind::Put, Kind::Get, Kind::Head, Kind::List, Kind::Delete] {
        bench.proxy.fail_kind(kind, Fault::Deny);
    }
    let name = key("a");
    let failures = [
        bench.store.create(&name, bytes("x")).await.unwrap_err(),
        bench.store.get(&name).await.unwrap_err(),
        bench.store.stat(&name).await.unwrap_err(),
        bench.store.list("").await.unwrap_err(),
        bench.store.delete(&name).await.unwrap_err(),
    ];
    for failure in failures {
        assert_eq!(failure.code(), Code::StoreDenied, "{failure}");
        assert!(failure.hint_text().unwrap().contains("s3://bucket/repository"));
    }
    assert_eq!(bench.proxy.calls().len(), 5);
}

#[tokio::test]
async fn a_denied_delete_does_not_spoil_the_probe() {
    let bench = Bench::new(1);
    bench.proxy.fail_kind(Kind::Delete, Fault::Deny);
    let fitness = bench.store.probe("").await.unwrap();
    assert!(fitness.exclusive_create && !fitness.deletes);
}

#[tokio::test]
async fn a_store_that_overwrites_is_not_fit() {
    let bench = Bench::new(1);
    bench.server.misbehave(Misbehaviour::IgnoresConditions);
    assert!(!bench.store.probe("").await.unwrap().exclusive_create);
}

#[tokio::test]
async fn a_listing_without_end_is_noticed() {
    let bench = Bench::new(1);
    for number in 0..30 {
        bench.server.plant(&format!("repository/{number:02}"), "x");
    }
    assert_eq!(bench.store.list("").await.unwrap().len(), 30);
    bench.server.misbehave(Misbehaviour::IgnoresTokens);
    let failure = bench.store.list("").await.unwrap_err();
    assert_eq!(failure.code(), Code::StoreUnavailable);
    assert!(failure.to_string().contains("repeat"), "{failure}");
}

#[tokio::test]
async fn an_acknowledged_object_that_is_lost_is_reported() {
    let bench = Bench::new(1);
    bench.proxy.fail_call(0, Fault::AcknowledgeOnly);
    let failure = bench.store.create_verified(&key("a"), bytes("x")).await.unwrap_err();
    assert_eq!(failure.code(), Code::ObjectDamaged, "{failure}");
    bench.proxy.reset();
    bench.proxy.fail_call(0, Fault::Halve);
    let failure = bench.store.create_verified(&key("b"), bytes("whole")).await.unwrap_err();
    assert_eq!(failure.code(), Code::ObjectDamaged, "{failure}");
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let bench = Bench::new(1);
    for kind in [Kind::Put, Kind::Get] {
        bench.proxy.fail_kind(kind, Fault::Redirect);
    }
    bench.server.plant("repository/a", "elsewhere");
    let failures = [
        bench.store.create(&key("b"), bytes("x")).await.unwrap_err(),
        bench.store.get(&key("a")).await.unwrap_err(),
    ];
    for failure in failures {
        assert_eq!(failure.code(), Code::StoreUnavailable, "{failure}");
        assert!(failure.hint_text().unwrap().contains("region"), "{failure:?}");
    }
    assert_eq!(bench.server.objects().len(), 1);
}
