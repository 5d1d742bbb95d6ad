use std::sync::Arc;

use lifeboat_environment::{ManualClock, SeededRandom};
use lifeboat_objects::{Location, Options, Store};
use lifeboat_repository::enroll::enroll;
use lifeboat_repository::keys::{Encryption, VaultSecrets};
use lifeboat_repository::repository::{ExclusiveCreate, FormatBody};

use super::*;

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A repository with three entries.
async fn three(place: &str) -> (Environment, Repository, WriterKey) {
    let clock = ManualClock::at("2026-11-20T10:00:00Z".parse().unwrap());
    let environment = Environment::for_test(Arc::new(clock), Arc::new(SeededRandom::new(1)));
    let location = Location::new(&format!("memory:///{place}")).unwrap();
    let store = Store::open(&location, &environment, Options::default()).unwrap();
    store.create_root().await.unwrap();
    let secrets = VaultSecrets::create(&environment, Encryption::Aes256Gcm).unwrap();
    let format = FormatBody {
        lifeboat_repository: 1,
        vault: secrets.vault().clone(),
        region: "east".to_owned(),
        created_at: environment.clock().now(),
        exclusive_create: ExclusiveCreate::Proven,
    };
    let repository = Repository::create(store, format, &secrets.root().unwrap()).await.unwrap();
    let mut regions = Regions::new(vec![repository.clone()], Vec::new()).unwrap();
    let writer = enroll(&environment, &mut regions, &secrets, "east-1").await.unwrap();
    for name in ["one", "two", "three"] {
        let act = Act {
            act: "backup".to_owned(),
            subject: "payments/ledger".to_owned(),
            facts: BTreeMap::from([("name".to_owned(), name.to_owned())]),
        };
        record(&environment, &mut regions, &writer, act).await.unwrap();
    }
    (environment, repository, writer)
}

#[test]
fn a_whole_chain_is_read_in_order() {
    run(async {
        let (_, repository, writer) = three("audit-whole").await;
        let chains = verify(&repository).await.unwrap();
        let chain = &chains[&writer.public().unwrap()];
        let names: Vec<&str> =
            chain.iter().map(|entry| entry.done.facts["name"].as_str()).collect();
        assert_eq!(names, ["one", "two", "three"]);
        assert_eq!(chain[0].previous, None);
    });
}

#[test]
fn a_hole_and_an_exchanged_entry_break_it() {
    run(async {
        let (_, repository, writer) = three("audit-hole").await;
        let second = entry_key(&writer.public().unwrap(), 2).unwrap();
        let third = entry_key(&writer.public().unwrap(), 3).unwrap();
        let old = repository.store().get(&third).await.unwrap();
        repository.store().delete(&second).await.unwrap();
        assert_eq!(verify(&repository).await.unwrap_err().code(), Code::RepositoryDamaged);
        repository.store().create(&second, old).await.unwrap();
        assert_eq!(verify(&repository).await.unwrap_err().code(), Code::ObjectDamaged);
    });
}
