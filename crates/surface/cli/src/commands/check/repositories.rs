//! Each region's repository: does it answer, can it be written, is it the same vault, is its clock
//! ours.

use bytes::Bytes;
use jiff::SignedDuration;
use lifeboat_model::RegionName;
use lifeboat_objects::{Key, Store};
use lifeboat_repository::access::Access;
use lifeboat_repository::keys::Vault;
use lifeboat_repository::repository::{ExclusiveCreate, Repository};
use lifeboat_telemetry::{Code, Failure, Outcome, duration};

use super::{Lines, host};

/// A store's clock may be this far from ours before a person should look.
const SKEW_WARN: SignedDuration = SignedDuration::from_secs(60);
/// Beyond this, signed requests to clouds are refused.
const SKEW_FAIL: SignedDuration = SignedDuration::from_secs(600);

/// Adds the lines about all repositories.
pub fn check(access: &Access<'_>, lines: &mut Lines) {
    let mut vault = None;
    for region in access.region_names() {
        lines.about(format!("repository of {region}"));
        if let Some(repository) = reach(access, region, lines) {
            exclusive_create(&repository, lines);
            same_vault(&repository, region, &mut vault, lines);
            writable(access, repository.store(), lines);
        }
    }
}

fn reach(access: &Access<'_>, region: &RegionName, lines: &mut Lines) -> Option<Repository> {
    let store = lines.need("reachable", access.store(region))?;
    let place = store.location().display();
    let repository = match access.blocking.run(Repository::open(store)) {
        Ok(repository) => repository,
        Err(failure) if failure.code() == Code::RepositoryMissing => {
            let advice = "Run `lifeboat repo create`, or mount or correct the place.";
            lines.fail("reachable", format!("there is no repository at {place} yet"), advice);
            return None;
        }
        Err(failure) => {
            lines.failure("reachable", &failure);
            return None;
        }
    };
    if let Some(directory) = repository.store().location().directory() {
        host::free_space("free space", directory, lines);
    }
    if repository.region() == region.as_str() {
        lines.pass("reachable", place);
    } else {
        let message = format!("{place} is the repository of {}", repository.region());
        lines.fail("reachable", message, "Two URLs of the spec are swapped or the same.");
    }
    Some(repository)
}

fn exclusive_create(repository: &Repository, lines: &mut Lines) {
    match repository.format().exclusive_create {
        ExclusiveCreate::Proven => {
            lines.pass("exclusive create", "held in a race when the repository was made");
        }
        ExclusiveCreate::SingleWriter => lines.warn(
            "exclusive create",
            "the store does not create exclusively; `single_writer: true` accepts that",
            "Let only one host write, ever; or move to a store with conditional writes.",
        ),
    }
}

fn same_vault(
    repository: &Repository,
    region: &RegionName,
    first: &mut Option<(RegionName, Vault)>,
    lines: &mut Lines,
) {
    match first {
        None => *first = Some((region.clone(), repository.vault().clone())),
        Some((_, vault)) if vault == repository.vault() => {
            lines.pass("vault", "the same in all regions");
        }
        Some((other, _)) => lines.fail(
            "vault",
            format!("another than the one of {other}"),
            "One of the URLs is wrong: regions of one spec share one vault.",
        ),
    }
}

/// Creates one small object, asks the store when that was, and removes it.
fn writable(access: &Access<'_>, store: &Store, lines: &mut Lines) {
    let before = access.environment.clock().now();
    let Some(written) = lines.need("writable", access.blocking.run(touch(access, store))) else {
        return;
    };
    lines.pass("writable", "an object was created and read");
    let after = access.environment.clock().now();
    // The store's moment should lie between the two of ours; stores may count whole seconds.
    let second = SignedDuration::from_secs(1);
    let early = before.duration_since(written) - second;
    let late = written.duration_since(after) - second;
    let skew = early.max(late).max(SignedDuration::ZERO);
    let shown = duration(skew.unsigned_abs());
    let advice = "Synchronise this host's clock (chrony, systemd-timesyncd).";
    if skew > SKEW_FAIL {
        lines.fail("clock", format!("{shown} apart from the store's"), advice);
    } else if skew > SKEW_WARN {
        lines.warn("clock", format!("{shown} apart from the store's"), advice);
    } else {
        lines.pass("clock", "agrees with the store's");
    }
}

async fn touch(access: &Access<'_>, store: &Store) -> Outcome<jiff::Timestamp> {
    let number = access.environment.random().next_u64();
    let key = Key::new(format!("probe/{number:016x}"))?;
    store.create(&key, Bytes::from_static(b"lifeboat check")).await?;
    let found = store.stat(&key).await?;
    // Credentials that cannot delete are a virtue, not a failure.
    let _ = store.delete(&key).await;
    let message = "an object that was created is not there";
    found.map(|stat| stat.modified).ok_or_else(|| {
        Failure::new(Code::StoreUnfit, message).hint("This store loses what it accepts.")
    })
}
