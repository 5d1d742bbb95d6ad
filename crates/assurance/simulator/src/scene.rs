//! What a seed decides before anything runs: the service, its times, how quick machines are.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_failover::{Database, Policy, Service};
use lifeboat_model::{DatabaseName, RegionName};
use lifeboat_quorum::Timing;

use crate::chance::Chance;
use crate::network::Link;
use crate::plant::Tuning;

/// The regions that hold data.
pub const REGIONS: [&str; 2] = ["east", "west"];
/// The failure domains: the regions and the witness.
pub const DOMAINS: [&str; 3] = ["east", "west", "north"];

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Everything that is fixed during a run.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The service.
    pub service: Service,
    /// How quick machines are.
    pub tuning: Tuning,
    /// The network on a good day.
    pub link: Link,
    /// How many millionths the clock of each domain gains.
    pub drift_ppm: [i64; 3],
    /// Whether persons give commands.
    pub persons: bool,
    /// How often clients write.
    pub pause: Duration,
    /// How many times agents read the store between two renewals.
    pub polls: u32,
}

/// What clocks may differ by at the most, so that the margin covers it: `margin` of `lease` between
/// two hosts, half of it for each.
fn drift(timing: &Timing) -> u64 {
    let share = timing.margin.as_micros() * 1_000_000 / timing.lease.as_micros().max(1);
    u64::try_from(share / 2).unwrap_or_default().saturating_sub(1000)
}

/// R8's values for a lease of 6 s and one of 10 s.
fn timing(chance: &mut Chance) -> Timing {
    let short = Timing {
        lease: ms(6000),
        renew: ms(500),
        probe_timeout: ms(500),
        store_timeout: ms(750),
        fence_deadline: ms(1500),
        margin: ms(500),
    };
    let long = Timing {
        lease: ms(10_000),
        renew: ms(1000),
        probe_timeout: ms(1000),
        store_timeout: ms(1000),
        fence_deadline: ms(2000),
        margin: ms(1000),
    };
    *chance.pick(&[short, long])
}

impl Scene {
    /// The scene of a seed.
    pub fn of(chance: &mut Chance) -> Self {
        let timing = timing(chance);
        let most = drift(&timing);
        let mut drift_ppm = [0; 3];
        if chance.permille(500) {
            for one in &mut drift_ppm {
                let size = i64::try_from(chance.below(most)).unwrap_or_default();
                *one = if chance.permille(500) { size } else { -size };
            }
        }
        let slow = chance.permille(200);
        let tuning = Tuning {
            lease: timing.lease,
            recovery: if slow { (ms(1000), ms(9000)) } else { (ms(100), ms(1500)) },
            promotion: if slow { (ms(500), ms(4000)) } else { (ms(80), ms(500)) },
            ship: ms(400),
            replay: if chance.permille(200) { (ms(200), ms(2500)) } else { (ms(10), ms(50)) },
            kill: if chance.permille(300) { timing.fence_deadline * 9 / 10 } else { ms(60) },
            unhealthy: Duration::ZERO,
        };
        let far = chance.permille(200);
        let link = Link {
            least: if far { ms(30) } else { ms(1) },
            most: if far { ms(90) } else { ms(12) },
            lost_permille: 0,
            cut: false,
        };
        let mut scene = Self {
            service: service(chance, timing),
            tuning,
            link,
            drift_ppm,
            persons: chance.permille(400),
            pause: ms(chance.range(60, 300)),
            polls: *chance.pick(&[3, 4, 5, 10]),
        };
        scene.tuning.unhealthy = scene.service.policy.unhealthy_for;
        scene.tuning.ship = ms(*chance.pick(&[200, 400, 400, 2500]));
        scene
    }
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a name of this crate is a name")
}

fn service(chance: &mut Chance, timing: Timing) -> Service {
    let regions: Vec<RegionName> = REGIONS.map(name).to_vec();
    let remote = u8::from(chance.permille(650));
    let streamed = remote > 0 || chance.permille(500);
    let database = Database {
        nodes: regions
            .iter()
            .map(|region| (name(&format!("{region}-1")), region.clone()))
            .collect(),
        receivers: if streamed { regions.clone() } else { Vec::new() },
        remote,
        degrade_after: None,
    };
    let names: &[&str] = if chance.permille(150) { &["audit", "ledger"] } else { &["ledger"] };
    let databases: BTreeMap<DatabaseName, Database> =
        names.iter().map(|one| (name(one), database.clone())).collect();
    Service {
        name: name("payments"),
        home: name("east"),
        standby: Some(name("west")),
        databases,
        timing,
        policy: Policy {
            automatic: chance.permille(850),
            observers_agree: 2,
            unhealthy_for: ms(chance.range(1000, 5000)),
            dwell: ms(chance.range(0, 30_000)),
        },
        rpo: if remote > 0 { Duration::ZERO } else { Duration::from_secs(60) },
        rto: Duration::from_secs(60),
        digest: "simulated".to_owned(),
    }
}
