use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lifeboat_environment::{Environment, ManualClock, SeededRandom};
use lifeboat_telemetry::Code;

use crate::finding::{Findings, Place};
use crate::reader::Read;
use crate::tree::{Node, Value};
use crate::{Reference, Secret};

fn environment(variables: &[(&str, &str)]) -> Environment {
    let pairs = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let clock = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
    Environment::for_test(clock, Arc::new(SeededRandom::new(1)))
        .with_variables(pairs.collect::<BTreeMap<_, _>>())
}

fn read<T: Read>(text: &str) -> Option<T> {
    let node = Node { place: Place::START, value: Value::Text(text.to_owned()) };
    T::read(&node, &crate::finding::Path::default(), &mut Findings::new(text))
}

fn secret(text: &str) -> Secret {
    read(text).unwrap()
}

#[test]
fn a_secret_comes_from_a_variable_a_file_or_a_program() {
    let environment = environment(&[("PASS", "hunter2")]);
    let resolve = |text: &str| secret(text).resolve_text(&environment).unwrap().to_string();
    assert_eq!(resolve("${PASS}"), "hunter2");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    for (content, expected) in [("a b\n", "a b"), ("x\r\n", "x"), ("y\n\n", "y\n"), ("z", "z")] {
        std::fs::write(&file, content).unwrap();
        assert_eq!(resolve(&format!("file:{}", file.display())), expected);
    }
    assert_eq!(secret(&format!("file:{}", file.display())).file(), Some(file.as_path()));
    assert_eq!(resolve("command:/bin/echo one  two"), "one two");
}

#[test]
fn what_cannot_be_resolved_says_so_without_the_value() {
    let environment = environment(&[("EMPTY", "")]);
    let directory = tempfile::tempdir().unwrap();
    let large = directory.path().join("large");
    std::fs::write(&large, vec![b'x'; 65 * 1024]).unwrap();
    let binary = directory.path().join("binary");
    std::fs::write(&binary, [0xFF, 0xFE]).unwrap();
    for text in [
        "${MISSING}",
        "${EMPTY}",
        "file:/does/not/exist",
        "file:/tmp",
        &format!("file:{}", large.display()),
        &format!("file:{}", binary.display()),
        "command:/does/not/exist",
        "command:/bin/false",
        "command:/bin/cat /dev/zero",
    ] {
        let failure = secret(text).resolve_text(&environment).unwrap_err();
        assert_eq!(failure.code(), Code::SecretUnavailable, "{text}");
        assert!(failure.hint_text().is_some(), "{text}");
    }
}

#[test]
fn a_secret_is_never_printed() {
    let shown = format!("{:?} {}", secret("command:/bin/pass hunter2"), secret("${NAME}"));
    assert_eq!(shown, "Secret(command:/bin/pass …) ${NAME}");
    for text in ["hunter2", "$NAME", "${NAME}x", "x${NAME}", "file:relative", "command:", "${}"] {
        assert_eq!(read::<Secret>(text), None, "{text} passed as a reference");
    }
}

#[test]
fn a_reference_replaces_its_variables_when_used() {
    let environment = environment(&[("HOST", "db"), ("PORT", "5432")]);
    let reference: Reference = read("http://${HOST}:${PORT}/x").unwrap();
    assert_eq!(reference.as_written(), "http://${HOST}:${PORT}/x");
    assert_eq!(reference.resolve(&environment).unwrap(), "http://db:5432/x");
    let missing: Reference = read("${NOWHERE}").unwrap();
    assert_eq!(missing.resolve(&environment).unwrap_err().code(), Code::SecretUnavailable);
    assert!(read::<Reference>("host=x password=${PGPASSWORD} user=y").is_some());
    assert!(read::<Reference>("postgresql://me@db/x").is_some());
    for text in ["", "${", "${A B}", "${1}", "host=x password='hunter2'", "s3://key:hunter2@bucket"]
    {
        assert_eq!(read::<Reference>(text), None, "{text} passed");
    }
}

#[test]
fn state_lies_where_the_spec_the_environment_or_the_spec_file_say() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let origin = directory.path().join("lifeboat.yaml");
    let named = directory.path().join("named");
    let from_variable = directory.path().join("variable");
    let load = |state: &str| {
        let text = format!(
            "lifeboat: 1\nregions: {{ east: {{ repository: {{ url: \"file:///e\" }} }} }}\n{state}"
        );
        crate::Spec::load(&text, &origin).accept().unwrap()
    };
    let set = environment(&[("LIFEBOAT_STATE", from_variable.to_str().unwrap())]);
    let spec = load(&format!("state: {}\n", named.display()));
    assert_eq!(spec.state_directory(&origin, &set).unwrap(), named);
    let spec = load("");
    assert_eq!(spec.state_directory(&origin, &set).unwrap(), from_variable);
    assert_eq!(std::fs::metadata(&from_variable).unwrap().permissions().mode() & 0o777, 0o700);
    let found = spec.state_directory(&origin, &environment(&[])).unwrap();
    let usual = [Path::new("/var/lib/lifeboat").to_owned(), directory.path().join(".lifeboat")];
    assert!(usual.contains(&found), "{}", found.display());
    std::fs::set_permissions(&from_variable, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(spec.state_directory(&origin, &set).unwrap_err().code(), Code::LocalState);
}

#[test]
fn a_spec_is_found_by_flag_then_variable() {
    let directory = tempfile::tempdir().unwrap();
    let [one, two] = ["one.yaml", "two.yaml"].map(|name| directory.path().join(name));
    std::fs::write(&one, "").unwrap();
    std::fs::write(&two, "").unwrap();
    let set = environment(&[("LIFEBOAT_SPEC", two.to_str().unwrap())]);
    assert_eq!(crate::Spec::locate(Some(&one), &set).unwrap(), one);
    assert_eq!(crate::Spec::locate(None, &set).unwrap(), two);
    let missing = directory.path().join("missing.yaml");
    let failure = crate::Spec::locate(Some(&missing), &set).unwrap_err();
    assert_eq!(failure.code(), Code::SpecNotFound);
    std::fs::write(&one, [b'a', 0xFF]).unwrap();
    assert_eq!(crate::Spec::open(&one).unwrap_err().code(), Code::SpecInvalid);
    assert_eq!(crate::Spec::open(&missing).unwrap_err().code(), Code::LocalFile);
}
