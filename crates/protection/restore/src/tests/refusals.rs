use std::fs;
use std::os::unix::fs::MetadataExt;

use lifeboat_telemetry::Code;

use super::fixture::{Backup, Fixture, PAGE, noise, tree};

fn write(fixture: &Fixture) -> Backup {
    let mut writer = fixture.writer();
    writer.skeleton();
    writer.file("base/5/1001", &noise(8, 20 * PAGE));
    writer.finish()
}

#[test]
fn a_directory_with_anything_in_it_is_refused_and_left_alone() {
    let fixture = Fixture::new(&["east"]);
    let backup = write(&fixture);
    let to = fixture.path("target");
    fs::create_dir(&to).unwrap();
    fs::write(to.join("precious"), b"x").unwrap();
    for delta in [false, true] {
        let mut plan = fixture.plan(&backup, &to);
        plan.delta = delta;
        let failure = fixture.restore(&plan).unwrap_err();
        assert_eq!(failure.code(), Code::TargetDirectory, "{failure}");
        assert_eq!(tree(&to).into_keys().collect::<Vec<_>>(), ["precious"]);
    }
    let file = fixture.path("file");
    fs::write(&file, b"x").unwrap();
    let failure = fixture.restore(&fixture.plan(&backup, &file)).unwrap_err();
    assert_eq!(failure.code(), Code::TargetDirectory);
}

#[test]
fn an_empty_directory_is_taken_and_keeps_its_inode() {
    let fixture = Fixture::new(&["east"]);
    let backup = write(&fixture);
    let to = fixture.path("target");
    fs::create_dir(&to).unwrap();
    let inode = fs::metadata(&to).unwrap().ino();
    fixture.restore(&fixture.plan(&backup, &to)).unwrap();
    assert_eq!(fs::metadata(&to).unwrap().ino(), inode);
    assert_eq!(super::fixture::mode(&to), 0o700);
}

#[test]
fn a_running_server_is_never_touched() {
    let fixture = Fixture::new(&["east"]);
    let backup = write(&fixture);
    let to = fixture.path("target");
    let mut plan = fixture.plan(&backup, &to);
    fixture.restore(&plan).unwrap();
    // A process that works in the directory, as a server does.
    let mut server =
        std::process::Command::new("sleep").arg("60").current_dir(&to).spawn().unwrap();
    let text = format!("{}\n{}\n", server.id(), to.display());
    fs::write(to.join("postmaster.pid"), text).unwrap();
    plan.delta = true;
    let outcome = fixture.restore(&plan);
    server.kill().unwrap();
    server.wait().unwrap();
    let failure = outcome.unwrap_err();
    assert_eq!(failure.code(), Code::TargetDirectory);
    assert!(failure.message().contains("runs"), "{failure}");
    // The file of a server that is gone does not matter.
    fixture.restore(&plan).unwrap();
    assert!(!to.join("postmaster.pid").exists());
}

#[test]
fn a_delta_never_goes_over_another_cluster() {
    let fixture = Fixture::new(&["east"]);
    let backup = write(&fixture);
    let to = fixture.path("target");
    let mut plan = fixture.plan(&backup, &to);
    fixture.restore(&plan).unwrap();
    let control = to.join("global/pg_control");
    let mut bytes = fs::read(&control).unwrap();
    bytes[0] ^= 1;
    let crc = crc32c::crc32c(&bytes[..288]);
    bytes[288..292].copy_from_slice(&crc.to_le_bytes());
    fs::write(&control, &bytes).unwrap();
    plan.delta = true;
    let failure = fixture.restore(&plan).unwrap_err();
    assert_eq!(failure.code(), Code::TargetDirectory, "{failure}");
    assert_eq!(fs::read(&control).unwrap(), bytes);
    // One that is damaged is what a restore is for.
    fs::write(&control, b"torn").unwrap();
    fixture.restore(&plan).unwrap();
}

#[test]
fn two_restores_of_one_target_do_not_meet() {
    let fixture = Fixture::new(&["east"]);
    let backup = write(&fixture);
    let to = fixture.path("target");
    let plan = fixture.plan(&backup, &to);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| fixture.restore_with(&plan, "restore.files_done=sleep:1500"));
        while !to.join("base/5/1001").exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let failure = fixture.restore(&plan).unwrap_err();
        assert_eq!(failure.code(), Code::TargetDirectory, "{failure}");
        assert!(failure.message().contains("another restore"), "{failure}");
        slow.join().unwrap().unwrap();
    });
    assert!(to.join("global/pg_control").exists());
}

#[test]
fn an_unfinished_restore_of_another_database_stays() {
    let fixture = Fixture::new(&["east"]);
    let backup = write(&fixture);
    let to = fixture.path("target");
    let mut plan = fixture.plan(&backup, &to);
    fixture.restore_with(&plan, "restore.files_done=error").unwrap_err();
    plan.database = "shop/orders".to_owned();
    let failure = fixture.restore(&plan).unwrap_err();
    assert_eq!(failure.code(), Code::TargetDirectory, "{failure}");
    assert!(to.join("base/5/1001").exists());
}

#[test]
fn a_cluster_that_ran_is_not_taken_for_an_unfinished_restore() {
    let fixture = Fixture::new(&["east"]);
    let backup = write(&fixture);
    let to = fixture.path("target");
    let plan = fixture.plan(&backup, &to);
    fixture.restore_with(&plan, "restore.after_control=error").unwrap_err();
    fs::write(to.join("postmaster.opts"), "postgres").unwrap();
    let failure = fixture.restore(&plan).unwrap_err();
    assert_eq!(failure.code(), Code::TargetDirectory, "{failure}");
    assert!(to.join("global/pg_control").exists());
}

#[test]
fn an_interruption_is_called_one() {
    let fixture = Fixture::new(&["east"]);
    let backup = write(&fixture);
    let to = fixture.path("target");
    let plan = fixture.plan(&backup, &to);
    let cancel = lifeboat_telemetry::Cancel::new();
    cancel.request();
    let context = crate::RestoreContext {
        environment: &fixture.environment,
        source: &fixture.source(),
        reporter: &lifeboat_telemetry::Reporter::silent(),
        cancel: &cancel,
    };
    let failure = crate::restore(&plan, context).unwrap_err();
    assert_eq!(failure.code(), Code::Interrupted, "{failure}");
    assert!(!to.join("global/pg_control").exists());
    fixture.restore(&plan).unwrap();
}
