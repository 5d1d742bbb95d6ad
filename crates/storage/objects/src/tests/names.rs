//! Keys and locations.

use proptest::prelude::*;

use super::*;

#[test]
fn keys_are_plain_paths() {
    for good in ["format", "streams/0a-b_c.d/packs/7f", "a/.b", "x".repeat(240).as_str()] {
        assert_eq!(Key::new(good).unwrap().as_str(), good);
    }
    let long = "x".repeat(241);
    let deep = vec!["x"; 400].join("/");
    for bad in
        ["", "/", "/a", "a/", "a//b", ".", "a/..", "../a", "a b", "a#1", "ä", "a\0b", &long, &deep]
    {
        assert!(Key::new(bad).is_err(), "{bad:?} was accepted");
    }
}

proptest! {
    #[test]
    fn no_key_leaves_the_root(path in ".{0,40}") {
        if let Ok(key) = Key::new(path) {
            let joined = std::path::Path::new("/root").join(key.as_str());
            prop_assert!(joined.starts_with("/root"));
            prop_assert!(joined.components().all(|part| part != std::path::Component::ParentDir));
        }
    }
}

#[test]
fn locations_parse_and_print() {
    for url in ["file:///srv/backup", "s3://bucket", "s3://bucket/a/b", "gs://b/p", "az://c/p"] {
        assert_eq!(Location::new(url).unwrap().display(), url);
    }
    assert_eq!(Location::new("s3://bucket/a/").unwrap().display(), "s3://bucket/a");
    assert_eq!(Location::new("file:///a%20b").unwrap().display(), "file:///a b");
}

#[test]
fn wrong_locations_are_findings_that_repeat_no_secret() {
    for url in [
        "/srv/backup",
        "backup",
        "file://host/srv",
        "file:///",
        "ftp://host/x",
        "s3://",
        "s3://key:hunter2@bucket/x",
        "s3://bucket/a?secret=hunter2",
        "s3://bucket:9000/x",
        "s3://bucket/a b",
        "s3://bucket/../x y",
    ] {
        let failure = Location::new(url).expect_err(url);
        assert_eq!(failure.code(), Code::SpecInvalid, "{url}");
        assert!(!format!("{failure} {failure:?}").contains("hunter2"), "{url}");
    }
}

#[test]
fn what_a_store_prints_holds_no_credentials() {
    let variables = [("AWS_ACCESS_KEY_ID", "canary-id"), ("AWS_SECRET_ACCESS_KEY", "canary-key")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let environment = environment().with_variables(variables.into_iter().collect());
    let location = Location::new("s3://bucket/prefix")
        .unwrap()
        .with_endpoint(Some("http://127.0.0.1:1".to_owned()))
        .with_region(Some("eu-central-1".to_owned()));
    let store = Store::open(&location, &environment, quick()).unwrap();
    let failure = Blocking::new().unwrap().run(store.get(&key("a"))).unwrap_err();
    assert_eq!(failure.code(), Code::StoreUnavailable);
    let printed = format!("{store:?} {} {failure} {failure:?}", location.display());
    assert!(!printed.contains("canary"), "{printed}");
}

#[test]
fn endpoints_hold_no_credentials() {
    for endpoint in ["http://user:canary@127.0.0.1:1", "https://host/?sig=canary", "host:9000"] {
        let location = Location::new("s3://bucket").unwrap();
        let location = location.with_endpoint(Some(endpoint.to_owned()));
        let failure = Store::open(&location, &environment(), quick()).unwrap_err();
        assert_eq!(failure.code(), Code::SpecInvalid, "{endpoint}");
        assert!(!format!("{failure} {failure:?}").contains("canary"), "{endpoint}");
    }
}
