use super::*;

/// The findings for a crate with one dependency.
fn findings(user: &str, name: &str, kind: Option<&str>, path: Option<&str>) -> Vec<String> {
    let dependency = Dependency {
        name: name.to_owned(),
        kind: kind.map(str::to_owned),
        path: path.map(|path| format!("/project/crates/{path}")),
    };
    let manifest_path = format!("/project/{user}/Cargo.toml");
    let package = Package { manifest_path, dependencies: vec![dependency] };
    check(&[package]).into_iter().map(|finding| finding.to_string()).collect()
}

#[test]
fn a_crate_may_use_what_comes_before_it() {
    let used = Some("storage/objects");
    assert!(findings("crates/protection/wal", "lifeboat-objects", None, used).is_empty());
}

#[test]
fn a_crate_may_not_use_what_comes_after_it() {
    for used in ["protection/backup", "surface/cli", "protection/wal"] {
        let found = findings("crates/protection/wal", "lifeboat-x", None, Some(used));
        assert_eq!(found.len(), 1, "{used}: {found:?}");
        assert!(found[0].contains(used) && found[0].starts_with("crates/protection/wal/"));
    }
}

#[test]
fn a_dev_dependency_may_not_point_below_either() {
    let used = Some("surface/cli");
    assert_eq!(findings("crates/storage/audit", "lifeboat-cli", Some("dev"), used).len(), 1);
}

#[test]
fn assurance_is_for_tests() {
    let used = Some("assurance/testkit");
    assert!(findings("crates/storage/audit", "lifeboat-testkit", Some("dev"), used).is_empty());
    assert_eq!(findings("crates/storage/audit", "lifeboat-testkit", None, used).len(), 1);
    assert_eq!(findings("crates/surface/cli", "lifeboat-testkit", Some("build"), used).len(), 1);
    assert!(findings("tests", "lifeboat-testkit", None, used).is_empty());
}

#[test]
fn only_one_crate_knows_object_store() {
    assert!(findings("crates/storage/objects", "object_store", None, None).is_empty());
    assert_eq!(findings("crates/storage/repository", "object_store", None, None).len(), 1);
    assert_eq!(findings("crates/assurance/testkit", "object_store", None, None).len(), 1);
}

#[test]
fn a_crate_without_a_place_is_named() {
    assert_eq!(findings("crates/storage/surprise", "serde", None, None).len(), 1);
}

#[test]
fn this_workspace_is_understood() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let names: Vec<String> = packages(&root)
        .unwrap()
        .iter()
        .filter_map(|package| folder_of(&package.manifest_path).map(str::to_owned))
        .collect();
    assert!(names.iter().any(|name| name == "foundation/model"), "{names:?}");
    assert!(names.iter().any(|name| name == "surface/cli"), "{names:?}");
}
