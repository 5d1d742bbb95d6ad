//! What a file system adds: roots that go away, modes, staging files.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

fn at(root: &Path) -> Store {
    store(&format!("file://{}", root.display()))
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_root_that_is_not_there_is_no_empty_repository() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("repository");
    let store = at(&root);
    let key = key("a/b");
    let failures = [
        store.create(&key, Bytes::from_static(b"x")).await.unwrap_err(),
        store.get(&key).await.unwrap_err(),
        store.stat(&key).await.unwrap_err(),
        store.list("").await.unwrap_err(),
        store.delete(&key).await.unwrap_err(),
        store.probe("").await.unwrap_err(),
    ];
    for failure in failures {
        assert_eq!(failure.code(), Code::StoreUnavailable, "{failure}");
        assert!(failure.hint_text().unwrap().contains("Mount"), "{failure:?}");
    }
    assert!(!root.exists(), "an operation made the root");

    store.create_root().await.unwrap();
    store.create_root().await.unwrap();
    assert_eq!(store.stat(&key).await.unwrap(), None);
    assert!(Store::failure_is_absence(&store.get(&key).await.unwrap_err()));
    assert_eq!(store.list("").await.unwrap(), []);
}

#[tokio::test]
async fn a_root_that_is_replaced_is_noticed() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("repository");
    let store = at(&root);
    store.create_root().await.unwrap();
    store.create(&key("a"), Bytes::from_static(b"x")).await.unwrap();
    std::fs::rename(&root, parent.path().join("unmounted")).unwrap();
    std::fs::create_dir(&root).unwrap();
    assert_eq!(store.stat(&key("a")).await.unwrap_err().code(), Code::StoreUnavailable);
    assert_eq!(store.list("").await.unwrap_err().code(), Code::StoreUnavailable);
    let refused = store.create(&key("b"), Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(refused.code(), Code::StoreUnavailable);
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
}

#[tokio::test]
async fn others_may_read_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("repository");
    let store = at(&root);
    store.create_root().await.unwrap();
    store.create(&key("a/b/c"), Bytes::from_static(b"x")).await.unwrap();
    for folder in ["", "a", "a/b"] {
        assert_eq!(mode(&root.join(folder)) & 0o027, 0, "{folder}");
    }
    assert_eq!(mode(&root.join("a/b/c")) & !0o640, 0);
}

#[tokio::test]
async fn staging_files_and_foreign_names_are_not_listed() {
    let root = tempfile::tempdir().unwrap();
    let store = at(root.path());
    store.create(&key("packs/a"), Bytes::from_static(b"x")).await.unwrap();
    std::fs::write(root.path().join("packs/b#1"), b"half").unwrap();
    std::fs::create_dir(root.path().join("lost+found")).unwrap();
    let listed = store.list("").await.unwrap();
    assert_eq!(listed.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["packs/a"]);
    let staging = store.list_staging().await.unwrap();
    assert_eq!(staging.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["packs/b#1"]);
    // A dead writer's staging file does not keep the next one from creating.
    store.create(&key("packs/b"), Bytes::from_static(b"whole")).await.unwrap();
    assert_eq!(store.get(&key("packs/b")).await.unwrap(), "whole");
}

#[tokio::test]
async fn what_cannot_be_read_fails_the_listing() {
    let root = tempfile::tempdir().unwrap();
    let store = at(root.path());
    store.create(&key("a/b"), Bytes::from_static(b"x")).await.unwrap();
    std::os::unix::fs::symlink("loop", root.path().join("loop")).unwrap();
    assert_eq!(store.list("").await.unwrap_err().code(), Code::StoreUnavailable);
}

#[tokio::test]
async fn a_truncated_object_is_damaged_not_absent() {
    let root = tempfile::tempdir().unwrap();
    let store = at(root.path());
    store.create(&key("a"), Bytes::from_static(b"0123456789")).await.unwrap();
    std::fs::write(root.path().join("a"), b"0123").unwrap();
    for range in [2..8, 6..8] {
        let failure = store.get_range(&key("a"), range).await.unwrap_err();
        assert_eq!(failure.code(), Code::ObjectDamaged, "{failure}");
    }
}
