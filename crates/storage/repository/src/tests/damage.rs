//! Any single damaged, shortened, lost or swapped object is found, and by name.

use bytes::Bytes;
use lifeboat_objects::{Key, Location, Options, Store};
use lifeboat_telemetry::{Cancel, Reporter};

use super::sample;
use crate::check::{Check, CheckReport};
use crate::keys::Encryption;
use crate::repository::Repository;

async fn objects() -> Vec<(Key, Bytes)> {
    let sample = sample::build("memory:///damage-source", Encryption::Aes256Gcm).await;
    let mut objects = Vec::new();
    for (key, _) in sample.store.list("").await.unwrap() {
        let bytes = sample.store.get(&key).await.unwrap();
        objects.push((key, bytes));
    }
    objects
}

/// What a check says of a repository of these objects; `None` if it does not even open.
async fn check(place: &str, objects: &[(Key, Bytes)]) -> Option<CheckReport> {
    let location = Location::new(&format!("memory:///{place}")).unwrap();
    let store = Store::open(&location, &sample::environment(), Options::default()).unwrap();
    for (key, bytes) in objects {
        store.create(key, bytes.clone()).await.unwrap();
    }
    let repository = Repository::open(store).await.ok()?;
    let (reporter, cancel) = (Reporter::silent(), Cancel::new());
    let check = Check::begin(&repository, &reporter, &cancel).await.unwrap();
    Some(check.run(true).await.unwrap())
}

fn names(report: Option<&CheckReport>, key: &Key) -> bool {
    match report {
        // A repository that does not open names its `format`.
        None => key.as_str() == "format",
        Some(report) => {
            report.damage.iter().any(|damage| !damage.harmless && damage.object == key.as_str())
        }
    }
}

fn names_gap(report: Option<&CheckReport>) -> bool {
    let gap = "a gap of 512 bytes begins at 0/300000";
    report.is_some_and(|report| report.damage.iter().any(|damage| damage.what == gap))
}

#[test]
fn every_flipped_byte_is_found() {
    sample::run(async {
        let objects = objects().await;
        for (index, (key, bytes)) in objects.iter().enumerate() {
            // Every byte of the head, then a sample that reaches the last one.
            let step = (bytes.len() / 40).max(1);
            let heads = (0..bytes.len().min(80)).step_by(3);
            for position in heads.chain((0..bytes.len()).step_by(step)).chain([bytes.len() - 1]) {
                let mut broken = objects.clone();
                let mut copy = bytes.to_vec();
                copy[position] ^= 0x10;
                broken[index].1 = copy.into();
                let report = check(&format!("flip-{index}-{position}"), &broken).await;
                assert!(names(report.as_ref(), key), "{key}: byte {position} was not noticed");
            }
        }
    });
}

#[test]
fn every_shortened_and_lengthened_object_is_found() {
    sample::run(async {
        let objects = objects().await;
        for (index, (key, bytes)) in objects.iter().enumerate() {
            let longer = [bytes.as_ref(), b"x"].concat();
            let cuts = [0, 1, 63, 64, bytes.len() / 2, bytes.len() - 1];
            let variants = cuts.map(|length| bytes.slice(..length));
            for (case, bytes) in variants.into_iter().chain([longer.into()]).enumerate() {
                let mut broken = objects.clone();
                broken[index].1 = bytes;
                let report = check(&format!("cut-{index}-{case}"), &broken).await;
                assert!(names(report.as_ref(), key), "{key}: case {case} was not noticed");
            }
        }
    });
}

#[test]
fn every_lost_object_that_something_names_is_found() {
    // The newest of a sequence has no successor that would name it; another region does.
    // Numbers of epochs may be left out.
    let heads =
        ["manifests/", "sessions/", "keys/writer-", "bindings/", "epochs/", ".history", "000002"];
    sample::run(async {
        let objects = objects().await;
        let mut found = 0;
        for (index, (key, _)) in objects.iter().enumerate() {
            let mut broken = objects.clone();
            broken.remove(index);
            let report = check(&format!("lost-{index}"), &broken).await;
            let head = heads.iter().any(|head| key.as_str().contains(head));
            // Nothing names a fragment; what it covered is missing.
            let gap = key.as_str().contains("fragments/") && names_gap(report.as_ref());
            assert!(names(report.as_ref(), key) || head || gap, "{key} is gone, unnoticed");
            found += usize::from(!head);
        }
        assert!(found >= 8, "only {found} objects were lost");
    });
}

#[test]
fn every_swap_of_two_objects_is_found() {
    sample::run(async {
        let objects = objects().await;
        for left in 0..objects.len() {
            for right in 0..left {
                let mut broken = objects.clone();
                let bytes = broken[left].1.clone();
                broken[left].1 = std::mem::replace(&mut broken[right].1, bytes);
                let report = check(&format!("swap-{left}-{right}"), &broken).await;
                let both = [&objects[left].0, &objects[right].0];
                let noticed = both.iter().any(|key| names(report.as_ref(), key));
                assert!(noticed, "{} and {} were swapped", both[0], both[1]);
            }
        }
    });
}

#[test]
fn a_stranger_below_the_root_is_named() {
    sample::run(async {
        let mut objects = objects().await;
        let key = Key::new("streams/readme.txt").unwrap();
        objects.push((key.clone(), Bytes::from_static(b"hello")));
        let report = check("stranger", &objects).await;
        assert!(names(report.as_ref(), &key));
    });
}
