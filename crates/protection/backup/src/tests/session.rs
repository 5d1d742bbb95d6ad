use lifeboat_objects::{Location, Options, Store};
use lifeboat_repository::keys::{StreamKeys, VaultSecrets, WriterKey};
use lifeboat_repository::regions::Regions;
use lifeboat_repository::repository::{ExclusiveCreate, FormatBody, Repository};

use super::{environment, keys};
use crate::session::claim;

async fn region(place: &str, secrets: &VaultSecrets) -> Repository {
    let location = Location::new(&format!("memory:///{place}")).unwrap();
    let store = Store::open(&location, &environment(), Options::default()).unwrap();
    store.create_root().await.unwrap();
    let format = FormatBody {
        lifeboat_repository: 1,
        vault: secrets.vault().clone(),
        region: place.to_owned(),
        created_at: environment().clock().now(),
        exclusive_create: ExclusiveCreate::Proven,
    };
    Repository::create(store, format, &secrets.root().unwrap()).await.unwrap()
}

async fn claimed(regions: &mut Regions, secrets: &VaultSecrets, keys: &StreamKeys) -> String {
    let writer = WriterKey::create(&environment(), secrets.vault(), "host");
    let signer = writer.signing().unwrap();
    claim(&environment(), regions, "payments/ledger", keys.stream(), "host", &signer).await.unwrap()
}

#[test]
fn every_session_has_its_own_number_over_all_regions() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (secrets, keys) = keys();
        let east = region("session-east", &secrets).await;
        let west = region("session-west", &secrets).await;
        let mut both = Regions::new(vec![east.clone(), west.clone()], Vec::new()).unwrap();
        assert_eq!(claimed(&mut both, &secrets, &keys).await, "00000001-00000001");
        let mut only_west = Regions::new(vec![west], Vec::new()).unwrap();
        assert_eq!(claimed(&mut only_west, &secrets, &keys).await, "00000002-00000001");
        // East has not seen number 2: with both reachable it is not given out again.
        assert_eq!(claimed(&mut both, &secrets, &keys).await, "00000003-00000001");
    });
}
