//! One suite for every back end.

use bytes::Bytes;
use lifeboat_objects::{Created, Fitness, Location, Stat, Store};
use lifeboat_telemetry::Code;
use lifeboat_testkit::store::S3Server;

use super::{bytes, environment, key, options, s3};

/// All of it, on an empty store.
pub async fn conforms(store: &Store) {
    assert_eq!(store.list("").await.unwrap(), []);
    creates_once(store).await;
    reads_exactly(store).await;
    lists_completely(store).await;
    tells_absence(store).await;
    races(store).await;
}

async fn creates_once(store: &Store) {
    let name = key("create/once");
    assert_eq!(store.create(&name, bytes("first")).await.unwrap(), Created::New);
    assert_eq!(store.create(&name, bytes("first")).await.unwrap(), Created::Identical);
    for other in ["other", "longer than first", "", "firs"] {
        let failure = store.create(&name, bytes(other)).await.unwrap_err();
        assert_eq!(failure.code(), Code::ObjectConflict, "{failure}");
        assert!(failure.hint_text().is_some());
    }
    assert_eq!(store.get(&name).await.unwrap(), "first");

    let verified = key("create/verified");
    assert_eq!(store.create_verified(&verified, bytes("v")).await.unwrap(), Created::New);
    assert_eq!(store.create_verified(&verified, bytes("v")).await.unwrap(), Created::Identical);

    let pack = key("create/by-digest");
    assert_eq!(store.create_by_digest(&pack, bytes("12345")).await.unwrap(), Created::New);
    assert_eq!(store.create_by_digest(&pack, bytes("12345")).await.unwrap(), Created::Identical);
    let torn = store.create_by_digest(&pack, bytes("1234567")).await.unwrap_err();
    assert_eq!(torn.code(), Code::ObjectConflict);

    let empty = key("create/empty");
    store.create(&empty, Bytes::new()).await.unwrap();
    assert_eq!(store.get(&empty).await.unwrap(), "");
    assert_eq!(store.get_tail(&empty, 8).await.unwrap(), (0, Bytes::new()));

    let large = Bytes::from((0..3_000_000u32).map(|n| (n % 251) as u8).collect::<Vec<_>>());
    store.create(&key("create/large"), large.clone()).await.unwrap();
    assert_eq!(store.get(&key("create/large")).await.unwrap(), large);
}

async fn reads_exactly(store: &Store) {
    let name = key("read/digits");
    store.create(&name, bytes("0123456789")).await.unwrap();
    assert_eq!(store.get_range(&name, 0..10).await.unwrap(), "0123456789");
    assert_eq!(store.get_range(&name, 3..5).await.unwrap(), "34");
    assert_eq!(store.get_range(&name, 4..4).await.unwrap(), "");
    assert_eq!(store.get_tail(&name, 3).await.unwrap(), (10, bytes("789")));
    assert_eq!(store.get_tail(&name, 99).await.unwrap(), (10, bytes("0123456789")));
    for short in [8..12, 10..11, 40..50] {
        let failure = store.get_range(&name, short).await.unwrap_err();
        assert_eq!(failure.code(), Code::ObjectDamaged, "{failure}");
    }
    let inverted = std::ops::Range { start: 5, end: 3 };
    assert!(store.get_range(&name, inverted).await.is_err());
    let stat = store.stat(&name).await.unwrap().unwrap();
    assert_eq!(stat.size, 10);
    assert!(stat.modified > jiff::Timestamp::UNIX_EPOCH);
}

async fn lists_completely(store: &Store) {
    let wanted: Vec<String> = (0..25).map(|number| format!("list/{number:02}/x")).collect();
    for name in wanted.iter().rev() {
        store.create(&key(name), bytes(name)).await.unwrap();
    }
    store.create(&key("list-not/this"), bytes("x")).await.unwrap();
    let names = |listed: Vec<(lifeboat_objects::Key, Stat)>| {
        listed.into_iter().map(|(key, _)| key.as_str().to_owned()).collect::<Vec<_>>()
    };
    let listed = store.list("list/").await.unwrap();
    assert!(listed.iter().all(|(key, stat)| stat.size == key.as_str().len() as u64));
    assert_eq!(names(listed), wanted);
    assert_eq!(names(store.list("list/0").await.unwrap()), wanted[..10]);
    assert_eq!(names(store.list("list").await.unwrap()).len(), 26);
    assert_eq!(names(store.list("nothing/").await.unwrap()), [""; 0]);
    let after = store.list_after("list/", &key("list/10/x")).await.unwrap();
    assert_eq!(names(after), wanted[11..]);
    let all = names(store.list("").await.unwrap());
    assert!(all.is_sorted() && wanted.iter().all(|name| all.contains(name)));
}

async fn tells_absence(store: &Store) {
    let name = key("absent/object");
    assert_eq!(store.stat(&name).await.unwrap(), None);
    for failure in [
        store.get(&name).await.unwrap_err(),
        store.get_range(&name, 0..1).await.unwrap_err(),
        store.get_tail(&name, 1).await.unwrap_err(),
    ] {
        assert!(Store::failure_is_absence(&failure), "{failure}");
    }
    store.delete(&name).await.unwrap();
    store.create(&name, bytes("x")).await.unwrap();
    assert!(store.stat(&name).await.unwrap().is_some());
    store.delete(&name).await.unwrap();
    assert_eq!(store.stat(&name).await.unwrap(), None);
    assert_eq!(store.create(&name, bytes("y")).await.unwrap(), Created::New);
    // A folder is no object.
    assert_eq!(store.stat(&key("absent")).await.unwrap(), None);
}

async fn races(store: &Store) {
    let fit = Fitness { exclusive_create: true, deletes: true };
    assert_eq!(store.probe("race/").await.unwrap(), fit);
    assert_eq!(store.list("race/").await.unwrap(), [], "the probe left something");

    let name = key("race/winner");
    let create = |racer: usize| store.create(&name, Bytes::from(vec![b'a'; racer + 1]));
    let ended = futures::future::join_all((0..6).map(create)).await;
    assert_eq!(ended.iter().filter(|ended| matches!(ended, Ok(Created::New))).count(), 1);
    for failure in ended.into_iter().filter_map(Result::err) {
        assert_eq!(failure.code(), Code::ObjectConflict, "{failure}");
    }
}

#[tokio::test]
async fn directory() {
    let parent = tempfile::tempdir().unwrap();
    let url = format!("file://{}/root", parent.path().display());
    let location = Location::new(&url).unwrap();
    let store = Store::open(&location, &environment(&[]), options()).unwrap();
    store.create_root().await.unwrap();
    conforms(&store).await;
}

#[tokio::test]
async fn memory() {
    let location = Location::new("memory:///conformance").unwrap();
    conforms(&Store::open(&location, &environment(&[]), options()).unwrap()).await;
}

#[tokio::test]
async fn strict_s3() {
    let server = S3Server::start().unwrap();
    conforms(&s3(server.endpoint(), "a/prefix", options())).await;
    assert!(server.objects().keys().all(|key| key.starts_with("a/prefix/")));
}

#[tokio::test]
async fn strict_s3_without_a_prefix() {
    let server = S3Server::start().unwrap();
    conforms(&s3(server.endpoint(), "", options())).await;
}

#[tokio::test]
async fn google_dialect() {
    let server = S3Server::start().unwrap();
    let environment = environment(&[("GOOGLE_BEARER_TOKEN", "test")]);
    let location = Location::new(&format!("gs://{}/prefix", S3Server::BUCKET)).unwrap();
    let location = location.with_endpoint(Some(server.endpoint().to_owned()));
    conforms(&Store::open(&location, &environment, options()).unwrap()).await;
}
