use super::*;

/// A shell stands in for the binary: what is tested here is how it is called.
fn shell() -> Lifeboat {
    Lifeboat::of(Path::new("/bin/sh")).unwrap()
}

#[test]
fn it_runs_as_the_servers_account_with_a_clean_environment() {
    let lifeboat = shell().variable("LIFEBOAT_STATE", "/somewhere").directory("/tmp");
    let finished = lifeboat.ok(["-c", "id -u; pwd; env"]).unwrap();
    let mut lines = finished.stdout.lines();
    assert_eq!(lines.next(), Some(Account::of_server().unwrap().uid.to_string().as_str()));
    assert_eq!(lines.next(), Some("/tmp"));
    assert!(finished.stdout.contains("LIFEBOAT_STATE=/somewhere"));
    assert!(!finished.stdout.contains("CARGO"), "{}", finished.stdout);
}

#[test]
fn its_output_reads_as_json() {
    let finished = shell().ok(["-c", "echo '{\"lifeboat\": 1}'"]).unwrap();
    assert_eq!(finished.json().unwrap()["lifeboat"], 1);
    assert!(shell().ok(["-c", "echo no"]).unwrap().json().is_err());
}

#[test]
fn dying_elsewhere_is_not_dying_at_the_failpoint() {
    let dies = "test \"$LIFEBOAT_FAILPOINTS\" = push.stored=kill && kill -9 $$";
    shell().killed_at("push.stored", ["-c", dies]).unwrap();
    let error = shell().killed_at("push.stored", ["-c", "exit 1"]).unwrap_err().to_string();
    assert!(error.contains("did not die"), "{error}");
}

#[test]
fn a_missing_binary_is_an_error() {
    let error = Lifeboat::of(Path::new("/nowhere/lifeboat")).unwrap_err().to_string();
    assert!(error.contains("cargo build"), "{error}");
}
