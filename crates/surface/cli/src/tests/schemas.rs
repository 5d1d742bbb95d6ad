//! docs/formats/cli holds the schema of each command's document, and only grows.
//!
//! `LIFEBOAT_UPDATE_SCHEMAS=1 cargo nextest run -p lifeboat-cli` writes the files anew.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::CommandFactory;
use lifeboat_environment::Environment;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::arguments::Arguments;
use crate::commands::{
    adopt, agent, apply, backup, backups, check, completions, controller, enroll, explain,
    explain_decision, guard, init, key, lab, moves, repo, restore, runs, schema, standby, status,
    unmanage, wal,
};
use crate::output::Report;

/// Every command's document by its file name.
fn documents() -> BTreeMap<String, Value> {
    BTreeMap::from([
        document::<adopt::Adopted>(),
        document::<agent::Stopped>(),
        document::<apply::Applied>(),
        document::<backup::Taken>(),
        document::<backups::list::Listed>(),
        document::<backups::show::Shown>(),
        document::<check::Checked>(),
        document::<controller::Stopped>(),
        document::<completions::Completions>(),
        document::<explain::Explanation>(),
        document::<explain_decision::Explained>(),
        document::<guard::borrow::Borrowed>(),
        document::<guard::init::Ended>(),
        document::<guard::manage::Managed>(),
        document::<guard::run::Guarded>(),
        document::<guard::status::Status>(),
        document::<guard::step::Stepped>(),
        document::<guard::unmanage::Unmanaged>(),
        document::<init::Begun>(),
        document::<key::add::Added>(),
        document::<key::enroll::Enrolled>(),
        document::<enroll::authority::Founded>(),
        document::<enroll::server::Certified>(),
        document::<enroll::invite::Invited>(),
        document::<enroll::host::Taken>(),
        document::<enroll::refresh::Refreshed>(),
        document::<key::list::Keys>(),
        document::<key::remove::Removed>(),
        document::<lab::break_fault::Broken>(),
        document::<lab::demo::Told>(),
        document::<lab::down::TakenAway>(),
        document::<lab::heal::Healed>(),
        document::<lab::judge::Judged>(),
        document::<lab::status::Shown>(),
        document::<lab::up::Started>(),
        document::<moves::FailedOver>(),
        document::<moves::FallenBack>(),
        document::<moves::SwitchedOver>(),
        document::<repo::check::RepositoriesChecked>(),
        document::<repo::create::Created>(),
        document::<repo::prune::Pruned>(),
        document::<repo::stats::Stats>(),
        document::<restore::Restored>(),
        document::<runs::change::Aborted>(),
        document::<runs::change::Resumed>(),
        document::<runs::change::Skipped>(),
        document::<runs::list::Listed>(),
        document::<runs::show::Shown>(),
        document::<schema::SpecSchema>(),
        document::<status::Status>(),
        document::<standby::create::StandbyCreated>(),
        document::<standby::salvage::SalvageReport>(),
        document::<unmanage::Unmanaged>(),
        document::<wal::acknowledge::Acknowledged>(),
        document::<wal::fetch::Fetched>(),
        document::<wal::locate::Located>(),
        document::<wal::prefetch::Prefetched>(),
        document::<wal::push::Pushed>(),
        document::<wal::receive::Received>(),
        document::<wal::seal::Sealed>(),
        document::<wal::status::Status>(),
    ])
}

fn document<R: Report>() -> (String, Value) {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut result = generator.into_root_schema_for::<R>().to_value();
    let parts = result.as_object_mut().unwrap();
    parts.remove("$schema");
    let definitions = parts.remove("$defs").unwrap_or_else(|| json!({}));
    let document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("lifeboat {} --json", R::COMMAND),
        "type": "object",
        "properties": {
            "lifeboat": { "const": 1 },
            "command": { "const": R::COMMAND },
            "result": result,
            "error": { "$ref": "error.json#/properties/error" },
        },
        "required": ["lifeboat", "command", "result"],
        "$defs": definitions,
    });
    (file_name(R::COMMAND), document)
}

fn file_name(command: &str) -> String {
    format!("{}.json", command.replace(' ', "-"))
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/formats/cli"))
}

/// What a reader of the old schema relied on and the new one does not say any more.
fn lost(old: &Value, new: &Value, path: &str, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let words = ["description", "title", "$schema"];
            for (key, value) in old.iter().filter(|(key, _)| !words.contains(&key.as_str())) {
                let path = format!("{path}/{key}");
                match new.get(key) {
                    Some(new) => lost(value, new, &path, found),
                    None => found.push(path),
                }
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for value in old {
                let kept = |new: &Value| {
                    let mut found = Vec::new();
                    lost(value, new, path, &mut found);
                    found.is_empty()
                };
                if !new.iter().any(kept) {
                    found.push(format!("{path}/{value}"));
                }
            }
        }
        (old, new) if old != new => found.push(format!("{path}: {old} became {new}")),
        _ => {}
    }
}

#[test]
fn every_command_has_a_schema() {
    let documents = documents();
    // What runs inside a lab's domain has documents of its own.
    let leaves = super::leaves(&Arguments::command(), "").into_iter();
    for (name, _) in leaves.filter(|(name, _)| name != " lab enter") {
        assert!(documents.contains_key(&file_name(name.trim())), "no schema for{name}");
    }
}

#[test]
fn the_schemas_are_those_in_the_documentation_and_nothing_was_taken_away() {
    let update = Environment::system().variable("LIFEBOAT_UPDATE_SCHEMAS").is_some();
    for (name, document) in documents() {
        let path = folder().join(&name);
        let text = format!("{document:#}\n");
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        if !committed.is_empty() {
            let mut found = Vec::new();
            lost(&serde_json::from_str(&committed).unwrap(), &document, "", &mut found);
            assert!(found.is_empty(), "{name} lost {found:#?}");
        }
        if update {
            std::fs::write(&path, &text).unwrap();
        } else {
            assert_eq!(committed, text, "{name} has changed; see the top of this file");
        }
    }
}

#[test]
fn a_loss_is_noticed_and_an_addition_is_not() {
    let old = json!({ "properties": { "a": { "type": "string" } }, "required": ["a"] });
    let more = json!({
        "properties": { "a": { "type": "string", "description": "x" }, "b": {} },
        "required": ["b", "a"]
    });
    let count = |old: &Value, new: &Value| {
        let mut found = Vec::new();
        lost(old, new, "", &mut found);
        found.len()
    };
    assert_eq!(count(&old, &more), 0);
    assert_eq!(count(&more, &old), 2);
    assert_eq!(count(&old, &json!({ "properties": { "a": { "type": "integer" } } })), 2);
}
