//! What every [`TrafficDriver`] promises.

use std::time::Duration;

use anyhow::{Result, ensure};
use lifeboat_drivers::traffic::{Pointing, TrafficDriver};
use lifeboat_environment::{Clock as _, SystemClock};
use lifeboat_model::RegionName;
use lifeboat_telemetry::{Code, Outcome};

pub fn region(name: &str) -> RegionName {
    name.parse().expect("a region")
}

/// All servers agree on this.
pub fn leads(epoch: u64, name: &str) -> Pointing {
    let (dissent, lagging) = (Vec::new(), Vec::new());
    Pointing { epoch: Some(epoch), region: Some(region(name)), dissent, lagging }
}

pub fn code<T>(outcome: Outcome<T>) -> Option<Code> {
    outcome.err().map(|failure| failure.code())
}

/// Takes a record that nobody has set, with targets in `east` and `west`. `serves` hears of a move
/// before the driver does, as the nodes do.
pub async fn conforms(driver: &dyn TrafficDriver, serves: &dyn Fn(&str)) -> Result<()> {
    ensure!(!driver.name().is_empty());
    ensure!(driver.observe().await?.epoch.is_none(), "it was set before");

    serves("east");
    // The first epoch makes the record, and a second time changes nothing.
    for _ in 0..2 {
        assert_eq!(driver.point(region("east"), 1).await?, leads(1, "east"));
        assert_eq!(driver.observe().await?, leads(1, "east"));
    }
    // Epochs may be left out.
    serves("west");
    assert_eq!(driver.point(region("west"), 5).await?, leads(5, "west"));
    assert_eq!(driver.observe().await?, leads(5, "west"));

    // Lower ones are refused, and so is the same one for another region.
    for epoch in [0, 1, 4, 5] {
        let refused = driver.point(region("east"), epoch).await;
        assert_eq!(code(refused), Some(Code::TrafficSuperseded), "epoch {epoch}");
        assert_eq!(driver.observe().await?, leads(5, "west"));
    }
    // A region without targets would leave clients with nothing.
    assert_eq!(code(driver.point(region("north"), 6).await), Some(Code::SpecInvalid));
    assert_eq!(driver.observe().await?, leads(5, "west"));

    // And home again.
    serves("east");
    assert_eq!(driver.point(region("east"), 6).await?, leads(6, "east"));
    assert_eq!(driver.observe().await?, leads(6, "east"));
    Ok(())
}

/// Two that know nothing of each other: whoever has the higher epoch wins, in whatever order their
/// messages come. The lower one may have been in time; if it was late, it hears so.
pub async fn the_higher_epoch_wins(
    one: &dyn TrafficDriver,
    other: &dyn TrafficDriver,
    rounds: u64,
) -> Result<()> {
    let first = one.observe().await?.epoch.unwrap_or(0);
    let mut late = 0;
    for round in 0..rounds {
        let lower = first + 2 * round + 1;
        let (loser, winner) = match round % 2 {
            0 => (region("east"), region("west")),
            _ => (region("west"), region("east")),
        };
        let (low, high) = match round % 4 {
            0 | 1 => {
                futures::join!(one.point(loser, lower), other.point(winner.clone(), lower + 1))
            }
            _ => {
                let (high, low) =
                    futures::join!(one.point(winner.clone(), lower + 1), other.point(loser, lower));
                (low, high)
            }
        };
        assert_eq!(high?, leads(lower + 1, winner.as_str()));
        match low {
            Ok(_) => {}
            Err(failure) => {
                assert_eq!(failure.code(), Code::TrafficSuperseded, "{failure}");
                late += 1;
            }
        }
        assert_eq!(one.observe().await?, leads(lower + 1, winner.as_str()));
    }
    ensure!(late > 0, "in {rounds} rounds nobody was ever late: this was no race");
    Ok(())
}

/// Waits for what others find out in their own time. A guard against waiting for ever, no assertion.
pub async fn until_seen(driver: &dyn TrafficDriver, wanted: &Pointing) -> Result<()> {
    let began = SystemClock.elapsed();
    loop {
        let seen = driver.observe().await?;
        if seen == *wanted {
            return Ok(());
        }
        ensure!(SystemClock.elapsed() - began < Duration::from_secs(30), "still {seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
