//! A commit that is never made twice, and whose outcome is never guessed.
//!
//! A transaction that compares a key with a revision above 0 and changes that key can have its
//! effect only once: it gives the key a higher revision, and revisions never come back. Such a
//! one may be sent to several members. If one copy is refused while the fate of another is not
//! known, the refusal may be the other's success: it counts only if what lies in the store shows
//! that no copy was carried out. Everything else is sent once.

use super::race::{Care, Race};
use super::wire::{self, Txn};
use super::{EtcdStore, body};
use crate::{Commit, Entry, Revision, StoreError, Transaction};

pub(super) async fn commit(
    store: &EtcdStore,
    transaction: Transaction,
) -> Result<Commit, StoreError> {
    store.check()?;
    transaction.check()?;
    let guarded = is_guarded(&transaction);
    let care = if guarded { Care::Repeat } else { Care::Once };
    let request = body(&wire::txn(&transaction, guarded));
    let mut race = Race::new(store, "/v3/kv/txn", request, care, store.deadline());
    loop {
        let answer: Txn = race.next().await?;
        if answer.succeeded {
            return Ok(Commit::Done(answer.header.revision));
        }
        if race.is_alone() || was_never_made(&transaction, &answer.found()?) {
            return Ok(Commit::Conflict);
        }
        // The copy that was made, if one was, may still say so.
        race.ask_no_more();
    }
}

/// Whether it can have its effect only once.
fn is_guarded(transaction: &Transaction) -> bool {
    transaction.compares.iter().any(|compare| {
        compare.revision > 0 && transaction.puts.iter().any(|put| put.key == compare.key)
    })
}

/// Whether no copy of a guarded transaction was carried out before this look, nor can be after it.
fn was_never_made(transaction: &Transaction, found: &[Entry]) -> bool {
    let now = |key: &str| -> Revision {
        found.iter().find(|entry| entry.key == key).map_or(0, |entry| entry.revision)
    };
    // A key that it changes was not changed since: no copy was carried out before.
    let before = transaction.compares.iter().any(|compare| {
        compare.revision > 0
            && now(&compare.key) == compare.revision
            && transaction.puts.iter().any(|put| put.key == compare.key)
    });
    // A condition failed that can never hold again: none will be.
    let after = transaction
        .compares
        .iter()
        .any(|compare| compare.revision > 0 && now(&compare.key) != compare.revision);
    before && after
}
