//! A managed directory starts below a guard only (R11), however it is tried and whatever died
//! before; and what engineers do with a server works below a guard as it does without.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifeboat_drivers::guard::{Mode, manage, unmanage, unmanaged};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_scenarios::guarded::Guarded;
use lifeboat_telemetry::Code;
use lifeboat_testkit::postgres::{Cluster, DEBIAN_MAJOR, Stop};
use lifeboat_testkit::process::{Account, Finished, PATIENCE, kill_tree, run, wait_until};
use lifeboat_testkit::scratch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIFE: Duration = Duration::from_secs(15);
const REFUSED: &str = "could not open configuration file \"/proc/self/fd/241/lifeboat-guard.conf\"";

fn pg_ctl(cluster: &Cluster, words: &[&str]) -> Result<Finished> {
    let mut command = cluster.installation().server_command("pg_ctl")?;
    let options = format!("-c config_file={}", cluster.configuration().display());
    command.arg("-D").arg(cluster.data()).args(["-t", "20", "-o", &options]);
    run(command.arg("-l").arg(cluster.scratch().join("pg_ctl.log")).args(words))
}

fn pg_ctl_log(cluster: &Cluster) -> String {
    fs::read_to_string(cluster.scratch().join("pg_ctl.log")).unwrap_or_default()
}

/// As Debian's units and people do it, with the configuration where the fixture has put it.
fn pg_ctlcluster(cluster: &Cluster, words: &[&str]) -> Result<Finished> {
    let mut command = Command::new("/usr/bin/pg_ctlcluster");
    let root = cluster.configuration().ancestors().nth(3).context("no root")?;
    command.env("PG_CLUSTER_CONF_ROOT", root).current_dir("/");
    Account::of_server()?.apply(&mut command);
    run(command.args([&DEBIAN_MAJOR.to_string(), "main"]).args(words))
}

/// Every way to start a server that is not the guard's. All must fail and leave nothing.
fn nobody_can_start(cluster: &Cluster) -> Result<()> {
    for words in [&["start"][..], &["restart"]] {
        let finished = pg_ctl(cluster, words)?;
        ensure!(finished.code != Some(0), "{finished}");
        ensure!(pg_ctl_log(cluster).contains(REFUSED), "{finished}\n{}", pg_ctl_log(cluster));
        fs::remove_file(cluster.scratch().join("pg_ctl.log"))?;
    }
    let configuration = format!("config_file={}", cluster.configuration().display());
    for words in [&["-c", &configuration][..], &["--single", "-c", &configuration, "postgres"]] {
        let mut command = cluster.installation().server_command("postgres")?;
        let (first, rest) = words.split_at(usize::from(words[0] == "--single"));
        let finished = run(command.args(first).arg("-D").arg(cluster.data()).args(rest))?;
        ensure!(finished.code == Some(1) && finished.stderr.contains(REFUSED), "{finished}");
    }
    if cluster.configuration().parent() != Some(cluster.data()) {
        let finished = pg_ctlcluster(cluster, &["start"])?;
        ensure!(finished.code != Some(0), "{finished}");
        ensure!(finished.to_string().contains(REFUSED), "{finished}");
        // Without saying where the configuration lies there is none.
        let mut command = cluster.installation().server_command("postgres")?;
        run(command.arg("-D").arg(cluster.data()))?.expect_code(2)?;
    }
    ensure!(cluster.psql("SELECT 1").is_err(), "something answers");
    Ok(())
}

fn builder(debian: bool) -> lifeboat_testkit::postgres::Builder {
    let builder = Cluster::builder(DEBIAN_MAJOR);
    if debian { builder.debian() } else { builder }
}

fn a_managed_directory_starts_below_a_guard_only(mode: Mode, debian: bool) -> Result<()> {
    let mut guarded = Guarded::with(mode, builder(debian), |_| {})?;
    nobody_can_start(&guarded.cluster)?;

    // Whatever died, nothing has to be cleaned up before.
    let victims: &[&[usize]] = match mode {
        Mode::Namespace => &[&[0], &[1], &[0, 1]],
        Mode::Subreaper => &[&[0], &[1]],
    };
    for victims in victims {
        guarded.start(Some(SystemClock.elapsed() + LIFE))?;
        let second = pg_ctl(&guarded.cluster, &["start"])?;
        ensure!(second.code != Some(0), "a second server was started: {second}");
        let _ = fs::remove_file(guarded.cluster.scratch().join("pg_ctl.log"));
        let all = guarded.processes()?;
        for victim in *victims {
            kill(*all.get(*victim).context("nobody to kill")?, Signal::SIGKILL)?;
        }
        guarded.wait_until_gone()?;
        nobody_can_start(&guarded.cluster)?;
        if victims.contains(&0) {
            guarded.begin_again()?;
        }
    }

    // As after a reboot: files are left, and their numbers belong to others.
    guarded.start(Some(SystemClock.elapsed() + LIFE))?;
    let pid_file = guarded.cluster.data().join("postmaster.pid");
    let text = fs::read_to_string(&pid_file)?;
    guarded.client.fence()?;
    let mut other = Command::new("sleep");
    other.arg("600").uid(Account::of_server()?.uid.as_raw());
    let mut other = other.spawn()?;
    let rest: Vec<_> = text.lines().skip(1).collect();
    scratch::write(&pid_file, format!("{}\n{}\n", other.id(), rest.join("\n")))?;
    let finished = pg_ctl(&guarded.cluster, &["start"])?;
    ensure!(finished.code != Some(0), "{finished}");
    guarded.start(None)?;
    kill_tree(Pid::from_raw(other.id().cast_signed()));
    other.wait()?;
    guarded.client.stop(lifeboat_drivers::guard::Stop::Fast, PATIENCE)?;
    nobody_can_start(&guarded.cluster)?;

    // Given back, everybody can, and a guard does not.
    let changed = unmanage(guarded.cluster.data(), guarded.plan.config_file.as_deref())?;
    ensure!(changed.changed == [fs::canonicalize(guarded.cluster.configuration())?], "{changed:?}");
    let failure = guarded.client.start(guarded.options(), None);
    ensure!(failure.is_err_and(|failure| failure.code() == Code::GuardUnmanaged));
    guarded.cluster.start()?;
    manage(guarded.cluster.data(), guarded.plan.config_file.as_deref())?;
    let failure = guarded.client.start(guarded.options(), None);
    ensure!(failure.is_err_and(|failure| failure.code() == Code::GuardRunning));
    guarded.cluster.stop(Stop::Fast)
}

fn engineers_work_as_usual(mode: Mode, debian: bool) -> Result<()> {
    let guarded = Guarded::with(mode, builder(debian), |_| {})?;
    let cluster = &guarded.cluster;
    guarded.start(Some(SystemClock.elapsed() + LIFE))?;
    let is = |value: &str| {
        let reached = wait_until(PATIENCE, || Ok(cluster.psql("SHOW work_mem")? == value))?;
        ensure!(reached, "work_mem is {}, expected {value}", cluster.psql("SHOW work_mem")?);
        let errors = cluster.psql("SELECT name, error FROM pg_file_settings WHERE error <> ''")?;
        ensure!(errors.is_empty(), "{errors}");
        Ok(())
    };
    cluster.psql("ALTER SYSTEM SET work_mem = '7MB'; SELECT pg_reload_conf()")?;
    is("7MB")?;
    cluster.psql("ALTER SYSTEM RESET work_mem")?;
    let text = fs::read_to_string(cluster.configuration())?;
    scratch::write(cluster.configuration(), format!("{text}\nwork_mem = '9MB'\n"))?;
    pg_ctl(cluster, &["reload"])?.success()?;
    is("9MB")?;
    let status = pg_ctl(cluster, &["status"])?.success()?;
    let postmaster = guarded.client.status()?.postmaster.context("no postmaster")?;
    ensure!(status.stdout.contains(&format!("PID: {postmaster}")), "{status}");
    if debian {
        scratch::write(cluster.configuration(), format!("{text}\nwork_mem = '11MB'\n"))?;
        pg_ctlcluster(cluster, &["reload"])?.success()?;
        is("11MB")?;
    }

    // A copy of the directory brings the lines along, and is refused as well.
    let copy = cluster.scratch().folder("copy")?;
    let mut command = cluster.installation().client_command("pg_basebackup")?;
    command.arg("-d").arg(cluster.connection()).arg("-D").arg(&copy).arg("--checkpoint=fast");
    run(&mut command)?.success()?;
    if !debian {
        let mut command = cluster.installation().server_command("postgres")?;
        let finished = run(command.arg("-D").arg(&copy))?.expect_code(1)?;
        ensure!(finished.stderr.contains(REFUSED), "{finished}");
    }

    // Somebody restarts it by hand: it stops, and does not come back but by the guard.
    let finished = pg_ctl(cluster, &["restart", "-m", "fast"])?;
    ensure!(finished.code != Some(0), "{finished}");
    guarded.wait_until_gone()?;
    let down = || Ok(guarded.client.status()?.last_end.is_some());
    ensure!(wait_until(PATIENCE, down)?, "the guard did not see the end");
    let end = guarded.client.status()?.last_end.map(|end| end.reason);
    let expected = lifeboat_drivers::guard::EndReason::PostmasterEnded { code: Some(0) };
    ensure!(end == Some(expected), "{end:?}");
    borrowed(&guarded)?;
    guarded.start(None)
}

/// Tools that read the configuration of a stopped directory can be lent the grant.
fn borrowed(guarded: &Guarded) -> Result<()> {
    let cluster = &guarded.cluster;
    let postgres = cluster.installation().bin().join("postgres");
    let configuration = format!("config_file={}", cluster.configuration().display());
    let show = |lent: bool| {
        let mut command = Command::new(&postgres);
        if lent {
            command = Command::new(guarded.lifeboat.program());
            command.args(["guard", "borrow", "--data"]).arg(cluster.data()).arg("--");
            command.arg(&postgres);
        } else {
            Account::of_server()?.apply(&mut command);
        }
        run(command.arg("-D").arg(cluster.data()).args(["-C", "work_mem", "-c", &configuration]))
    };
    ensure!(show(false)?.code != Some(0));
    let shown = show(true)?.success()?;
    ensure!(shown.stdout.trim().parse::<u32>().is_ok(), "{shown}");
    Ok(())
}

#[test]
fn a_managed_directory_with_a_namespace() -> Result<()> {
    a_managed_directory_starts_below_a_guard_only(Mode::Namespace, false)
}

#[test]
fn a_managed_directory_with_subreapers() -> Result<()> {
    a_managed_directory_starts_below_a_guard_only(Mode::Subreaper, false)
}

#[test]
fn a_managed_directory_of_debian_with_a_namespace() -> Result<()> {
    a_managed_directory_starts_below_a_guard_only(Mode::Namespace, true)
}

#[test]
fn a_managed_directory_of_debian_with_subreapers() -> Result<()> {
    a_managed_directory_starts_below_a_guard_only(Mode::Subreaper, true)
}

#[test]
fn daily_work_with_a_namespace() -> Result<()> {
    engineers_work_as_usual(Mode::Namespace, false)
}

#[test]
fn daily_work_with_subreapers() -> Result<()> {
    engineers_work_as_usual(Mode::Subreaper, false)
}

#[test]
fn daily_work_on_debian_with_a_namespace() -> Result<()> {
    engineers_work_as_usual(Mode::Namespace, true)
}

#[test]
fn managing_changes_the_files_once_and_loses_nothing() -> Result<()> {
    let cluster = Cluster::builder(DEBIAN_MAJOR).create()?;
    let file = cluster.configuration();
    let before = fs::read(file)?;
    let owner = |path: &Path| -> Result<(u32, u32)> {
        use std::os::unix::fs::MetadataExt;
        let found = fs::metadata(path)?;
        Ok((found.uid(), found.mode()))
    };
    let owned = owner(file)?;
    ensure!(unmanaged(cluster.data(), None)?.len() == 2);
    ensure!(manage(cluster.data(), None)?.changed.len() == 1);
    ensure!(unmanaged(cluster.data(), None)?.is_empty());
    let managed = fs::read(file)?;
    ensure!(manage(cluster.data(), None)?.changed.is_empty() && fs::read(file)? == managed);
    ensure!(managed.starts_with(&before) && owner(file)? == owned);
    ensure!(owner(&cluster.data().join("lifeboat-guard.conf"))?.0 == owned.0);
    unmanage(cluster.data(), None)?;
    ensure!(fs::read(file)? == before, "unmanaging left or took something");
    ensure!(owner(file)? == owned);
    Ok(())
}
