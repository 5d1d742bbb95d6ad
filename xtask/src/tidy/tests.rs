use tempfile::TempDir;

use super::*;

/// A small project on disk.
pub fn tree(files: &[(&str, &str)]) -> (TempDir, Tree) {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let tree = Tree::read(directory.path()).unwrap();
    (directory, tree)
}

#[test]
fn generated_and_binary_files_are_left_out() {
    let (_directory, tree) = tree(&[
        ("target/debug/x.rs", "mod utils;"),
        (".git/config.toml", "x"),
        ("testdata/broken.yaml", "x"),
        (".ci/run", "set -eu"),
        ("crates/a/b/src/lib.rs", "//! A crate."),
    ]);
    let paths: Vec<&str> = tree.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, [".ci/run", "crates/a/b/src/lib.rs"]);
}

#[test]
fn findings_name_path_and_line() {
    let (_directory, tree) = tree(&[("crates/a/b/src/lib.rs", "//! A.\nmod helpers;\n")]);
    let findings = code::check(&tree);
    assert_eq!(
        findings[0].to_string(),
        "crates/a/b/src/lib.rs:2: a module named helpers says nothing"
    );
}
