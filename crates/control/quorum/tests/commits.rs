//! What a client of etcd says about a commit is true, whatever happens on the way.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use lifeboat_environment::{Random, SeededRandom};
use lifeboat_quorum::{
    Commit, EtcdAccess, EtcdStore, Revision, Store, StoreError, Transaction, decode,
};
use lifeboat_testkit::etcd::Cluster;
use lifeboat_testkit::quorum::done;
use lifeboat_testkit::store::{Fault, FaultProxy, Profile};

const KEY: &str = "lifeboat/key";
const OTHER: &str = "lifeboat/other";
const TIMEOUT: Duration = Duration::from_millis(750);

/// A cluster, and a proxy before each of its members.
struct Site {
    _cluster: Cluster,
    proxies: Vec<FaultProxy>,
}

impl Site {
    fn start() -> Result<Self> {
        let cluster = Cluster::start()?;
        let endpoints = cluster.endpoints();
        let proxies = endpoints.iter().map(|url| FaultProxy::start(url, Profile::CALM, 1));
        Ok(Self { proxies: proxies.collect::<Result<_>>()?, _cluster: cluster })
    }

    /// A client that asks the first member first.
    fn client(&self) -> Result<EtcdStore> {
        let endpoints = self.proxies.iter().map(|proxy| proxy.endpoint().to_owned()).collect();
        Ok(EtcdStore::new(&EtcdAccess { endpoints, ..EtcdAccess::default() }, TIMEOUT)?)
    }

    fn calls(&self) -> Vec<usize> {
        self.proxies.iter().map(|proxy| proxy.calls().len()).collect()
    }

    /// Two keys; their revision. Forgets all calls and faults.
    async fn begin(&self, client: &EtcdStore) -> Result<Revision> {
        self.proxies.iter().for_each(FaultProxy::reset);
        let both = Transaction::new().put(KEY, &"old").put(OTHER, &"old");
        let revision = done(client, both).await?;
        self.proxies.iter().for_each(FaultProxy::reset);
        Ok(revision)
    }

    fn fail(&self, member: usize, fault: Fault) {
        if let Some(proxy) = self.proxies.get(member) {
            proxy.fail_calls(0..=usize::MAX, fault);
        }
    }
}

async fn value(client: &EtcdStore) -> Result<String> {
    let found = client.read(KEY, 0).await?;
    Ok(found.get(KEY).map(decode::<String>).transpose()?.unwrap_or_default())
}

#[tokio::test]
async fn a_guarded_commit_goes_around_a_member_that_is_silent() -> Result<()> {
    let site = Site::start()?;
    let client = site.client()?;
    let old = site.begin(&client).await?;
    site.fail(0, Fault::Silence);
    let made = done(&client, Transaction::new().when(KEY, old).put(KEY, &"new")).await?;
    ensure!(made > old && value(&client).await? == "new");
    ensure!(site.calls() == [1, 2, 0], "{:?}", site.calls());
    // Two are silent; the one that answered is asked first.
    site.fail(2, Fault::Silence);
    done(&client, Transaction::new().when(KEY, made).put(KEY, &"newer")).await?;
    ensure!(site.calls() == [1, 3, 0], "{:?}", site.calls());
    Ok(())
}

#[tokio::test]
async fn a_commit_that_is_not_guarded_is_sent_once() -> Result<()> {
    let site = Site::start()?;
    let client = site.client()?;
    let old = site.begin(&client).await?;
    let once = [
        Transaction::new().put(KEY, &"new"),
        Transaction::new().create("lifeboat/fresh", &"new"),
        Transaction::new().when(OTHER, old).put(KEY, &"new"),
    ];
    for fault in [Fault::Silence, Fault::LostReply, Fault::ErrorAfterwards] {
        for transaction in &once {
            let client = site.client()?;
            site.proxies.iter().for_each(FaultProxy::reset);
            site.fail(0, fault);
            let commit = client.commit(transaction.clone()).await;
            ensure!(matches!(commit, Err(StoreError::Unavailable(_))), "{fault:?}: {commit:?}");
            ensure!(site.calls() == [1, 0, 0], "{fault:?}: {:?}", site.calls());
        }
    }
    // What never reached a member may go to another one.
    let mut endpoints = vec!["http://127.0.0.1:1".to_owned()];
    endpoints.extend(site.proxies.iter().map(|proxy| proxy.endpoint().to_owned()));
    let access = EtcdAccess { endpoints, ..EtcdAccess::default() };
    site.proxies.iter().for_each(FaultProxy::reset);
    done(&EtcdStore::new(&access, TIMEOUT)?, Transaction::new().put(KEY, &"new")).await?;
    Ok(())
}

#[tokio::test]
async fn a_success_whose_answer_is_lost_is_never_called_a_conflict() -> Result<()> {
    let site = Site::start()?;
    for fault in [Fault::LostReply, Fault::ErrorAfterwards, Fault::BrokenReply] {
        let client = site.client()?;
        let old = site.begin(&client).await?;
        site.fail(0, fault);
        let commit = client.commit(Transaction::new().when(KEY, old).put(KEY, &"new")).await;
        ensure!(matches!(commit, Err(StoreError::Unavailable(_))), "{fault:?}: {commit:?}");
        ensure!(value(&client).await? == "new", "{fault:?}: the first copy was made");
    }
    Ok(())
}

#[tokio::test]
async fn a_conflict_is_told_if_no_copy_can_have_been_made() -> Result<()> {
    let site = Site::start()?;
    for fault in [Fault::LostReply, Fault::Silence] {
        let client = site.client()?;
        let old = site.begin(&client).await?;
        // As a record that a controller revokes while the holder renews its lease.
        done(&client, Transaction::new().put(OTHER, &"revoking")).await?;
        site.fail(0, fault);
        let renewal = Transaction::new().when(OTHER, old).when(KEY, old).put(KEY, &"new");
        let commit = client.commit(renewal).await;
        ensure!(commit == Ok(Commit::Conflict), "{fault:?}: {commit:?}");
        ensure!(value(&client).await? == "old", "{fault:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_late_copy_changes_nothing() -> Result<()> {
    let site = Site::start()?;
    let client = site.client()?;
    let old = site.begin(&client).await?;
    site.fail(0, Fault::Delay(Duration::from_millis(400)));
    let made = done(&client, Transaction::new().when(KEY, old).put(KEY, &"new")).await?;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let found = client.read(KEY, 0).await?;
    ensure!(found.revision_of(KEY) == made, "made twice: {found:?}");
    Ok(())
}

/// So often each client attempts it in a round.
const ATTEMPTS: usize = 40;
/// How often clients meet depends on the machine: there are more rounds where they rarely do.
const ROUNDS_MAX: usize = 8;
/// Each of the three that can be told was told more often, or the test shows little.
const TOLD_ENOUGH: usize = 3;

/// One client that adds to a list what it attempts, by compare-and-swap.
async fn add(client: &EtcdStore, name: usize, round: usize) -> Result<Vec<(String, Told)>> {
    let mut told = Vec::new();
    for attempt in round * ATTEMPTS..(round + 1) * ATTEMPTS {
        let Ok(found) = client.read(KEY, 0).await else { continue };
        let mut list: Vec<String> = found.get(KEY).map(decode).transpose()?.unwrap_or_default();
        let own = format!("{name}-{attempt}");
        list.push(own.clone());
        let change = Transaction::new().when(KEY, found.revision_of(KEY)).put(KEY, &list);
        told.push(match client.commit(change).await {
            Ok(Commit::Done(_)) => (own, Told::Done),
            Ok(Commit::Conflict) => (own, Told::Conflict),
            Err(StoreError::Unavailable(_)) => (own, Told::Unknown),
            Err(error) => return Err(error.into()),
        });
    }
    Ok(told)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Done,
    Conflict,
    Unknown,
}

/// How many were told that it is done, in conflict, unknown.
fn counts(told: &[(String, Told)]) -> [usize; 3] {
    let count = |what| told.iter().filter(|(_, told)| *told == what).count();
    [count(Told::Done), count(Told::Conflict), count(Told::Unknown)]
}

#[tokio::test]
async fn what_clients_are_told_is_what_happened() -> Result<()> {
    let site = Site::start()?;
    let calm = site.client()?;
    done(&calm, Transaction::new().put(KEY, &Vec::<String>::new())).await?;
    let random = SeededRandom::new(11);
    for proxy in &site.proxies {
        for call in 0..2000 {
            let fault = match random.next_u64() % 12 {
                0 => Fault::LostReply,
                1 => Fault::Delay(Duration::from_millis(random.next_u64() % 500)),
                2 => Fault::ErrorAfterwards,
                3 => Fault::Silence,
                4 => Fault::Reset,
                _ => continue,
            };
            proxy.fail_call(call, fault);
        }
    }
    let clients = (0..4).map(|_| site.client()).collect::<Result<Vec<_>>>()?;
    let mut told: Vec<(String, Told)> = Vec::new();
    for round in 0..ROUNDS_MAX {
        let adding = clients.iter().enumerate().map(|(name, client)| add(client, name, round));
        told.extend(try_join_all(adding).await?.concat());
        if counts(&told).iter().all(|count| *count > TOLD_ENOUGH) {
            break;
        }
    }
    site.proxies.iter().for_each(FaultProxy::reset);
    // Copies that are still on their way are refused, for the list has changed since.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let found = calm.read(KEY, 0).await?;
    let list: Vec<String> = found.get(KEY).map(decode).transpose()?.unwrap_or_default();
    for (own, told) in &told {
        let times = list.iter().filter(|made| *made == own).count();
        let right = match told {
            Told::Done => times == 1,
            Told::Conflict => times == 0,
            Told::Unknown => times <= 1,
        };
        ensure!(right, "{own} was told {told:?}, and was made {times} times");
    }
    let counts = counts(&told);
    eprintln!("done, conflict, unknown: {counts:?}");
    ensure!(counts.iter().all(|count| *count > TOLD_ENOUGH), "too little happened: {counts:?}");
    Ok(())
}
