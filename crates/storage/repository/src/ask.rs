//! Several regions are asked the same at once; one that answers makes the others hurry.

use std::future::Future;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use lifeboat_environment::Clock;
use lifeboat_telemetry::{Code, Failure, Outcome, duration};

/// How much longer than the first region that answers well the others may take. What one region
/// can do shall not wait for another that is gone.
pub const GRACE: Duration = Duration::from_secs(5);

/// Waits for all answers, but at most `limit`, and at most [`GRACE`] after the first good one.
/// The answers come in the order of the questions.
pub async fn ask<T, F>(clock: &dyn Clock, limit: Duration, questions: Vec<F>) -> Vec<Outcome<T>>
where
    F: Future<Output = Outcome<T>>,
{
    let start = clock.elapsed();
    let mut end = start.saturating_add(limit);
    let mut answers: Vec<Option<Outcome<T>>> = questions.iter().map(|_| None).collect();
    let mut pending: FuturesUnordered<_> = (0..)
        .zip(questions)
        .map(|(number, question): (usize, F)| async move { (number, question.await) })
        .collect();
    loop {
        let left = end.saturating_sub(clock.elapsed());
        let Ok(Some((number, answer))) = tokio::time::timeout(left, pending.next()).await else {
            break;
        };
        if answer.is_ok() {
            end = end.min(clock.elapsed().saturating_add(GRACE));
        }
        if let Some(place) = answers.get_mut(number) {
            *place = Some(answer);
        }
    }
    let waited = clock.elapsed().saturating_sub(start);
    let silent = || {
        let message = format!("no answer within {}", duration(waited));
        Err(Failure::new(Code::StoreUnavailable, message)
            .hint("See whether the store can be reached from here."))
    };
    answers.into_iter().map(|answer| answer.unwrap_or_else(silent)).collect()
}
