use super::*;

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

#[test]
fn output_and_exit_code_are_kept() {
    let finished = run(&mut shell("echo out; echo err >&2; exit 3")).unwrap();
    assert_eq!(finished.code, Some(3));
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("out\n", "err\n"));
    assert!(finished.clone().success().unwrap_err().to_string().contains("err"));
    assert!(finished.expect_code(3).is_ok());
}

#[test]
fn a_hung_command_is_killed_with_its_children() {
    let mut command = shell("sleep 1000 & echo $!; wait");
    let error = Running::spawn(&mut command, None)
        .unwrap()
        .wait(Duration::from_millis(300))
        .unwrap_err()
        .to_string();
    assert!(error.contains("still running"), "{error}");
    let child: i32 = error.lines().find_map(|line| line.parse().ok()).unwrap();
    // A killed orphan stays as a zombie until init reaps it, so its state is looked at.
    let gone = wait_until(PATIENCE, || {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        Ok(stat.is_empty() || stat.contains(") Z "))
    });
    assert!(gone.unwrap());
}

#[test]
fn the_tree_holds_grandchildren() {
    let running = Running::spawn(&mut shell("sh -c 'sleep 1000; :'; :"), None).unwrap();
    let grown = wait_until(PATIENCE, || Ok(tree(running.id()).len() == 3)).unwrap();
    assert!(grown, "{:?}", tree(running.id()));
}

#[test]
fn input_reaches_the_command() {
    let finished = Running::spawn(&mut Command::new("cat"), Some("hello")).unwrap();
    assert_eq!(finished.wait(PATIENCE).unwrap().stdout, "hello");
}
