//! What every archive does: a suite that each one passes.

use anyhow::{Context, Result, ensure};
use futures::executor::block_on;
use jiff::Timestamp;
use lifeboat_model::ServiceName;
use lifeboat_quorum::{Beginning, EpochRecord, Fence, FenceProof, RunId};
use lifeboat_telemetry::Code;

use super::{EpochArchive, KnownEpoch, MemoryEpochs, Mood};

pub(super) fn record(epoch: u64, region: &str, run: u64) -> Result<EpochRecord> {
    let fence = Fence { epoch: 1, proof: FenceProof::NoHolder, at: Timestamp::UNIX_EPOCH };
    let mut record = EpochRecord::first(Beginning {
        epoch,
        region: region.parse()?,
        holders: [("ledger".parse()?, format!("{region}-1").parse()?)].into(),
        fence,
        synchronous: lifeboat_quorum::Synchronous::default(),
        degraded: None,
        at: Timestamp::UNIX_EPOCH,
        spec: String::new(),
    });
    record.run = Some(RunId(run));
    Ok(record)
}

/// Two views of one empty archive, as two controllers have them.
pub(super) async fn suite(one: &dyn EpochArchive, other: &dyn EpochArchive) -> Result<()> {
    let service: ServiceName = "payments".parse()?;
    ensure!(one.highest(&service).await? == None);
    let first = record(1, "west", 7)?;
    let having = one.record(&service, &first).await?;
    ensure!(!having.is_empty());
    // The same grant again, by whomever and whenever, is the same object.
    let again = EpochRecord { began: "2026-01-01T00:00:00Z".parse()?, ..first.clone() };
    ensure!(other.record(&service, &again).await? == having);
    let KnownEpoch { epoch, region, holders, run, repositories } =
        other.highest(&service).await?.context("an epoch")?;
    ensure!((epoch, region, run) == (1, Some("west".parse()?), Some(RunId(7))));
    ensure!(holders == first.holders && repositories == having);
    for another in [record(1, "east", 7)?, record(1, "west", 8)?] {
        let refused = other.record(&service, &another).await.expect_err("given twice");
        ensure!(refused.code() == Code::EpochTaken, "{refused:?}");
    }
    // Numbers may be left out; each service has its own.
    one.record(&service, &EpochRecord { run: None, ..record(9, "east", 0)? }).await?;
    let known = other.highest(&service).await?.context("an epoch")?;
    ensure!((known.epoch, known.run) == (9, None), "{known:?}");
    ensure!(one.highest(&"books".parse()?).await? == None);
    Ok(())
}

#[test]
fn memory_behaves_as_an_archive() -> Result<()> {
    let one = MemoryEpochs::new();
    block_on(suite(&one, &one.clone()))?;
    one.be(Mood::Away);
    let failure = block_on(one.highest(&"payments".parse()?)).expect_err("nobody answers");
    ensure!(failure.code() == Code::StoreUnavailable);
    Ok(())
}
