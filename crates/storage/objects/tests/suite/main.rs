//! What every back end must do, and what a store must do when its back end does not.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod conformance;
mod emulators;
mod profiles;
mod single_faults;
mod sweep;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lifeboat_environment::{Environment, SeededRandom, SystemClock};
use lifeboat_objects::{Key, Location, Options, Store};
use lifeboat_testkit::store::{FaultProxy, Profile, S3Server};

/// Limits that end a test soon where nothing answers.
fn options() -> Options {
    Options {
        attempt_timeout: Duration::from_secs(5),
        deadline: Duration::from_secs(30),
        attempts: 20,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(20),
    }
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    let pairs = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Environment::for_test(Arc::new(SystemClock), Arc::new(SeededRandom::new(11)))
        .with_variables(pairs.collect())
}

fn s3_environment() -> Environment {
    environment(&[("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
}

fn s3(endpoint: &str, prefix: &str, options: Options) -> Store {
    let url = format!("s3://{}/{prefix}", S3Server::BUCKET);
    let location = Location::new(&url).unwrap().with_endpoint(Some(endpoint.to_owned()));
    Store::open(&location, &s3_environment(), options).unwrap()
}

/// A strict S3 behind a proxy that is calm until told otherwise.
struct Bench {
    server: S3Server,
    proxy: FaultProxy,
    store: Store,
}

impl Bench {
    fn new(seed: u64) -> Self {
        Self::with(seed, options())
    }

    fn with(seed: u64, options: Options) -> Self {
        let server = S3Server::start().unwrap();
        let proxy = FaultProxy::start(server.endpoint(), Profile::CALM, seed).unwrap();
        let store = s3(proxy.endpoint(), "repository", options);
        Self { server, proxy, store }
    }
}

fn key(path: &str) -> Key {
    Key::new(path).unwrap()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
