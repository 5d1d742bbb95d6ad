//! One machine's store: processes that die while they write, and files that are damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifeboat_environment::{Clock, Environment, Random, SeededRandom, SystemClock};
use lifeboat_quorum::{Commit, LocalStore, Revision, Store, StoreError, Transaction, decode};
use lifeboat_testkit::process::{Finished, PATIENCE, Running};
use nix::sys::signal::Signal;

const FOLDER: &str = "LIFEBOAT_TEST_STORE";
const COUNT: &str = "LIFEBOAT_TEST_COUNT";
const KEY: &str = "lifeboat/counter";
const WAIT: Duration = Duration::from_secs(10);

fn open(folder: &Path) -> Result<LocalStore> {
    Ok(LocalStore::open(folder, WAIT, &Environment::system())?)
}

async fn counter(store: &LocalStore) -> Result<(u64, Revision)> {
    let found = store.read("lifeboat/", 0).await?;
    let value = found.get(KEY).map(decode::<u64>).transpose()?.unwrap_or_default();
    Ok((value, found.revision_of(KEY)))
}

/// Counts up by one; tries again where another process was faster.
async fn count_up(store: &LocalStore) -> Result<u64> {
    loop {
        let (value, revision) = counter(store).await?;
        let next = Transaction::new().when(KEY, revision).put(KEY, &(value + 1));
        if let Commit::Done(_) = store.commit(next).await? {
            return Ok(value + 1);
        }
    }
}

/// The process that the tests below start: counts up and says each number once it is committed.
#[tokio::test]
#[ignore = "runs in each run of the tests, as the process that those below start"]
async fn writer() -> Result<()> {
    let environment = Environment::system();
    let folder = environment.variable(FOLDER).context("no folder")?;
    let count: u64 = environment.variable(COUNT).context("no count")?.parse()?;
    let store = open(Path::new(folder))?;
    for _ in 0..count {
        println!("counted {}", count_up(&store).await?);
    }
    Ok(())
}

fn start(folder: &Path, count: u64, failpoints: &str) -> Result<Running> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", "writer", "--ignored", "--nocapture"]);
    command.env(FOLDER, folder).env(COUNT, count.to_string());
    command.env("LIFEBOAT_FAILPOINTS", failpoints);
    Running::spawn(&mut command, None)
}

fn counted(finished: &Finished) -> Vec<u64> {
    let words = finished.stdout.split_whitespace().collect::<Vec<_>>();
    let pairs = words.windows(2).filter_map(|pair| match pair {
        ["counted", number] => number.parse().ok(),
        _ => None,
    });
    pairs.collect()
}

#[tokio::test]
async fn a_writer_that_dies_at_any_point_loses_nothing_that_was_answered() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let store = open(folder.path())?;
    for (point, made) in [("locked", 0), ("torn", 0), ("written", 1), ("synced", 1)] {
        let before = count_up(&store).await?;
        let killed =
            start(folder.path(), 5, &format!("quorum.local.{point}=kill"))?.wait(PATIENCE)?;
        ensure!(killed.signal == Some(Signal::SIGKILL as i32), "{killed}");
        ensure!(counted(&killed).is_empty(), "{killed}");
        // One handle that was open all the while, and one that reads everything anew.
        let (after, _) = counter(&store).await?;
        ensure!(after == before + made, "{point}: {before}, then {after}");
        ensure!(counter(&open(folder.path())?).await?.0 == after, "{point}");
        // Whoever comes next writes over what was half written.
        ensure!(count_up(&store).await? == after + 1, "{point}");
        ensure!(counter(&open(folder.path())?).await?.0 == after + 1, "{point}");
    }
    Ok(())
}

#[tokio::test]
async fn a_writer_that_fails_at_any_point_takes_back_what_it_wrote() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let store = open(folder.path())?;
    for point in ["locked", "torn", "written", "synced"] {
        let before = count_up(&store).await?;
        let failed =
            start(folder.path(), 5, &format!("quorum.local.{point}=error"))?.wait(PATIENCE)?;
        ensure!(failed.code.is_some_and(|code| code != 0), "{failed}");
        ensure!(counter(&store).await?.0 == before, "{point}");
        ensure!(count_up(&store).await? == before + 1, "{point}");
    }
    Ok(())
}

#[tokio::test]
async fn processes_that_are_killed_at_random_count_without_a_gap() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let store = open(folder.path())?;
    let random = SeededRandom::new(7);
    let mut answered = Vec::new();
    for _ in 0..10 {
        let writers =
            (0..3).map(|_| start(folder.path(), 10_000, "")).collect::<Result<Vec<_>>>()?;
        SystemClock.sleep(Duration::from_millis(30 + random.next_u64() % 200));
        for writer in writers {
            writer.signal(Signal::SIGKILL)?;
            answered.extend(counted(&writer.wait(PATIENCE)?));
        }
    }
    let answers = answered.len();
    answered.sort_unstable();
    answered.dedup();
    ensure!(answers == answered.len(), "two processes were given the same number");
    ensure!(answers > 20, "only {answers} commits in all: nothing was tested");
    let (value, _) = counter(&store).await?;
    let highest = answered.last().copied().unwrap_or_default();
    // Each of the thirty may have died between its last commit and saying so.
    ensure!(value >= highest && value <= answers as u64 + 30, "{value}, {highest}, {answers}");
    Ok(())
}

#[tokio::test]
async fn several_processes_at_once_each_count_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let writers = (0..4).map(|_| start(folder.path(), 50, "")).collect::<Result<Vec<_>>>()?;
    let mut all = Vec::new();
    for writer in writers {
        all.extend(counted(&writer.wait(PATIENCE)?.success()?));
    }
    all.sort_unstable();
    ensure!(all == (1..=200).collect::<Vec<u64>>(), "{all:?}");
    Ok(())
}

#[tokio::test]
async fn a_long_journal_is_written_anew_and_others_follow() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (store, other) = (open(folder.path())?, open(folder.path())?);
    let journal = folder.path().join("journal");
    let large = "x".repeat(200_000);
    let mut longest = 0;
    let mut last = 0;
    for number in 0..20 {
        let put = Transaction::new().put("lifeboat/large", &large).put(KEY, &number);
        let Commit::Done(revision) = store.commit(put).await? else { continue };
        longest = longest.max(fs::metadata(&journal)?.len());
        last = revision;
        let found = other.read("lifeboat/", 0).await?;
        ensure!(found.revision == revision && found.get(KEY).map(decode) == Some(Ok(number)));
    }
    ensure!(longest < 2_500_000, "it grew to {longest} bytes");
    ensure!(last == 21, "revisions were lost: {last}");
    // Killed while it puts the new one in place: the old or the new one is there, whole.
    for point in ["drafted", "replaced"] {
        let before = count_up(&store).await?;
        let ended = start(folder.path(), 20_000, &format!("quorum.local.{point}=kill"))?;
        let ended = ended.wait(PATIENCE)?;
        ensure!(ended.signal == Some(Signal::SIGKILL as i32), "{ended}");
        let (value, _) = counter(&other).await?;
        let answered = counted(&ended).last().copied().unwrap_or(before);
        ensure!(value == answered + 1, "{point}: {value} after {answered}");
        ensure!(counter(&store).await?.0 == value);
    }
    Ok(())
}

async fn with_ten(folder: &Path) -> Result<(LocalStore, PathBuf, Vec<u8>)> {
    let store = open(folder)?;
    for _ in 0..10 {
        count_up(&store).await?;
    }
    let journal = folder.join("journal");
    let bytes = fs::read(&journal)?;
    Ok((store, journal, bytes))
}

#[tokio::test]
async fn a_flipped_bit_is_damage_and_a_torn_end_is_none() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (_, journal, good) = with_ten(folder.path()).await?;
    let records: Vec<usize> =
        good.windows(4).enumerate().filter(|(_, four)| four == b"LBQ1").map(|(at, _)| at).collect();
    ensure!(records.len() == 11, "{records:?}");
    let last = records.last().copied().unwrap_or_default();
    for place in 0..last {
        let mut bad = good.clone();
        if let Some(byte) = bad.get_mut(place) {
            *byte ^= 0x10;
        }
        fs::write(&journal, &bad)?;
        let found = open(folder.path())?.read("lifeboat/", 0).await;
        ensure!(matches!(found, Err(StoreError::Damaged { .. })), "byte {place}: {found:?}");
    }
    for length in last..good.len() {
        fs::write(&journal, good.get(..length).unwrap_or_default())?;
        ensure!(counter(&open(folder.path())?).await?.0 == 9, "cut at {length}");
    }
    Ok(())
}

#[tokio::test]
async fn a_store_that_went_back_or_is_another_one_is_refused_for_good() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (store, journal, old) = with_ten(folder.path()).await?;
    count_up(&store).await?;
    let newest = fs::read(&journal)?;
    let put = |bytes: &[u8]| -> Result<()> {
        let draft = folder.path().join("draft");
        fs::write(&draft, bytes)?;
        Ok(fs::rename(&draft, &journal)?)
    };
    let elsewhere = tempfile::tempdir()?;
    let (_, _, foreign) = with_ten(elsewhere.path()).await?;
    for replaced in [old, foreign] {
        let watching = open(folder.path())?;
        counter(&watching).await?;
        put(&replaced)?;
        for _ in 0..2 {
            let found = watching.read("lifeboat/", 0).await;
            ensure!(matches!(found, Err(StoreError::Regressed { known: 12, .. })), "{found:?}");
            // Also when all is as it was.
            put(&newest)?;
        }
        ensure!(counter(&open(folder.path())?).await?.0 == 11);
    }
    fs::remove_file(&journal)?;
    let commit = store.commit(Transaction::new().put(KEY, &1)).await;
    ensure!(matches!(commit, Err(StoreError::Regressed { .. })), "{commit:?}");
    Ok(())
}

#[tokio::test]
async fn a_process_that_holds_the_lock_makes_others_give_up_in_time() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let store = LocalStore::open(folder.path(), Duration::from_millis(50), &Environment::system())?;
    let lock = fs::File::open(folder.path().join("lock"))?;
    lock.lock()?;
    let commit = store.commit(Transaction::new().put(KEY, &1)).await;
    ensure!(matches!(commit, Err(StoreError::Unavailable(_))), "{commit:?}");
    lock.unlock()?;
    ensure!(counter(&store).await?.0 == 0, "what was given up was done all the same");
    Ok(())
}
