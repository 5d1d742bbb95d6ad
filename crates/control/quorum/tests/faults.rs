//! Members that die, freeze and come back: what the holder of a lease sees of it (R8).

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::join_all;
use lifeboat_environment::{Clock, Environment, Random, SeededRandom, SystemClock};
use lifeboat_model::NodeName;
use lifeboat_quorum::{
    Commit, EtcdAccess, EtcdStore, Lease, Store, StoreError, Timing, Transaction, decode,
};
use lifeboat_testkit::etcd::Cluster;
use lifeboat_testkit::quorum::done;
use lifeboat_testkit::store::{Fault, FaultProxy, Profile};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// R8's values for a lease of 6 s.
const TIMING: Timing = Timing {
    lease: ms(6000),
    renew: ms(500),
    probe_timeout: ms(500),
    store_timeout: ms(750),
    fence_deadline: ms(1500),
    margin: ms(500),
};

/// A client that begins with this member.
fn client(cluster: &Cluster, first: usize) -> Result<EtcdStore> {
    let mut endpoints = cluster.endpoints();
    endpoints.rotate_left(first);
    let access = EtcdAccess { endpoints, ..EtcdAccess::default() };
    Ok(EtcdStore::new(&access, TIMING.store_timeout)?)
}

/// What became of a holder's renewals.
#[derive(Debug, Default)]
struct Renewed {
    attempts: u32,
    failures: u32,
    /// The most failures one after the other.
    longest: u32,
    /// The longest time between the sending of two renewals that were confirmed.
    widest: Duration,
    why: Vec<String>,
}

/// Renews as an agent does: every `renew`, by compare-and-swap; after an unknown outcome it looks
/// first. One try of both calls that fails is one failure.
async fn renew(store: EtcdStore, key: &str, done: &Cell<bool>) -> Result<Renewed> {
    let node: NodeName = "east-1".parse().context("a node's name")?;
    let mut lease = Lease { epoch: 1, node, agent: 7, beat: 0 };
    let (mut revision, mut unknown) = (0, true);
    let mut renewed = Renewed::default();
    let (mut row, mut confirmed) = (0, SystemClock.elapsed());
    while !done.get() {
        let sent = SystemClock.elapsed();
        lease.beat += 1;
        let attempt = async {
            if unknown {
                revision = store.read(key, 0).await?.revision_of(key);
            }
            unknown = true;
            store.commit(Transaction::new().when(key, revision).put(key, &lease)).await
        };
        renewed.attempts += 1;
        match attempt.await {
            Ok(Commit::Done(at)) => {
                (revision, unknown, row) = (at, false, 0);
                renewed.widest = renewed.widest.max(sent.saturating_sub(confirmed));
                confirmed = sent;
            }
            // Nobody else writes this key, so only a commit of its own can be in the way, one
            // whose outcome was not known when it looked.
            Ok(Commit::Conflict) => renewed.fail(&mut row, "a conflict".to_owned()),
            Err(StoreError::Unavailable(why)) => renewed.fail(&mut row, why),
            Err(error) => return Err(error.into()),
        }
        let spent = SystemClock.elapsed().saturating_sub(sent);
        tokio::time::sleep(TIMING.renew.saturating_sub(spent)).await;
    }
    Ok(renewed)
}

impl Renewed {
    fn fail(&mut self, row: &mut u32, why: String) {
        *row += 1;
        self.failures += 1;
        self.longest = self.longest.max(*row);
        self.why.push(why);
    }
}

/// Three holders, each with another member as its first, while `script` breaks the cluster.
async fn holders(
    cluster: Cluster,
    script: impl FnOnce(&mut Cluster) -> Result<()> + Send + 'static,
) -> Result<Vec<Renewed>> {
    let done = Cell::new(false);
    let keys: Vec<String> = (0..3).map(|number| format!("lifeboat/lease/{number}")).collect();
    let stores = (0..3).map(|first| client(&cluster, first)).collect::<Result<Vec<_>>>()?;
    let renewals = stores.into_iter().zip(&keys).map(|(store, key)| renew(store, key, &done));
    let breaking = async {
        let mut cluster = cluster;
        let broken = tokio::task::spawn_blocking(move || script(&mut cluster)).await;
        done.set(true);
        broken.context("the script panicked")?
    };
    let (renewed, broken) = futures::future::join(join_all(renewals), breaking).await;
    broken?;
    renewed.into_iter().collect()
}

/// One way to lose a member.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Kill,
    Freeze,
}

/// Loses a member and brings it back.
fn lose(cluster: &mut Cluster, leader: bool, loss: Loss, for_how_long: Duration) -> Result<()> {
    let member = if leader { cluster.leader()? } else { cluster.follower()? };
    match loss {
        Loss::Kill => cluster.kill(member)?,
        Loss::Freeze => cluster.stop(member)?,
    }
    SystemClock.sleep(for_how_long);
    cluster.heal()?;
    SystemClock.sleep(ms(1000));
    Ok(())
}

fn check(renewed: &[Renewed]) -> Result<()> {
    for holder in renewed {
        eprintln!(
            "{} renewals, {} failed, {} in a row, at most {} ms apart",
            holder.attempts,
            holder.failures,
            holder.longest,
            holder.widest.as_millis()
        );
        ensure!(holder.attempts > 5, "nothing was tested: {holder:?}");
        ensure!(holder.longest < 2, "two renewals in a row failed: {holder:?}");
        ensure!(holder.widest < TIMING.life(), "the guard would have killed: {holder:?}");
    }
    Ok(())
}

#[tokio::test]
async fn losing_any_one_member_never_ends_a_lease() -> Result<()> {
    let renewed = holders(Cluster::start()?, |cluster| {
        lose(cluster, true, Loss::Kill, ms(3000))?;
        lose(cluster, true, Loss::Freeze, ms(3000))?;
        lose(cluster, false, Loss::Freeze, ms(2000))?;
        lose(cluster, false, Loss::Kill, ms(2000))?;
        lose(cluster, true, Loss::Kill, ms(200))
    });
    check(&renewed.await?)
}

/// `cargo xtask torture quorum`.
#[tokio::test]
#[ignore = "takes long: cargo xtask torture quorum"]
async fn full_leaders_are_lost_again_and_again() -> Result<()> {
    let environment = Environment::system();
    let number = |name: &str, usual: u64| -> Result<u64> {
        environment.variable(name).map_or(Ok(usual), |text| Ok(text.parse()?))
    };
    let rounds = number("LIFEBOAT_TORTURE_ROUNDS", 20)?;
    let random = SeededRandom::new(number("LIFEBOAT_TORTURE_SEED", 1)?);
    let renewed = holders(Cluster::start()?, move |cluster| {
        for round in 0..rounds {
            let loss = if round % 2 == 0 { Loss::Kill } else { Loss::Freeze };
            SystemClock.sleep(ms(random.next_u64() % 500));
            lose(cluster, true, loss, ms(500 + random.next_u64() % 2500))?;
        }
        Ok(())
    });
    check(&renewed.await?)
}

#[tokio::test]
async fn without_a_majority_nothing_is_answered_and_with_one_all_is() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let store = client(&cluster, 0)?;
    let key = "lifeboat/key";
    let before = done(&store, Transaction::new().put(key, &1)).await?;
    for loss in [Loss::Kill, Loss::Freeze] {
        for member in 0..2 {
            match loss {
                Loss::Kill => cluster.kill(member)?,
                Loss::Freeze => cluster.stop(member)?,
            }
        }
        for _ in 0..2 {
            let read = store.read(key, 0).await;
            ensure!(matches!(read, Err(StoreError::Unavailable(_))), "{loss:?}: {read:?}");
            let commit = Transaction::new().when(key, before).put(key, &2);
            let commit = store.commit(commit).await;
            ensure!(matches!(commit, Err(StoreError::Unavailable(_))), "{loss:?}: {commit:?}");
        }
        cluster.heal()?;
        ensure!(store.read(key, 0).await?.revision_of(key) >= before, "{loss:?}");
    }
    // What was asked of the frozen ones may have been done after all, but only once.
    let found = store.read(key, 0).await?;
    let value = found.get(key).map(decode::<u8>).transpose()?;
    ensure!(value.is_some_and(|value| value == 1 || value == 2), "{found:?}");
    done(&store, Transaction::new().when(key, found.revision_of(key)).put(key, &3)).await?;
    Ok(())
}

#[tokio::test]
async fn no_read_fails_while_a_follower_is_frozen_or_dead() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let stores = (0..3).map(|first| client(&cluster, first)).collect::<Result<Vec<_>>>()?;
    let key = "lifeboat/key";
    let follower = cluster.follower()?;
    for loss in [Loss::Freeze, Loss::Kill] {
        match loss {
            Loss::Kill => cluster.kill(follower)?,
            Loss::Freeze => cluster.stop(follower)?,
        }
        let mut revision = 0;
        for store in stores.iter().cycle().take(30) {
            let found = store.read(key, 0).await?;
            ensure!(found.revision_of(key) == revision, "{loss:?}: an old read");
            let next = Transaction::new().when(key, revision).put(key, &1);
            revision = if revision == 0 {
                // Not guarded: it may meet the frozen member, and is then not sent again.
                match store.commit(next).await {
                    Ok(Commit::Done(at)) => at,
                    other => {
                        ensure!(matches!(other, Err(StoreError::Unavailable(_))), "{other:?}");
                        store.read(key, 0).await?.revision_of(key)
                    }
                }
            } else {
                done(store, next).await?
            };
        }
        cluster.heal()?;
        done(&client(&cluster, 0)?, Transaction::new().delete(key)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_etcd_that_went_back_is_refused_for_good() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let store = client(&cluster, 0)?;
    for _ in 0..5 {
        done(&store, Transaction::new().put("lifeboat/key", &1)).await?;
    }
    let known = store.read("lifeboat/", 0).await?.revision;
    (0..3).try_for_each(|member| cluster.kill(member))?;
    cluster.wipe()?;
    cluster.heal()?;
    for _ in 0..2 {
        let read = store.read("lifeboat/", 0).await;
        let right =
            matches!(read, Err(StoreError::Regressed { known: old, found: 1 }) if old == known);
        ensure!(right, "{read:?}");
        let commit = store.commit(Transaction::new().put("lifeboat/key", &1)).await;
        ensure!(matches!(commit, Err(StoreError::Regressed { .. })), "{commit:?}");
    }
    Ok(())
}

#[tokio::test]
async fn one_strange_member_is_passed_over_and_most_of_them_are_not() -> Result<()> {
    let (cluster, other) = (Cluster::start()?, Cluster::start()?);
    let ours = cluster.endpoints();
    let theirs = other.endpoints();
    let first = FaultProxy::start(ours.first().context("no member")?, Profile::CALM, 1)?;
    let members = |second: &String, third: &String| -> Result<EtcdStore> {
        let endpoints = vec![first.endpoint().to_owned(), second.clone(), third.clone()];
        let access = EtcdAccess { endpoints, ..EtcdAccess::default() };
        Ok(EtcdStore::new(&access, TIMING.store_timeout)?)
    };
    let [foreign, stranger, _] = theirs.as_slice() else { bail!("not three members") };
    let passing = members(foreign, ours.last().context("no member")?)?;
    let refusing = members(foreign, stranger)?;
    let revision = done(&passing, Transaction::new().put("lifeboat/key", &1)).await?;
    ensure!(refusing.read("lifeboat/", 0).await?.revision == revision);
    first.fail_calls(0..=usize::MAX, Fault::Reset);
    for _ in 0..3 {
        ensure!(passing.read("lifeboat/", 0).await?.revision == revision);
    }
    let read = refusing.read("lifeboat/", 0).await;
    ensure!(matches!(read, Err(StoreError::Regressed { .. })), "{read:?}");
    first.reset();
    let read = refusing.read("lifeboat/", 0).await;
    ensure!(matches!(read, Err(StoreError::Regressed { .. })), "{read:?}");
    Ok(())
}
