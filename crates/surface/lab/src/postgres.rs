//! Questions to a region's PostgreSQL through its socket, which no cut link is in the way of.

use std::future::Future;
use std::time::Duration;

use futures::future::poll_fn;
use lifeboat_telemetry::{Code, Failure, Outcome};
use tokio::net::UnixStream;
use tokio_postgres::{Client, Config, NoTls, Row};

use crate::layout::{Domain, Layout};

/// A server that is frozen never answers.
const PATIENCE: Duration = Duration::from_secs(1);
/// For questions over all rows.
const LONG: Duration = Duration::from_secs(60);

/// Whether it takes writes.
pub fn is_primary(layout: &Layout, region: Domain) -> bool {
    let question = "SELECT NOT pg_is_in_recovery()";
    let answer = rows(layout, region, "postgres", question, PATIENCE);
    answer.is_ok_and(|rows| rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(false))
}

/// All rows that a question finds.
pub(crate) fn all_rows(
    layout: &Layout,
    region: Domain,
    database: &str,
    question: &str,
) -> Outcome<Vec<Row>> {
    rows(layout, region, database, question, LONG)
}

fn rows(
    layout: &Layout,
    region: Domain,
    database: &str,
    question: &str,
    limit: Duration,
) -> Outcome<Vec<Row>> {
    let path = layout.socket(region);
    let failed = || {
        Failure::new(Code::LabPart, format!("the database of {region} does not answer"))
            .hint("`lifeboat lab status` shows which parts are up.")
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed().because(error))?;
    let work = async {
        let stream = UnixStream::connect(&path).await.map_err(|error| failed().because(error))?;
        let mut config = Config::new();
        config.user("postgres").dbname(database);
        let opened = config.connect_raw(stream, NoTls).await;
        let (client, mut connection) = opened.map_err(|error| failed().because(error))?;
        let driven = async {
            // Ends with the connection; what it says besides answers is of no use here.
            while let Some(Ok(_)) = poll_fn(|context| connection.poll_message(context)).await {}
        };
        either(ask(&client, question), driven)
            .await
            .ok_or_else(failed)?
            .map_err(|error| failed().because(error))
    };
    runtime.block_on(async {
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(failed()))
    })
}

async fn ask(client: &Client, question: &str) -> Result<Vec<Row>, tokio_postgres::Error> {
    client.query(question, &[]).await
}

/// The answer, if it comes before the connection ends.
async fn either<T>(answer: impl Future<Output = T>, end: impl Future<Output = ()>) -> Option<T> {
    tokio::select! {
        biased;
        answer = answer => Some(answer),
        () = end => None,
    }
}
