//! Regions that go away, and what they missed.

use lifeboat_objects::{Key, Location, Options, Store};
use lifeboat_telemetry::{Code, Failure};

use super::sample::{self, DATABASE};
use crate::catch_up::catch_up;
use crate::enroll::newest_binding;
use crate::keys::Encryption;
use crate::regions::Regions;
use crate::repository::{FormatBody, Repository, remove_slot};

/// Two repositories of one vault; only the first one has more than its `format`.
async fn two(place: &str) -> (sample::Sample, Regions) {
    let sample = sample::build(&format!("memory:///{place}-east"), Encryption::None).await;
    let east = Repository::open(sample.store.clone()).await.unwrap();
    let location = Location::new(&format!("memory:///{place}-west")).unwrap();
    let store = Store::open(&location, &sample::environment(), Options::default()).unwrap();
    let format = FormatBody { region: "west".to_owned(), ..east.format().clone() };
    let root = sample.secrets.root().unwrap();
    let west = Repository::create(store, format, &root).await.unwrap();
    (sample, Regions::new(vec![east, west], Vec::new()).unwrap())
}

#[test]
fn a_question_that_nobody_answers_leaves_all_regions_in_place() {
    sample::run(async {
        let (_, mut regions) = two("nobody").await;
        let failed =
            |region: &str| Failure::new(Code::StoreUnavailable, format!("{region} is off"));
        let answers = regions.ask(async |one| Err::<(), _>(failed(one.region()))).await;
        assert_eq!(answers.unwrap_err().code(), Code::StoreUnavailable);
        assert_eq!(regions.all().len(), 2);
        assert!(regions.partial().is_none());
        // One that answers, while the other does not: that one is left out and named.
        let answers = regions.ask(async |one| match one.region() {
            "east" => Err(failed("east")),
            _ => Ok(()),
        });
        answers.await.unwrap();
        assert_eq!(regions.nearest().region(), "west");
        assert_eq!(regions.skipped().len(), 1);
    });
}

#[test]
fn a_region_catches_up_with_what_it_missed_of_the_vault() {
    sample::run(async {
        let (sample, mut regions) = two("missed").await;
        catch_up(&mut regions).await.unwrap();
        let [east, west] = regions.all() else { panic!("two regions") };
        for prefix in ["keys/", "bindings/"] {
            let names = async |repository: &Repository| {
                let listed = repository.store().list(prefix).await.unwrap();
                listed.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
            };
            assert!(!names(east).await.is_empty());
            assert_eq!(names(east).await, names(west).await);
        }
        assert!(west.binding(DATABASE).await.unwrap().is_some());
        // A slot that was removed in one region is removed in the other, and never comes back.
        let root = sample.secrets.root().unwrap();
        remove_slot(west, &root, 1).await.unwrap();
        catch_up(&mut regions).await.unwrap();
        for repository in regions.all() {
            assert!(repository.slots().await.unwrap().is_empty(), "{}", repository.region());
        }
    });
}

#[test]
fn damage_does_not_spread_to_a_region_that_catches_up() {
    sample::run(async {
        let (sample, mut regions) = two("damaged").await;
        let key = Key::new("keys/slot-00000009").unwrap();
        sample.store.create(&key, b"no object".as_slice().into()).await.unwrap();
        catch_up(&mut regions).await.unwrap();
        let [_, west] = regions.all() else { panic!("two regions") };
        assert!(west.store().stat(&key).await.unwrap().is_none());
    });
}

#[test]
fn a_binding_that_is_damaged_in_one_region_is_taken_from_another() {
    sample::run(async {
        let (sample, mut regions) = two("binding").await;
        let whole = regions.nearest().binding(DATABASE).await.unwrap().unwrap();
        let [_, west] = regions.all() else { panic!("two regions") };
        let key = crate::layout::binding(DATABASE, whole.number).unwrap();
        west.store().create(&key, b"and then nothing".as_slice().into()).await.unwrap();
        assert_eq!(regions.bindings(DATABASE).await.unwrap(), std::slice::from_ref(&whole));
        assert_eq!(newest_binding(&regions, DATABASE).await.unwrap(), Some(whole));
        // What no region has whole stays a failure: it may be the grant that counts.
        let key = crate::layout::binding(DATABASE, 2).unwrap();
        sample.store.create(&key, b"LIFEBOAT".as_slice().into()).await.unwrap();
        let failure = regions.bindings(DATABASE).await.unwrap_err();
        assert_eq!(failure.kind(), lifeboat_telemetry::Kind::Damage, "{failure}");
        catch_up(&mut regions).await.unwrap();
    });
}
