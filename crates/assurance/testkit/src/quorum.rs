//! What every quorum store does, whether it is etcd, one machine's files, or a model.
//!
//! [`conformance`] needs no runtime of its own, so the simulator runs it on its executor. It takes
//! two handles of one store, as two processes have, and leaves keys below its prefix alone that
//! are not its own.

mod model;

use anyhow::{Result, bail, ensure};
use futures::future::join_all;
use lifeboat_environment::{Random, SeededRandom};
use lifeboat_quorum::{Commit, Revision, Snapshot, Store, StoreError, Transaction, decode};

use model::Model;

/// Runs the whole suite below `prefix`, which ends in a slash and must be empty.
pub async fn conformance(one: &dyn Store, other: &dyn Store, prefix: &str) -> Result<()> {
    ensure!(one.read(prefix, 0).await?.entries.is_empty(), "{prefix} is not empty");
    compare_and_swap(one, other, &format!("{prefix}swap/")).await?;
    reads(one, other, &format!("{prefix}reads/")).await?;
    transactions(one, other, &format!("{prefix}transactions/")).await?;
    limits(one, &format!("{prefix}limits/")).await?;
    many_keys(one, other, &format!("{prefix}many/")).await?;
    one_of_many(&[one, other], &format!("{prefix}race/")).await?;
    for seed in 0..4 {
        let random = SeededRandom::new(seed);
        let prefix = format!("{prefix}random/{seed}/");
        random_transactions(&[one, other], &prefix, &random, 60).await?;
    }
    Ok(())
}

/// The revision of a commit that must have been made.
pub async fn done(store: &dyn Store, transaction: Transaction) -> Result<Revision> {
    match store.commit(transaction).await? {
        Commit::Done(revision) => Ok(revision),
        Commit::Conflict => bail!("a commit whose conditions hold was refused"),
    }
}

async fn refused(store: &dyn Store, transaction: Transaction) -> Result<()> {
    match store.commit(transaction).await? {
        Commit::Conflict => Ok(()),
        Commit::Done(at) => bail!("a commit whose conditions do not hold was made at {at}"),
    }
}

fn names(snapshot: &Snapshot, prefix: &str) -> Vec<String> {
    let keys = snapshot.entries.iter().map(|entry| entry.key.as_str());
    keys.map(|key| key.strip_prefix(prefix).unwrap_or(key).to_owned()).collect()
}

async fn compare_and_swap(one: &dyn Store, other: &dyn Store, prefix: &str) -> Result<()> {
    let key = format!("{prefix}key");
    let first = done(one, Transaction::new().create(&key, &1)).await?;
    refused(other, Transaction::new().create(&key, &2)).await?;
    let found = other.read(prefix, 0).await?;
    ensure!(found.revision_of(&key) == first, "the key has another revision: {found:?}");
    ensure!(found.revision >= first, "a read is older than the commit before it");
    ensure!(found.get(&key).map(decode::<u32>) == Some(Ok(1)), "another value: {found:?}");

    let second = done(other, Transaction::new().when(&key, first).put(&key, &3)).await?;
    ensure!(second > first, "revisions do not grow: {first}, {second}");
    refused(one, Transaction::new().when(&key, first).put(&key, &4)).await?;
    // A revision that is still to come is no revision of the key either.
    refused(one, Transaction::new().when(&key, second + 100).put(&key, &4)).await?;
    ensure!(one.read(prefix, 0).await?.get(&key).map(decode::<u32>) == Some(Ok(3)));

    // The same bytes again are a change all the same: that is how a lease is renewed.
    let third = done(one, Transaction::new().when(&key, second).put(&key, &3)).await?;
    ensure!(third > second, "the same value again is no change");
    let gone = done(other, Transaction::new().when(&key, third).delete(&key)).await?;
    ensure!(gone > third, "a deletion is no change");
    ensure!(one.read(prefix, 0).await?.entries.is_empty(), "a deleted key is still there");
    refused(one, Transaction::new().when(&key, third).put(&key, &5)).await?;
    let again = done(one, Transaction::new().create(&key, &6)).await?;
    ensure!(again > gone, "a key that comes back has an old revision");
    Ok(())
}

async fn reads(one: &dyn Store, other: &dyn Store, prefix: &str) -> Result<()> {
    let mut revisions = Vec::new();
    for name in ["b", "a", "c/d", "ünïcode", "c0", "c/", "c"] {
        let put = Transaction::new().put(format!("{prefix}{name}"), &name);
        revisions.push(done(one, put).await?);
    }
    ensure!(revisions.is_sorted_by(|one, next| one < next), "{revisions:?}");
    let all = other.read(prefix, 0).await?;
    ensure!(names(&all, prefix) == ["a", "b", "c", "c/", "c/d", "c0", "ünïcode"], "{all:?}");
    let below = other.read(&format!("{prefix}c/"), 0).await?;
    ensure!(names(&below, prefix) == ["c/", "c/d"], "{below:?}");
    let alike = other.read(&format!("{prefix}c"), 0).await?;
    ensure!(names(&alike, prefix) == ["c", "c/", "c/d", "c0"], "{alike:?}");

    let third = revisions.get(2).copied().unwrap_or_default();
    let later = other.read(prefix, third).await?;
    ensure!(names(&later, prefix) == ["c", "c/", "c0", "ünïcode"], "{later:?}");
    let nothing = other.read(prefix, all.revision).await?;
    ensure!(nothing.entries.is_empty(), "{nothing:?}");
    ensure!(nothing.revision >= all.revision, "a read is older than the one before");
    // What changed twice is told once, with its last value.
    done(one, Transaction::new().put(format!("{prefix}a"), &"new")).await?;
    done(one, Transaction::new().put(format!("{prefix}a"), &"newest")).await?;
    let changed = other.read(prefix, all.revision).await?;
    ensure!(names(&changed, prefix) == ["a"], "{changed:?}");
    let value = changed.get(&format!("{prefix}a")).map(decode::<String>);
    ensure!(value == Some(Ok("newest".to_owned())), "{value:?}");
    Ok(())
}

async fn transactions(one: &dyn Store, other: &dyn Store, prefix: &str) -> Result<()> {
    let key = |name: &str| format!("{prefix}{name}");
    let both = Transaction::new().create(key("a"), &1).create(key("b"), &2).put(key("c"), &3);
    let first = done(one, both).await?;
    let found = other.read(prefix, 0).await?;
    let together = found.entries.iter().all(|entry| entry.revision == first);
    ensure!(together && found.entries.len() == 3, "not all at one revision: {found:?}");

    // One condition of several that does not hold refuses all of it.
    let half = Transaction::new().when(key("a"), first).when(key("b"), 0);
    refused(other, half.put(key("a"), &7).put(key("d"), &7).delete(key("c"))).await?;
    ensure!(one.read(prefix, 0).await?.entries == found.entries, "a refused commit did something");

    // Conditions may be about other keys than the changes.
    let elsewhere = Transaction::new().when(key("a"), first).when(key("none"), 0);
    let second = done(other, elsewhere.put(key("d"), &4).delete(key("c"))).await?;
    let found = one.read(prefix, first).await?;
    ensure!(names(&found, prefix) == ["d"] && found.revision_of(&key("d")) == second, "{found:?}");

    // What changes nothing is done, and no new revision.
    let before = one.read(prefix, 0).await?.revision;
    ensure!(done(one, Transaction::new()).await? == before, "nothing is a change");
    ensure!(done(one, Transaction::new().when(key("d"), second)).await? == before);
    ensure!(done(one, Transaction::new().delete(key("none"))).await? == before);
    refused(one, Transaction::new().when(key("d"), first)).await?;
    Ok(())
}

async fn limits(store: &dyn Store, prefix: &str) -> Result<()> {
    let key = |number: usize| format!("{prefix}{number:04}");
    let many = |count| (0..count).fold(Transaction::new(), |all, at| all.create(key(at), &at));
    // A string of n bytes is n + 2 bytes of JSON.
    let large = |size: usize| "x".repeat(size - 2);
    let long = |size: usize| format!("{prefix}{}", "k".repeat(size - prefix.len()));
    let sum = |count: usize| {
        (0..count).fold(Transaction::new(), |all, at| all.put(key(at), &large(256 << 10)))
    };
    let too_much = [
        many(65),
        (0..65).fold(Transaction::new(), |all, at| all.when(key(at), 0)),
        Transaction::new().put(key(0), &1).put(key(0), &2),
        Transaction::new().put(key(0), &1).delete(key(0)),
        Transaction::new().put(key(0), &large((256 << 10) + 1)),
        Transaction::new().put(long(513), &1),
        Transaction::new().put("", &1),
        sum(5),
    ];
    for transaction in too_much {
        match store.commit(transaction).await {
            Err(StoreError::Denied(_)) => {}
            other => bail!("what exceeds the limits gives {other:?}"),
        }
    }
    ensure!(store.read(prefix, 0).await?.entries.is_empty(), "a refused commit did something");
    done(store, many(64)).await?;
    done(store, Transaction::new().put(long(512), &1)).await?;
    done(store, sum(4)).await?;
    let found = store.read(prefix, 0).await?;
    ensure!(found.entries.len() == 65, "{} keys", found.entries.len());
    let value = found.get(&key(0)).map(|entry| entry.value.len());
    ensure!(value == Some(256 << 10), "a large value came back with {value:?} bytes");
    Ok(())
}

/// More keys than any store tells in one piece.
async fn many_keys(one: &dyn Store, other: &dyn Store, prefix: &str) -> Result<()> {
    const COUNT: usize = 2200;
    let numbers: Vec<usize> = (0..COUNT).collect();
    for some in numbers.chunks(64) {
        let all = some.iter().fold(Transaction::new(), |all, number| {
            all.create(format!("{prefix}{number:05}"), number)
        });
        done(one, all).await?;
    }
    let found = other.read(prefix, 0).await?;
    ensure!(found.entries.len() == COUNT, "{} of {COUNT} keys", found.entries.len());
    for (number, entry) in found.entries.iter().enumerate() {
        ensure!(decode::<usize>(entry)? == number, "{} holds another value", entry.key);
    }
    Ok(())
}

/// Of several commits with the same condition exactly one is made; its handle is who is told so.
pub async fn one_of_many(stores: &[&dyn Store], prefix: &str) -> Result<()> {
    let key = format!("{prefix}key");
    let mut revision = 0;
    for round in 0..10_usize {
        let attempts = stores.iter().cycle().take(stores.len() * 3).enumerate();
        let attempts = attempts.map(|(number, store)| {
            let value = (round, number);
            store.commit(Transaction::new().when(&key, revision).put(&key, &value))
        });
        let mut winners = Vec::new();
        for (number, result) in join_all(attempts).await.into_iter().enumerate() {
            if let Commit::Done(at) = result? {
                winners.push((number, at));
            }
        }
        let [(winner, at)] = winners.as_slice() else { bail!("{winners:?} have won") };
        let found = stores.first().map(|store| store.read(prefix, 0));
        let Some(found) = found else { bail!("no store") };
        let found = found.await?;
        ensure!(found.revision_of(&key) == *at, "another revision than the winner's: {found:?}");
        let value = found.get(&key).map(decode::<(usize, usize)>);
        ensure!(
            value == Some(Ok((round, *winner))),
            "{value:?}, but {winner} was told that it won"
        );
        revision = *at;
    }
    Ok(())
}

/// Random transactions, through any of the handles, beside a model that is too simple to be wrong.
pub async fn random_transactions(
    stores: &[&dyn Store],
    prefix: &str,
    random: &dyn Random,
    steps: usize,
) -> Result<()> {
    let mut model = Model::new(prefix);
    for step in 0..steps {
        let pick = random.next_u64() as usize % stores.len().max(1);
        let Some(store) = stores.get(pick) else { bail!("no store") };
        let transaction = model.random(random);
        let commit = store.commit(transaction.clone()).await?;
        model
            .check(&transaction, commit)
            .map_err(|why| why.context(format!("step {step}: {transaction:?} gave {commit:?}")))?;
        let since = model.random_revision(random);
        let snapshot = store.read(prefix, since).await?;
        let expected = model.since(since);
        ensure!(
            snapshot.entries == expected,
            "step {step}: since {since} there is {:?}, not {expected:?}",
            snapshot.entries
        );
        ensure!(snapshot.revision >= model.revision(), "step {step}: the read is an old one");
    }
    Ok(())
}
