//! The commands around repositories and keys, over real file repositories, without PostgreSQL.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use crate::lifeboat;

/// A folder with a spec of two regions, and a passphrase.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder can be made") };
        let root = place.path().display().to_string();
        let spec = format!(
            "lifeboat: 1
state: {root}/state
regions:
  east: {{ repository: {{ url: \"file://{root}/east\" }} }}
  west: {{ repository: {{ url: \"file://{root}/west\" }} }}
encryption:
  slots:
    - passphrase: \"file:{root}/passphrase\"
    - recovery_key: {{}}
tiers: {{ t: {{ rto: 1h, rpo: 1h }} }}
services:
  pay:
    tier: t
    home: east
    databases:
      ledger:
        engine: postgres
        nodes:
          east-1: {{ region: east, data_directory: {root}/data, connection: \"host={root}\" }}
        wal: {{ mode: archive, every: 30m }}
"
        );
        place.write("lifeboat.yaml", &spec);
        place.write("passphrase", "correct horse battery staple\n");
        place
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::write(&path, text).expect("the folder is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the file is ours");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, &[])
    }

    fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = lifeboat(arguments);
        command.current_dir(self.path()).envs(variables.iter().copied());
        command.env("LIFEBOAT_REGION", "east").output().expect("the binary starts")
    }

    fn json(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let output = self.run(&arguments);
        let document = serde_json::from_slice(&output.stdout).expect("one JSON document");
        assert_schema(&document);
        assert_eq!(document.get("error").is_none(), output.status.success(), "{document}");
        (output.status.code(), document)
    }
}

/// Every key of a result is in its schema, and every key that the schema promises is there.
fn assert_schema(document: &Value) {
    let Some(command) = document["command"].as_str() else {
        return;
    };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/formats/cli");
    let path = format!("{folder}/{}.json", command.replace(' ', "-"));
    let schema: Value =
        serde_json::from_slice(&fs::read(&path).expect(&path)).expect("a schema is JSON");
    let result = &schema["properties"]["result"];
    let known = result["properties"].as_object().expect("a result is an object");
    let given = document["result"].as_object().expect("a result is an object");
    assert!(given.keys().all(|key| known.contains_key(key)), "{command}: {given:?}");
    for required in result["required"].as_array().into_iter().flatten() {
        let key = required.as_str().expect("a key");
        assert!(given.contains_key(key), "{command} lacks {key}");
    }
}

#[test]
fn repositories_are_made_once_and_are_one_vault() {
    let place = Place::new();
    let (code, first) = place.json(&["repo", "create"]);
    assert_eq!(code, Some(0), "{first}");
    assert_eq!(first["command"], "repo create");
    assert_eq!(first["result"]["regions"][0]["outcome"], "created");
    let key = first["result"]["recovery_key"].as_str().expect("a recovery key");
    assert!(key.starts_with("LIFEBOAT-"));
    let mode = fs::metadata(place.path().join("state/writer.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let (code, again) = place.json(&["repo", "create"]);
    assert_eq!(code, Some(0), "{again}");
    assert_eq!(again["result"]["regions"][1]["outcome"], "existed");
    assert!(again["result"]["recovery_key"].is_null(), "it is shown once");
    assert_eq!(first["result"]["vault"], again["result"]["vault"]);

    fs::remove_file(place.path().join("passphrase")).unwrap();
    assert_eq!(place.run(&["repo", "create"]).status.code(), Some(0), "nothing has to be opened");

    let (code, stats) = place.json(&["repo", "stats"]);
    assert_eq!(code, Some(0));
    let entries = &stats["result"]["regions"][1]["kinds"]["audit"]["objects"];
    assert_eq!(entries, 2, "enrolling and creating are recorded, the repetition is not");
    assert_eq!(stats["result"]["regions"].as_array().map(Vec::len), Some(2));
    assert!(stats["result"]["regions"][0]["kinds"]["keys"]["objects"].as_u64() >= Some(2));
}

#[test]
fn a_region_that_is_lost_is_partial_and_comes_back() {
    let place = Place::new();
    assert_eq!(place.run(&["repo", "create"]).status.code(), Some(0));
    fs::rename(place.path().join("west"), place.path().join("away")).unwrap();
    let (code, list) = place.json(&["key", "list"]);
    assert_eq!(code, Some(5));
    assert_eq!(list["error"]["code"], "LB5004");
    assert_eq!(list["result"]["slots"].as_array().map(Vec::len), Some(2), "the result is there");
    assert_eq!(place.run(&["repo", "create"]).status.code(), Some(0));
    let (code, _) = place.json(&["key", "list"]);
    assert_eq!(code, Some(0));
}

#[test]
fn any_flipped_byte_is_damage() {
    let place = Place::new();
    assert_eq!(place.run(&["repo", "create"]).status.code(), Some(0));
    assert_eq!(place.run(&["repo", "check", "--read-data"]).status.code(), Some(0));
    let victim = place.path().join("east/keys/slot-00000001");
    let mut bytes = fs::read(&victim).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&victim, bytes).unwrap();
    let (code, document) = place.json(&["repo", "check", "--read-data"]);
    assert_eq!(code, Some(3));
    assert_eq!(document["error"]["code"], "LB3013");
    assert_eq!(document["result"]["regions"][0]["damage"][0]["object"], "keys/slot-00000001");
}

#[test]
fn slots_come_and_go_and_the_last_one_stays() {
    let place = Place::new();
    let (_, created) = place.json(&["repo", "create"]);
    let recovery = created["result"]["recovery_key"].as_str().unwrap().to_owned();
    place.write("second", "another passphrase\n");
    let second = place.path().join("second").display().to_string();
    let (code, added) = place.json(&["key", "add", "--passphrase", &second, "--label", "b"]);
    assert_eq!((code, &added["result"]["slot"]), (Some(0), &Value::from(3)));
    assert_eq!(place.run(&["key", "remove", "1"]).status.code(), Some(0));

    // The passphrase of the spec opens nothing any more; the recovery key does.
    let (code, failed) = place.json(&["key", "remove", "3"]);
    assert_eq!((code, &failed["error"]["code"]), (Some(1), &Value::from("LB3008")));
    let with_key = [("LIFEBOAT_RECOVERY_KEY", recovery.as_str())];
    let output = place.run_with(&["key", "remove", "3"], &with_key);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = place.run_with(&["key", "remove", "2"], &with_key);
    assert_eq!(output.status.code(), Some(2), "the last slot");
    assert_eq!(place.run(&["key", "remove", "9"]).status.code(), Some(2));
}

#[test]
fn no_output_ever_holds_a_secret() {
    let place = Place::new();
    place.write("passphrase", "do-not-print-me\n");
    for arguments in [
        &["-vvv", "repo", "create"][..],
        &["-vvv", "check"],
        &["-vvv", "key", "list"],
        &["-vvv", "backup"],
        &["-vvv", "wal", "status"],
        &["-vvv", "repo", "check", "--json"],
    ] {
        let output = place.run(arguments);
        let seen = [output.stdout, output.stderr].concat();
        let seen = String::from_utf8_lossy(&seen);
        assert!(!seen.contains("do-not-print-me"), "{arguments:?}: {seen}");
        assert!(!seen.contains("panicked"), "{arguments:?}: {seen}");
    }
}

#[test]
fn check_says_what_is_missing_and_what_a_thief_learns() {
    let place = Place::new();
    let verdict = |document: &Value, check: &str| {
        let lines = document["result"]["lines"].as_array().expect("lines").clone();
        let line = lines.into_iter().find(|line| line["check"] == check);
        line.map(|line| line["verdict"].as_str().expect("a verdict").to_owned())
    };
    let (code, before) = place.json(&["check"]);
    assert_eq!((code, &before["error"]["code"]), (Some(1), &Value::from("LB1009")));
    assert_eq!(verdict(&before, "reachable").as_deref(), Some("fail"));
    assert_eq!(place.run(&["repo", "create"]).status.code(), Some(0));
    let (code, after) = place.json(&["check"]);
    assert_eq!(code, Some(1), "there is no PostgreSQL");
    assert_eq!(verdict(&after, "reachable").as_deref(), Some("pass"));
    assert_eq!(verdict(&after, "vault").as_deref(), Some("pass"));
    assert_eq!(verdict(&after, "writer key").as_deref(), Some("pass"));
    assert_eq!(verdict(&after, "stolen keys").as_deref(), Some("warn"));
    fs::remove_file(place.path().join("passphrase")).unwrap();
    let (_, without) = place.json(&["check"]);
    assert_eq!(verdict(&without, "stolen keys").as_deref(), Some("pass"));
    assert_eq!(verdict(&without, "passphrase").as_deref(), Some("not-tested"));
    for name in ["east", "west"] {
        let left = fs::read_dir(place.path().join(name).join("probe")).unwrap();
        assert_eq!(left.count(), 0, "check leaves nothing in a repository");
    }
}

#[test]
fn a_spec_with_errors_shows_all_of_them_with_their_place() {
    let place = Place::new();
    let spec = fs::read_to_string(place.path().join("lifeboat.yaml")).unwrap();
    let spec = spec.replace("rto: 1h", "rto: 1parsec").replace("home: east", "home: mars");
    place.write("lifeboat.yaml", &spec);
    let (code, document) = place.json(&["check"]);
    assert_eq!(code, Some(2));
    let findings = document["result"]["findings"].as_array().unwrap();
    let errors = findings.iter().filter(|finding| finding["severity"] == "error").count();
    assert_eq!(errors, 2, "{findings:?}");
    assert!(findings.iter().all(|finding| finding["line"].as_u64() > Some(1)));
    let (code, document) = place.json(&["repo", "create"]);
    assert_eq!((code, &document["error"]["code"]), (Some(2), &Value::from("LB1003")));
}

#[test]
fn check_lists_what_is_not_protected_yet() {
    let place = Place::new();
    let spec = fs::read_to_string(place.path().join("lifeboat.yaml")).unwrap();
    place.write("lifeboat.yaml", &format!("{spec}alerts: {{ rules: {{ lag: 5m }} }}\n"));
    let (_, document) = place.json(&["check"]);
    let findings = document["result"]["findings"].as_array().unwrap();
    assert!(findings.iter().any(|finding| finding["severity"] == "not-protected"), "{findings:?}");
    let output = place.run(&["check"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("NOT PROTECTED YET"));
}
