//! Whole profiles: success or a typed failure inside the deadline, and never a lie.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use lifeboat_objects::{Created, Options, Store};
use lifeboat_telemetry::{Code, Outcome};
use lifeboat_testkit::store::{Kind, Profile};

use super::{Bench, key, options};

/// Deadlines are real time; this much more is a hang.
const GRACE: Duration = Duration::from_secs(20);

fn body(number: usize) -> Bytes {
    Bytes::from(vec![u8::try_from(number).unwrap(); 2000 + number])
}

/// Creates and reads 40 objects; what the store said of each create.
async fn work(store: &Store) -> BTreeMap<usize, Outcome<Created>> {
    let mut said = BTreeMap::new();
    for number in 0..40 {
        let name = key(&format!("work/{number:02}"));
        let created =
            tokio::time::timeout(options().deadline + GRACE, store.create(&name, body(number)));
        said.insert(number, created.await.expect("a create hung"));
    }
    said
}

/// A create that succeeded is there; a create that failed did so with a code of stores.
fn assert_truthful(bench: &Bench, said: &BTreeMap<usize, Outcome<Created>>) {
    let objects = bench.server.objects();
    for (number, said) in said {
        let stored = objects.get(&format!("repository/work/{number:02}"));
        match said {
            Ok(Created::New) => assert_eq!(stored, Some(&body(*number)), "object {number}"),
            Ok(Created::Identical) => panic!("object {number} is ours, and new"),
            Err(failure) => assert_eq!(failure.code(), Code::StoreUnavailable, "{failure}"),
        }
    }
}

async fn storm(profile: Profile, seed: u64) -> BTreeMap<usize, Outcome<Created>> {
    let bench = Bench::new(seed);
    bench.proxy.set_profile(profile);
    let said = work(&bench.store).await;
    assert_truthful(&bench, &said);

    let listed = bench.store.list("work/").await.unwrap();
    assert_eq!(listed.len(), bench.server.objects().len());
    assert_eq!(bench.store.stat(&key("work/none")).await.unwrap(), None);
    bench.proxy.reset();
    let again = work(&bench.store).await;
    assert!(again.values().all(Result::is_ok), "a calm rerun does not converge");
    again
}

#[tokio::test]
async fn calm() {
    for seed in 0..3 {
        storm(Profile::CALM, seed).await;
    }
}

#[tokio::test]
async fn aws_bad_day() {
    for seed in 0..5 {
        storm(Profile::AWS_BAD_DAY, seed).await;
    }
}

#[tokio::test]
async fn fdb_heavy() {
    for seed in 0..3 {
        storm(Profile::FDB_HEAVY, seed).await;
    }
}

#[tokio::test]
async fn a_seed_repeats_its_storm() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let bench = Bench::new(42);
        bench.proxy.set_profile(Profile::AWS_BAD_DAY);
        work(&bench.store).await;
        runs.push(bench.proxy.calls());
    }
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].iter().any(|call| call.fault.is_some()), "nothing went wrong");
}

#[tokio::test]
async fn a_liar_is_found_out_by_reading_back() {
    let mut caught = 0;
    for seed in 0..5 {
        let bench = Bench::new(seed);
        bench.proxy.set_profile(Profile::LIAR);
        for number in 0..20 {
            let name = key(&format!("manifests/{number:02}"));
            let said = bench.store.create_verified(&name, body(number)).await;
            let stored = bench.server.objects().get(&format!("repository/{name}")).cloned();
            match said {
                Ok(_) => assert_eq!(stored, Some(body(number)), "seed {seed}, {name}"),
                Err(failure) => {
                    let code = failure.code();
                    assert!(
                        matches!(code, Code::ObjectDamaged | Code::ObjectMissing),
                        "seed {seed}: {failure}"
                    );
                    caught += 1;
                }
            }
        }
    }
    assert!(caught > 0, "the liar never lied");
}

#[tokio::test]
async fn a_liar_is_not_fit() {
    let bench = Bench::new(3);
    bench.proxy.set_profile(Profile::LIAR);
    let fitness = bench.store.probe("").await.unwrap();
    assert!(!fitness.exclusive_create);
}

#[tokio::test]
async fn a_tarpit_ends_at_the_deadline() {
    let short = Options {
        attempt_timeout: Duration::from_millis(150),
        deadline: Duration::from_millis(600),
        ..options()
    };
    let bench = Bench::with(1, short);
    bench.proxy.set_profile(Profile::TARPIT);
    let name = key("a");
    let calls = async {
        [
            bench.store.create(&name, body(1)).await.unwrap_err(),
            bench.store.get(&name).await.unwrap_err(),
            bench.store.stat(&name).await.unwrap_err(),
            bench.store.list("").await.unwrap_err(),
            bench.store.delete(&name).await.unwrap_err(),
            bench.store.probe("").await.unwrap_err(),
        ]
    };
    let failures = tokio::time::timeout(GRACE, calls).await.expect("a call hung");
    for failure in failures {
        assert_eq!(failure.code(), Code::StoreUnavailable, "{failure}");
        assert!(failure.to_string().contains("no answer within"), "{failure}");
    }
    assert!(bench.proxy.count(Kind::Get) > 1, "nothing was tried again");
}
