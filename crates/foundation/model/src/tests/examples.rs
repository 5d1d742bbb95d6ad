//! The examples that users start from must load, and say what of them is not protected yet.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::check::coverage::{ACTS_ON, not_protected};
use crate::finding::{self, Place};
use crate::tree::{Node, Value};
use crate::{Severity, Spec, schema_json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..")
}

#[test]
fn all_examples_load_and_name_what_is_not_protected() {
    let folder = root().join("examples");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let names: Vec<_> =
        files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "ecs-rds-warm-standby.yaml",
            "full.yaml",
            "kubernetes-active-passive.yaml",
            "minimal.yaml",
            "postgres-quorum-failover.yaml",
            "serverless-documents.yaml",
            "two-regions.yaml",
            "warehouse-redshift.yaml",
        ]
    );
    for (file, name) in files.iter().zip(names) {
        let loaded = Spec::open(file).unwrap();
        let stopping: Vec<_> = loaded
            .findings
            .iter()
            .filter(|finding| finding.severity != Severity::NotProtected)
            .map(ToString::to_string)
            .collect();
        assert_eq!(stopping, Vec::<String>::new(), "{name}");
        assert!(loaded.spec.is_some(), "{name}");
        let missing: Vec<String> = loaded
            .findings
            .iter()
            .map(|finding| {
                format!("{}:{} {}: {}", finding.line, finding.column, finding.path, finding.message)
            })
            .collect();
        insta::assert_snapshot!(name.trim_end_matches(".yaml"), missing.join("\n"));
    }
}

#[test]
fn the_schema_file_is_what_the_types_say() {
    let path = root().join("docs/schema/lifeboat.schema.json");
    if std::env::vars().any(|(name, _)| name == "LIFEBOAT_UPDATE_SCHEMA") {
        std::fs::write(&path, schema_json()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(committed == schema_json(), "run the tests with LIFEBOAT_UPDATE_SCHEMA=1 and commit");
}

/// Every key that the schema knows is either acted on or explained, so that no promise of a
/// spec passes in silence.
#[test]
fn every_key_is_acted_on_or_named_as_not_protected() {
    let schema: Json = serde_json::from_str(&schema_json()).unwrap();
    let mut paths = Vec::new();
    collect(&schema, &schema, &mut Vec::new(), &mut paths);
    assert!(paths.len() > 150, "only {} keys were found", paths.len());
    let node = Node { place: Place::START, value: Value::Bool(true) };
    let mut unexplained = BTreeSet::new();
    for path in paths {
        let reasons: Vec<_> = (1..=path.len())
            .filter_map(|length| not_protected(&finding::Path(path[..length].to_vec()), &node))
            .collect();
        if reasons.contains(&"this version does nothing with this key") {
            unexplained.insert(path.join("."));
        }
    }
    assert_eq!(unexplained, BTreeSet::new());
    assert_eq!(ACTS_ON.iter().collect::<BTreeSet<_>>().len(), ACTS_ON.len());
}

/// All paths below a schema: `any` for keys that users choose, `[0]` for list elements.
fn collect(schema: &Json, root: &Json, at: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    if let Some(reference) = schema["$ref"].as_str() {
        return collect(root.pointer(&reference[1..]).unwrap(), root, at, paths);
    }
    for word in ["anyOf", "oneOf"] {
        for variant in schema[word].as_array().into_iter().flatten() {
            collect(variant, root, at, paths);
        }
    }
    let mut below = |step: &str, schema: &Json| {
        at.push(step.to_owned());
        paths.push(at.clone());
        collect(schema, root, at, paths);
        at.pop();
    };
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        below(key, schema);
    }
    for (_, schema) in schema["patternProperties"].as_object().into_iter().flatten() {
        below("any", schema);
    }
    if schema["items"].is_object() {
        below("[0]", &schema["items"]);
    }
}
