//! The simulator's traffic keeps the same promises.

use std::cell::Cell;
use std::time::Duration;

use anyhow::Result;
use lifeboat_drivers::traffic::model::{ModelServers, ModelTraffic};
use lifeboat_drivers::traffic::{LeadsTo, TrafficDriver as _};
use lifeboat_environment::{Random as _, SeededRandom, SystemTimer};
use lifeboat_telemetry::Code;

use crate::on_one_thread;
use crate::suite::{code, conforms, leads, region, the_higher_epoch_wins};

fn driver(servers: &ModelServers, delay: impl Fn() -> Duration + 'static) -> ModelTraffic<'static> {
    let service = "ledger".parse().expect("a service");
    let regions = ["east", "west"].map(region).into();
    ModelTraffic::new(service, regions, servers.clone(), &SystemTimer, delay)
}

#[test]
fn the_model_conforms() -> Result<()> {
    let driver = driver(&ModelServers::new(2), || Duration::ZERO);
    on_one_thread(conforms(&driver, &|_| {}))
}

#[test]
fn in_the_model_too_the_higher_epoch_wins_in_any_order_of_messages() -> Result<()> {
    for seed in 0..5 {
        let servers = ModelServers::new(2);
        let random = SeededRandom::new(seed);
        let delay = move || Duration::from_millis(random.next_u64() % 3);
        let (one, other) = (driver(&servers, delay), driver(&servers, || Duration::from_millis(1)));
        on_one_thread(the_higher_epoch_wins(&one, &other, 20))?;
    }
    Ok(())
}

#[test]
fn silence_and_meddling_are_seen() -> Result<()> {
    let servers = ModelServers::new(2);
    let sent = std::rc::Rc::new(Cell::new(0));
    let counted = std::rc::Rc::clone(&sent);
    let driver = driver(&servers, move || {
        counted.set(counted.get() + 1);
        Duration::ZERO
    });
    on_one_thread(async {
        driver.point(region("east"), 1).await?;
        assert!(sent.get() > 0);
        servers.set_answers(0, false);
        assert_eq!(servers.ask(0), None);
        let seen = driver.point(region("west"), 2).await?;
        assert_eq!(seen.dissent, ["model 0 does not answer"]);
        servers.set_answers(0, true);
        assert_eq!(driver.observe().await?.dissent, ["model 0 leads to east, for epoch 1"]);
        assert_eq!(driver.point(region("west"), 2).await?, leads(2, "west"));
        servers.meddle(1, LeadsTo::Nowhere);
        assert_eq!(driver.observe().await?.dissent, ["model 1 leads nowhere"]);
        servers.meddle(0, LeadsTo::Taken("it is an alias".to_owned()));
        servers.meddle(1, LeadsTo::Taken("it is an alias".to_owned()));
        assert_eq!(code(driver.point(region("east"), 3).await), Some(Code::TrafficForeign));
        Ok(())
    })
}
