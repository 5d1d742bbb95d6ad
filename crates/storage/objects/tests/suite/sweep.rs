//! The fault sweep (bar B3): each call of a script fails once, in each way. The script ends in
//! full success or says that it did not; a calm rerun reaches the state of an undisturbed run.

use std::collections::BTreeMap;

use bytes::Bytes;
use lifeboat_environment::{Random, SeededRandom};
use lifeboat_objects::{Options, Store};
use lifeboat_telemetry::{Code, Outcome};
use lifeboat_testkit::store::Fault;

use super::{Bench, bytes, key, options};

/// What a small backup does to a store.
async fn script(store: &Store) -> Outcome<Vec<String>> {
    store.create(&key("format"), bytes("format 1")).await?;
    store.create_by_digest(&key("packs/aa"), Bytes::from(vec![1; 5000])).await?;
    store.create_by_digest(&key("packs/bb"), Bytes::from(vec![2; 7000])).await?;
    store.create(&key("scratch"), bytes("short-lived")).await?;
    let absent = store.stat(&key("manifests/1")).await?;
    store.create_verified(&key("manifests/1"), bytes("aa bb")).await?;
    let pack = store.get_range(&key("packs/aa"), 10..20).await?;
    let (size, tail) = store.get_tail(&key("packs/bb"), 4).await?;
    store.delete(&key("scratch")).await?;
    let manifest = store.get(&key("manifests/1")).await?;
    let listed = store.list("").await?;
    assert!(absent.is_none() || manifest == "aa bb");
    let names = listed.into_iter().map(|(key, _)| key.as_str().to_owned());
    let read = format!("{pack:?} {size} {tail:?} {manifest:?}");
    Ok(names.chain([read]).collect())
}

/// Faults after which another attempt works.
const PASSING: [Fault; 7] = [
    Fault::Error,
    Fault::ErrorAfterwards,
    Fault::Throttle,
    Fault::Reset,
    Fault::LostReply,
    Fault::BrokenReply,
    Fault::FalseNotFound,
];

struct Reference {
    calls: usize,
    said: Vec<String>,
    objects: BTreeMap<String, Bytes>,
}

async fn reference() -> Reference {
    let bench = Bench::new(1);
    let said = script(&bench.store).await.unwrap();
    let (calls, objects) = (bench.proxy.calls().len(), bench.server.objects());
    assert!(calls >= 12, "the script makes too few calls: {calls}");
    Reference { calls, said, objects }
}

/// Whether the disturbed run succeeded.
async fn disturbed(reference: &Reference, faults: &[(usize, Fault)], options: Options) -> bool {
    let bench = Bench::with(1, options);
    for (call, fault) in faults {
        bench.proxy.fail_call(*call, *fault);
    }
    let said = script(&bench.store).await;
    let hit = bench.proxy.calls().iter().any(|call| call.fault.is_some());
    assert!(hit, "{faults:?}: no such call");
    let succeeded = match said {
        Ok(said) => {
            assert_eq!(said, reference.said, "{faults:?}");
            assert_eq!(bench.server.objects(), reference.objects, "{faults:?}");
            true
        }
        Err(failure) => {
            let code = failure.code();
            assert!(
                matches!(
                    code,
                    Code::StoreUnavailable
                        | Code::StoreDenied
                        | Code::ObjectMissing
                        | Code::ObjectDamaged
                        | Code::ObjectConflict
                ),
                "{faults:?}: {failure}"
            );
            assert!(failure.hint_text().is_some(), "{faults:?}: {failure}");
            false
        }
    };
    bench.proxy.reset();
    let again = script(&bench.store).await.expect("a calm rerun failed");
    assert_eq!(again, reference.said, "{faults:?}: the rerun");
    assert_eq!(bench.server.objects(), reference.objects, "{faults:?}: the rerun");
    succeeded
}

#[tokio::test]
async fn a_fault_that_passes_is_overcome_wherever_it_strikes() {
    let reference = reference().await;
    for fault in PASSING {
        for call in 0..reference.calls {
            let overcome = disturbed(&reference, &[(call, fault)], options()).await;
            assert!(overcome, "{fault:?} at call {call} was not overcome");
        }
    }
}

#[tokio::test]
async fn without_a_second_attempt_every_fault_is_loud() {
    let reference = reference().await;
    let once = Options { attempts: 1, ..options() };
    for fault in [Fault::Error, Fault::ErrorAfterwards, Fault::Reset, Fault::LostReply, Fault::Deny]
    {
        for call in 0..reference.calls {
            let survived = disturbed(&reference, &[(call, fault)], once).await;
            assert!(!survived, "{fault:?} at call {call} went unnoticed");
        }
    }
}

#[tokio::test]
async fn two_faults_are_overcome_too() {
    let reference = reference().await;
    let random = SeededRandom::new(5);
    let draw = |below: usize| usize::try_from(random.next_u64()).unwrap() % below;
    for _ in 0..100 {
        let faults = [0, 1].map(|_| (draw(reference.calls), PASSING[draw(PASSING.len())]));
        // The same lie told twice is believed: that is what "two looks" means.
        if faults.iter().all(|(_, fault)| *fault == Fault::FalseNotFound) {
            continue;
        }
        assert!(disturbed(&reference, &faults, options()).await, "{faults:?} were not overcome");
    }
}
