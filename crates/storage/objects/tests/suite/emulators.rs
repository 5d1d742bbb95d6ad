//! The suite over other people's reading of the clouds' protocols.

use lifeboat_objects::{Location, Store};
use lifeboat_telemetry::Code;
use lifeboat_testkit::store::emulators::{Emulator, Product};

use super::conformance::conforms;
use super::{bytes, environment, key, options};

async fn emulator_conforms(product: Product) {
    let emulator = Emulator::start(product).unwrap();
    let variables = emulator.variables();
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let environment = environment(&variables);
    let open = |url: String| {
        let location = Location::new(&url).unwrap().with_endpoint(Some(emulator.endpoint()));
        Store::open(&location, &environment, options()).unwrap()
    };
    conforms(&open(format!("{}/prefix", emulator.url()))).await;

    // A bucket that is not there is no empty bucket.
    let store = open(emulator.url().replace("lifeboat", "another"));
    for failure in [
        store.stat(&key("a")).await.unwrap_err(),
        store.get(&key("a")).await.unwrap_err(),
        store.list("").await.unwrap_err(),
        store.create(&key("a"), bytes("x")).await.unwrap_err(),
    ] {
        assert_eq!(failure.code(), Code::StoreUnavailable, "{failure}");
        assert!(failure.hint_text().unwrap().contains("bucket"), "{failure:?}");
    }
}

#[tokio::test]
async fn ministack() {
    emulator_conforms(Product::MiniStack).await;
}

#[tokio::test]
async fn moto() {
    emulator_conforms(Product::Moto).await;
}

#[tokio::test]
async fn azurite() {
    emulator_conforms(Product::Azurite).await;
}
