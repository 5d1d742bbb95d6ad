//! Answers to the controller, each after the time that it takes.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use lifeboat_model::ServiceName;
use lifeboat_quorum::{Commit, Compare, StoreError, Transaction};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::sleep;

use super::{World, now};
use crate::wire::{Answer, Answered, Ask, Asked, COMMIT, READ, SILENCE, WRITE, found, put};

/// What is to be answered.
pub type Answers = FuturesUnordered<LocalBoxFuture<'static, Result<Answered>>>;

/// Answers until the controller is gone.
pub async fn serve(world: &Rc<World>, stream: UnixStream) -> Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::with_capacity(1 << 16, read).lines();
    let mut answers = Answers::new();
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let line = line?.context("the controller has ended")?;
                answers.push(answer(world, serde_json::from_str(&line)?)?);
            }
            Some(answer) = answers.next(), if !answers.is_empty() => {
                let mut line = serde_json::to_vec(&answer?)?;
                line.push(b'\n');
                write.write_all(&line).await?;
            }
        }
    }
}

/// What is asked of the store is done now, and told later.
fn answer(
    world: &Rc<World>,
    Asked { id, what }: Asked,
) -> Result<LocalBoxFuture<'static, Result<Answered>>> {
    let mut counts = world.asked.get();
    let later = |after: Duration, what: Answer| -> LocalBoxFuture<'static, Result<Answered>> {
        Box::pin(async move {
            sleep(after).await;
            Ok(Answered { id, what })
        })
    };
    let answer = match what {
        Ask::Read(prefix, since) => {
            counts[0] += 1;
            later(READ, found(world.store.look(&prefix, since))?)
        }
        Ask::Commit(compares, puts) => {
            counts[1] += 1;
            let compare = |(key, revision)| Compare { key, revision };
            let compares = compares.into_iter().map(compare).collect();
            let puts = puts.into_iter().map(put).collect();
            later(COMMIT, commit(world, Transaction { compares, puts })?)
        }
        Ask::Probe(service) => {
            counts[2] += 1;
            let world = Rc::clone(world);
            Box::pin(async move { Ok(Answered { id, what: probe(&world, &service).await? }) })
        }
    };
    world.asked.set(counts);
    Ok(answer)
}

fn commit(world: &World, transaction: Transaction) -> Result<Answer> {
    let puts = transaction.puts.clone();
    match world.store.change(transaction) {
        Ok(Commit::Done(revision)) => {
            world.hear(&puts)?;
            Ok(Answer::Committed(Some(revision)))
        }
        Ok(Commit::Conflict) => Ok(Answer::Committed(None)),
        Err(StoreError::Denied(why)) => {
            eprintln!("bench: the store denies the controller {why}");
            Ok(Answer::Denied(why))
        }
        Err(error) => Err(error.into()),
    }
}

/// A write through the endpoint: it is done, or nothing is heard of it.
async fn probe(world: &World, service: &ServiceName) -> Result<Answer> {
    let at = *world.index.get(service).context("a stranger's probe")?;
    let began = now();
    let note = |answered: bool| {
        if let Some(place) = world.places.borrow_mut().get_mut(at) {
            place.probed = match answered {
                true => (Some(now()), None),
                false => (place.probed.0, Some(began)),
            };
        }
    };
    note(false);
    sleep(WRITE).await;
    let works = world.works(at);
    if !works {
        sleep((began + SILENCE).saturating_sub(now())).await;
    }
    note(true);
    Ok(Answer::Probed(works))
}
