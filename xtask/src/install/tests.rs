use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn only_what_lacks_is_asked_for_and_once() {
    assert!(lacking(|_| true).is_empty());
    let servers = ["etcd", "named"];
    assert_eq!(lacking(|program| !servers.contains(&program)), ["etcd-server", "bind9"]);
    let tools = ["dig", "nsupdate", "npm"];
    assert_eq!(lacking(|program| !tools.contains(&program)), ["nodejs", "npm", "bind9-dnsutils"]);
}

#[test]
fn packages_may_start_nothing_while_they_are_installed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let policy = folder.path().join("policy-rc.d");
    let guard = NoServices::new(&policy, &[])?;
    assert_eq!(fs::metadata(&policy)?.permissions().mode() & 0o777, 0o755);
    let answer = Command::new(&policy).args(["etcd", "start"]).status()?;
    assert_eq!(answer.code(), Some(101));
    // A second one leaves what is there alone.
    drop(NoServices::new(&policy, &[])?);
    assert!(policy.is_file());
    drop(guard);
    assert!(!policy.exists());
    Ok(())
}
