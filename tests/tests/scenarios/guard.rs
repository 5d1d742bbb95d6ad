//! A guard in daily life: extensions, shutdowns, fences, agents that come and go.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifeboat_drivers::guard::{EndReason, Mode, Phase, Stop};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_scenarios::commits::{Sessions, prepare};
use lifeboat_scenarios::guarded::{Agent, Guarded};
use lifeboat_telemetry::Code;
use lifeboat_testkit::postgres::{Cluster, DEBIAN_MAJOR};
use lifeboat_testkit::process::{PATIENCE, run, wait_until};
use lifeboat_testkit::run::Lifeboat;
use lifeboat_testkit::scratch::Scratch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIFE: Duration = Duration::from_secs(6);

/// In so long, by the clock that counts.
fn within(life: Duration) -> Duration {
    SystemClock.elapsed() + life
}

fn agents_come_and_go_and_no_commit_fails(mode: Mode) -> Result<()> {
    let guarded = Guarded::new(mode)?;
    guarded.start(Some(within(LIFE)))?;
    prepare(&guarded.cluster.connection())?;
    let sessions = Sessions::start(&guarded.connections())?;
    let mut confirmed = 0;
    // An upgrade: the old agent ends, the new one begins, of another binary.
    for _ in 0..4 {
        let agent = Agent::start(guarded.plan.socket(), LIFE);
        let other = Agent::start(guarded.plan.socket(), LIFE / 2);
        sessions.wait_for_more(30)?;
        SystemClock.sleep(Duration::from_millis(300));
        confirmed += agent.stop()? + other.stop()?;
    }
    ensure!(confirmed > 8, "only {confirmed} extensions were confirmed");
    let acknowledged = sessions.stop()?;
    ensure!(acknowledged.len() > 300, "only {} commits", acknowledged.len());
    let stopped = guarded.client.stop(Stop::Fast, PATIENCE)?;
    ensure!(stopped.clean, "{stopped:?}");
    Ok(())
}

fn a_life_from_start_to_end(mode: Mode) -> Result<()> {
    let mut guarded = Guarded::new(mode)?;
    let client = guarded.client.clone();
    let refused = |what: Result<(), lifeboat_telemetry::Failure>, code: Code| match what {
        Err(failure) if failure.code() == code => Ok(()),
        other => Err(anyhow::anyhow!("{other:?} instead of {code}")),
    };
    // Nothing lives yet.
    refused(client.extend(within(LIFE)).map(drop), Code::GuardRefused)?;
    refused(client.stop(Stop::Fast, PATIENCE).map(drop), Code::GuardRefused)?;
    ensure!(client.fence()?.processes == 0);
    refused(client.start(guarded.options(), Some(Duration::ZERO)).map(drop), Code::GuardDeadline)?;
    let far = Some(within(Duration::from_secs(60)));
    refused(client.start(guarded.options(), far).map(drop), Code::GuardDeadline)?;
    ensure!(client.status()?.phase == Phase::Down);

    // As a standby it has no deadline; a promotion begins with one.
    guarded.start(None)?;
    let status = client.status()?;
    ensure!((status.phase, status.deadline) == (Phase::Up, None), "{status:?}");
    ensure!(status.numbers_agree, "postmaster.pid holds another number: {status:?}");
    refused(client.start(guarded.options(), None).map(drop), Code::GuardRefused)?;
    refused(client.end(), Code::GuardRefused)?;
    let late = within(LIFE);
    ensure!(client.extend(late)? == late);
    ensure!(client.extend(within(LIFE / 2))? == late, "the deadline went back");
    refused(client.extend(Duration::from_secs(1)).map(drop), Code::GuardDeadline)?;
    ensure!(client.status()?.deadline == Some(late));

    let stopped = client.stop(Stop::Fast, PATIENCE)?;
    ensure!(stopped.clean && stopped.end.reason == EndReason::Stopped { code: Some(0) });
    ensure!(client.status()?.deadline.is_none(), "a deadline outlived its instance");

    // The binary is replaced, as an upgrade does; this guard starts PostgreSQL all the same.
    fs::remove_file(guarded.lifeboat.program())?;
    guarded.start(Some(within(LIFE)))?;
    guarded.cluster.psql("CREATE TABLE kept AS SELECT 1")?;
    let killed = client.fence()?;
    ensure!(killed.processes >= 6, "{killed:?}");
    guarded.wait_until_gone()?;
    ensure!(client.status()?.last_end.is_some_and(|end| end.reason == EndReason::Fenced));
    guarded.start(None)?;
    ensure!(guarded.cluster.psql("SELECT * FROM kept")? == "1");

    // Nobody waits for sessions that do not end.
    let keeper = Pid::from_raw(client.status()?.keeper);
    kill(keeper, Signal::SIGTERM)?;
    guarded.wait_until_gone()?;
    ensure!(wait_until(PATIENCE, || Ok(client.status().is_err()))?, "the guard did not end");
    ensure!(guarded.logs().contains("database system is shut down"), "{}", guarded.logs());
    guarded.lifeboat = Lifeboat::new()?;
    guarded.plan.program = Some(guarded.lifeboat.program().to_owned());
    guarded.begin_again()
}

fn a_stop_that_takes_too_long_ends_in_a_kill(mode: Mode) -> Result<()> {
    let guarded = Guarded::new(mode)?;
    guarded.start(Some(within(LIFE)))?;
    let postmaster = Pid::from_raw(guarded.client.status()?.postmaster.context("no postmaster")?);
    kill(postmaster, Signal::SIGSTOP)?;
    let stopped = guarded.client.stop(Stop::Fast, Duration::from_millis(300))?;
    ensure!(!stopped.clean && stopped.end.reason == EndReason::StopTimedOut, "{stopped:?}");
    guarded.wait_until_gone()
}

/// A frozen guard cannot confirm a fence; then the agent does it.
fn an_agent_fences_below_a_frozen_guard(mode: Mode) -> Result<()> {
    let mut guarded = Guarded::new(mode)?;
    guarded.start(None)?;
    let all = guarded.processes()?;
    for pid in all.iter().take(2) {
        kill(*pid, Signal::SIGSTOP)?;
    }
    let killed = guarded.client.fence()?;
    ensure!(killed.processes >= 6, "{killed:?}");
    guarded.wait_until_gone()?;
    let left = |pid: &Pid| kill(*pid, None).is_ok();
    ensure!(wait_until(PATIENCE, || Ok(!all.iter().any(left)))?, "{all:?} are left");
    guarded.begin_again()?;
    guarded.start(None)
}

#[test]
fn agents_come_and_go_with_a_namespace() -> Result<()> {
    agents_come_and_go_and_no_commit_fails(Mode::Namespace)
}

#[test]
fn agents_come_and_go_with_subreapers() -> Result<()> {
    agents_come_and_go_and_no_commit_fails(Mode::Subreaper)
}

#[test]
fn a_life_with_a_namespace() -> Result<()> {
    a_life_from_start_to_end(Mode::Namespace)
}

#[test]
fn a_life_with_subreapers() -> Result<()> {
    a_life_from_start_to_end(Mode::Subreaper)
}

#[test]
fn a_stop_has_an_end_with_a_namespace() -> Result<()> {
    a_stop_that_takes_too_long_ends_in_a_kill(Mode::Namespace)
}

#[test]
fn a_stop_has_an_end_with_subreapers() -> Result<()> {
    a_stop_that_takes_too_long_ends_in_a_kill(Mode::Subreaper)
}

#[test]
fn a_frozen_guard_is_fenced_with_a_namespace() -> Result<()> {
    an_agent_fences_below_a_frozen_guard(Mode::Namespace)
}

#[test]
fn a_frozen_guard_is_fenced_with_subreapers() -> Result<()> {
    an_agent_fences_below_a_frozen_guard(Mode::Subreaper)
}

#[test]
fn one_directory_has_one_guard_and_nobody_else_may_ask() -> Result<()> {
    let guarded = Guarded::new(Mode::Subreaper)?;
    let mut words: Vec<std::ffi::OsString> = vec!["guard".into(), "run".into()];
    words.extend(lifeboat_drivers::guard::arguments(&guarded.plan));
    let second = guarded.lifeboat.run(&words)?.expect_code(4)?;
    ensure!(second.stderr.contains("LB7016"), "{second}");

    // What is no request gets an answer, and the guard lives.
    let mut stream = UnixStream::connect(guarded.plan.socket())?;
    stream.write_all(b"{\"version\":2,\"sequence\":9,\"ask\":\"status\"}\nnonsense\n")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answers = String::new();
    stream.read_to_string(&mut answers)?;
    ensure!(answers.matches("refused").count() == 2, "{answers}");

    // Neither owner nor root. The directory keeps others out already, so it is opened for this.
    let open = Permissions::from_mode;
    let socket = guarded.plan.socket();
    for path in [guarded.cluster.scratch().path(), guarded.plan.state.as_path()] {
        fs::set_permissions(path, open(0o755))?;
    }
    fs::set_permissions(&socket, open(0o666))?;
    // It is told before it has said anything.
    let script = "my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die $!; print <$s>;";
    let mut stranger = Command::new("perl");
    stranger.uid(65534).args(["-MIO::Socket::UNIX", "-e", script]).arg(&socket);
    let said = run(&mut stranger)?.success()?;
    ensure!(said.stdout.contains("may not ask"), "{said}");
    guarded.client.status()?;
    Ok(())
}

#[test]
fn a_status_is_shown() -> Result<()> {
    let guarded = Guarded::new(Mode::Namespace)?;
    guarded.start(Some(within(LIFE)))?;
    let state = guarded.plan.state.display().to_string();
    let mut command = Command::new(guarded.lifeboat.program());
    let shown = run(command.args(["guard", "status", "--state", &state]))?.success()?;
    ensure!(shown.stdout.contains("instance up"), "{shown}");
    ensure!(shown.stdout.contains("killed in "), "{shown}");
    let mut command = Command::new(guarded.lifeboat.program());
    let gone = run(command.args(["guard", "status", "--state", "/nonexistent"]))?.expect_code(1)?;
    ensure!(gone.stderr.contains("LB7010"), "{gone}");
    Ok(())
}

/// No watchdog device exists here: a fifo stands in, and this test is the host that it resets.
#[test]
fn a_watchdog_is_fed_while_the_instance_may_live() -> Result<()> {
    let scratch = Scratch::new()?;
    let path = scratch.join("watchdog");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU)?;
    let mut options = fs::File::options();
    let mut device =
        options.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(&path)?;
    let mut read = || {
        let mut bytes = [0; 256];
        let count = device.read(&mut bytes).unwrap_or_default();
        bytes.iter().take(count).copied().collect::<Vec<u8>>()
    };
    let watchdog = Some(path.clone());
    let builder = Cluster::builder(DEBIAN_MAJOR);
    let mut guarded = Guarded::with(Mode::Namespace, builder, |plan| plan.watchdog = watchdog)?;
    ensure!(read() == *b"\0V", "what an earlier guard left counting was not turned off");
    guarded.start(None)?;
    ensure!(read().is_empty(), "a standby needs no watchdog");
    guarded.client.extend(within(LIFE))?;
    ensure!(guarded.client.status()?.watchdog_armed && read() == [0], "not armed before a primary");
    let mut fed = 0;
    ensure!(wait_until(LIFE / 2, || {
        fed += read().len();
        Ok(fed >= 2)
    })?);
    guarded.client.fence()?;
    ensure!(read().last() == Some(&b'V') && !guarded.client.status()?.watchdog_armed);

    // With nobody who feeds it, it is not turned off either: the host would be reset.
    guarded.start(Some(within(LIFE)))?;
    kill(Pid::from_raw(guarded.client.status()?.keeper), Signal::SIGKILL)?;
    guarded.wait_until_gone()?;
    ensure!(!read().contains(&b'V'), "a dead guard has turned the watchdog off");

    guarded.begin_again()?;
    ensure!(read().last() == Some(&b'V'), "a guard that found nothing alive did not turn it off");

    // What cannot be armed cannot be a primary.
    fs::remove_file(&path)?;
    let failure = guarded.client.start(guarded.options(), Some(within(LIFE)));
    ensure!(failure.is_err_and(|failure| failure.code() == Code::GuardRefused));
    guarded.start(None)
}
