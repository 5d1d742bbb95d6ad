use std::path::Path;
use std::sync::Arc;

use lifeboat_environment::{SystemClock, SystemRandom};

use super::*;

const FULL: &str = include_str!("../../../../../../examples/full.yaml");

fn environment(secret: &str) -> Environment {
    let variables = [("TSIG".to_owned(), secret.to_owned())].into();
    Environment::for_test(Arc::new(SystemClock), Arc::new(SystemRandom)).with_variables(variables)
}

/// The example with its secret in a variable.
fn build(secret: &str, change: (&str, &str)) -> (Outcome<Vec<String>>, Vec<String>) {
    let text =
        FULL.replace("\"file:/etc/lifeboat/tsig\"", "\"${TSIG}\"").replace(change.0, change.1);
    let spec = Spec::load(&text, Path::new("lifeboat.yaml")).accept().unwrap();
    let service = "payments".parse().unwrap();
    let drivers = traffic_drivers(&spec, &service, &environment(secret));
    let names = drivers.map(|drivers| drivers.iter().map(|driver| driver.name()).collect());
    (names, records_without_driver(&spec.services[&service]))
}

#[test]
fn records_become_drivers() {
    let (drivers, without) = build("c2VjcmV0", ("", ""));
    assert_eq!(drivers.unwrap(), ["DNS record api.payments.example.test."]);
    assert!(without.is_empty());
    let several = ("server: \"127.0.0.1:5353\"", "servers: [\"127.0.0.1:5353\", \"127.0.0.2\"]");
    assert_eq!(build("c2VjcmV0", several).0.unwrap().len(), 1);
}

#[test]
fn a_backend_becomes_a_driver() {
    let text = FULL
        .replace("driver: rfc2136", "driver: haproxy")
        .replace("record: api.payments.example.test.", "record: payments");
    let text = text.replace("east: [127.0.1.10], west: [127.0.2.10]", "east: [pg-1], west: [pg-2]");
    let spec = Spec::load(&text, Path::new("lifeboat.yaml")).accept().unwrap();
    let service = "payments".parse().unwrap();
    let drivers = traffic_drivers(&spec, &service, &environment("")).unwrap();
    assert_eq!(drivers[0].name(), "HAProxy backend payments");
}

#[test]
fn what_has_no_driver_is_named() {
    let (drivers, without) = build("c2VjcmV0", ("driver: rfc2136", "driver: route53"));
    assert!(drivers.unwrap().is_empty());
    assert_eq!(without, ["api.payments.example.test. (route53)"]);
}

#[test]
fn a_secret_that_is_none_is_not_shown() {
    let failure = build("not base64, but secret", ("", "")).0.unwrap_err();
    assert_eq!(failure.code(), Code::SecretUnavailable);
    assert!(!format!("{failure} {failure:?}").contains("but secret"));
    let zone = ("tsig:", "zone: example.com.\n        tsig:");
    assert_eq!(build("c2VjcmV0", zone).0.unwrap_err().code(), Code::SpecInvalid);
}
