use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lifeboat_environment::{Environment, SeededRandom, SystemClock};
use lifeboat_telemetry::Code;

use super::*;

mod directory;
mod faults;
mod names;

fn environment() -> Environment {
    Environment::for_test(Arc::new(SystemClock), Arc::new(SeededRandom::new(7)))
}

fn quick() -> Options {
    Options {
        attempt_timeout: Duration::from_secs(5),
        deadline: Duration::from_secs(10),
        attempts: 3,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(2),
    }
}

fn store(url: &str) -> Store {
    Store::open(&Location::new(url).unwrap(), &environment(), quick()).unwrap()
}

fn key(path: &str) -> Key {
    Key::new(path).unwrap()
}

#[test]
fn threads_without_a_runtime_reach_the_store() {
    let blocking = Blocking::new().unwrap();
    let store = store("memory:///blocking");
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (blocking, store) = (&blocking, &store);
            scope.spawn(move || {
                let key = key(&format!("objects/{number}"));
                let bytes = Bytes::from(vec![number; 100]);
                let created = blocking.run(store.create(&key, bytes.clone())).unwrap();
                assert_eq!(created, Created::New);
                assert_eq!(blocking.run(store.get(&key)).unwrap(), bytes);
            });
        }
    });
    assert_eq!(blocking.run(store.list("objects/")).unwrap().len(), 4);
}

#[tokio::test]
async fn operations_run_as_tasks_beside_each_other() {
    let store = store("memory:///tasks");
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            let name = key(&format!("tasks/{number}"));
            store.create_verified(&name, Bytes::from_static(b"0123")).await?;
            store.stat(&name).await?;
            store.get_range(&name, 0..2).await?;
            store.get_tail(&name, 2).await?;
            store.probe("probe/").await?;
            store.list_after("tasks/", &name).await?;
            store.list_staging().await?;
            store.delete(&name).await
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap().unwrap();
    }
    assert_eq!(store.list("").await.unwrap(), []);
}

#[test]
fn an_object_above_the_limit_is_refused_before_it_travels() {
    let store = store("memory:///large");
    let bytes = Bytes::from(vec![0; usize::try_from(MAX_OBJECT).unwrap() + 1]);
    let refused = Blocking::new().unwrap().run(store.create(&key("large"), bytes)).unwrap_err();
    assert_eq!(refused.code(), Code::ObjectTooLarge);
}
