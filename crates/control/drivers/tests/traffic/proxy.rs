//! The admin socket of real HAProxy.

use std::io::Read as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use lifeboat_drivers::Pointing;
use lifeboat_drivers::traffic::TrafficDriver as _;
use lifeboat_drivers::traffic::haproxy::{Haproxy, Settings};
use lifeboat_environment::{Clock as _, SystemClock};
use lifeboat_telemetry::Code;
use lifeboat_testkit::haproxy::Proxy;
use lifeboat_testkit::process::wait_until;

use crate::member::Member;
use crate::on_one_thread;
use crate::suite::{code, conforms, leads, region, until_seen};

const LONG: Duration = Duration::from_secs(30);

/// Two regions behind HAProxies that share nothing.
struct Ground {
    proxies: Vec<Proxy>,
    east: Member,
    west: Member,
}

impl Ground {
    fn new(proxies: usize) -> Result<Self> {
        let (east, west) = (Member::start("east")?, Member::start("west")?);
        let members = [east.described(), west.described()];
        let proxies = (0..proxies).map(|_| Proxy::start("ledger", &members));
        let proxies = proxies.collect::<Result<Vec<_>>>()?;
        Ok(Self { proxies, east, west })
    }

    fn serves(&self, region: &str) {
        self.east.serve(region == "east");
        self.west.serve(region == "west");
    }

    /// Half of them by socket, half by address.
    fn sockets(&self) -> Vec<String> {
        let socket = |(place, proxy): (usize, &Proxy)| match place % 2 {
            0 => proxy.socket().display().to_string(),
            _ => proxy.admin().to_string(),
        };
        self.proxies.iter().enumerate().map(socket).collect()
    }

    fn settings(&self) -> Result<Settings> {
        let targets = ["east", "west"].map(|name| (region(name), [format!("pg-{name}")].into()));
        let (service, backend) = ("ledger".parse()?, "ledger".to_owned());
        Ok(Settings { service, backend, targets: targets.into(), sockets: self.sockets() })
    }

    fn driver(&self) -> Result<Haproxy> {
        Ok(Haproxy::new(self.settings()?)?)
    }

    /// Who answers a new client; nothing if nobody does.
    fn client(&self) -> Result<String> {
        let mut name = [0; 4];
        let mut stream = self.proxies[0].connect()?;
        Ok(match stream.read_exact(&mut name) {
            Ok(()) => String::from_utf8_lossy(&name).into_owned(),
            Err(error) => {
                let ended = error.kind() != std::io::ErrorKind::WouldBlock;
                ensure!(ended, "the client was neither served nor refused");
                String::new()
            }
        })
    }

    /// Waits for what HAProxy finds out by itself.
    fn until_clients_get(&self, name: &str) -> Result<()> {
        ensure!(wait_until(LONG, || Ok(self.client()? == name))?, "clients never get `{name}`");
        Ok(())
    }
}

#[test]
fn haproxy_conforms() -> Result<()> {
    let ground = Ground::new(2)?;
    on_one_thread(conforms(&ground.driver()?, &|region| ground.serves(region)))
}

/// R21: the demoted side refuses, and does not leave clients waiting.
#[test]
fn sessions_of_the_demoted_side_are_cut_and_new_ones_refused_until_the_other_serves() -> Result<()>
{
    let ground = Ground::new(1)?;
    let driver = ground.driver()?;
    ground.serves("east");
    on_one_thread(async {
        driver.point(region("east"), 1).await?;
        assert_eq!(ground.client()?, "east");
        let mut session = ground.proxies[0].connect()?;
        session.read_exact(&mut [0; 4])?;

        // The lease is over, and nobody has told HAProxy anything.
        ground.serves("nobody");
        let began = SystemClock.elapsed();
        assert_eq!(session.read(&mut [0; 1])?, 0, "the session goes on");
        println!("by checks alone, a session is cut after {:?}", SystemClock.elapsed() - began);
        let began = SystemClock.elapsed();
        assert_eq!(ground.client()?, "");
        println!("a new client is refused after {:?}", SystemClock.elapsed() - began);

        // The other side serves, and HAProxy is told.
        ground.serves("west");
        driver.point(region("west"), 2).await?;
        let began = SystemClock.elapsed();
        assert_eq!(ground.client()?, "west");
        println!("a new client is served after {:?}", SystemClock.elapsed() - began);

        // And back, told at once, with a session open.
        let mut session = ground.proxies[0].connect()?;
        session.read_exact(&mut [0; 4])?;
        ground.serves("east");
        let began = SystemClock.elapsed();
        assert_eq!(driver.point(region("east"), 3).await?, leads(3, "east"));
        assert_eq!(session.read(&mut [0; 1])?, 0, "the session goes on");
        assert_eq!(ground.client()?, "east");
        println!("told: cut and served elsewhere after {:?}", SystemClock.elapsed() - began);
        Ok(())
    })
}

/// Also where HAProxy was not set up to cut sessions by itself.
#[test]
fn sessions_of_other_regions_are_cut_by_order() -> Result<()> {
    let mut ground = Ground::new(0)?;
    let members = [ground.east.described(), ground.west.described()];
    let lenient = |text: String| text.replace(" on-marked-down shutdown-sessions", "");
    ground.proxies.push(Proxy::start_as("ledger", &members, lenient)?);
    let driver = ground.driver()?;
    ground.serves("east");
    on_one_thread(async {
        driver.point(region("east"), 1).await?;
        let mut session = ground.proxies[0].connect()?;
        session.read_exact(&mut [0; 4])?;
        ground.serves("west");
        driver.point(region("west"), 2).await?;
        assert_eq!(session.read(&mut [0; 1])?, 0, "the session goes on");
        Ok(())
    })
}

/// A controller that is wrong moves nobody for longer than one check.
#[test]
fn health_checks_have_the_last_word() -> Result<()> {
    let ground = Ground::new(1)?;
    let driver = ground.driver()?;
    ground.serves("east");
    on_one_thread(async {
        driver.point(region("east"), 1).await?;
        // East still holds the lease: whoever said this was wrong.
        driver.point(region("west"), 2).await?;
        let socket = &ground.sockets()[0];
        let dissent = vec![format!("{socket} leads to east, but epoch 2 is of west")];
        // Until the checks have said so, no server is up.
        until_seen(&driver, &Pointing { dissent, ..leads(2, "east") }).await?;
        ground.until_clients_get("east")?;
        // Saying it again changes nothing, however often: the checks know better.
        let seen = driver.point(region("west"), 2).await?;
        assert_eq!(seen.region, Some(region("east")));
        assert_eq!(ground.client()?, "east");
        // Without anybody's word they follow the lease.
        ground.serves("west");
        until_seen(&driver, &leads(2, "west")).await?;
        assert_eq!(ground.client()?, "west");
        Ok(())
    })
}

#[test]
fn what_a_reload_forgets_is_said_again() -> Result<()> {
    let mut ground = Ground::new(2)?;
    let driver = ground.driver()?;
    ground.serves("west");
    on_one_thread(async {
        driver.point(region("west"), 4).await?;
        ground.proxies[0].kill();
        let seen = driver.point(region("west"), 4).await?;
        assert_eq!((seen.epoch, seen.region), (Some(4), Some(region("west"))));
        assert_eq!(seen.dissent.len(), 1, "{:?}", seen.dissent);

        ground.proxies[0].revive()?;
        ground.until_clients_get("west")?;
        let first = &ground.sockets()[0];
        let seen = driver.observe().await?;
        assert_eq!(seen.dissent, [format!("{first} leads to west, without a stamp of ours")]);
        assert_eq!(driver.point(region("west"), 4).await?, leads(4, "west"));

        for proxy in &ground.proxies {
            proxy.freeze()?;
        }
        assert_eq!(code(driver.observe().await), Some(Code::TrafficSilent));
        assert_eq!(code(driver.point(region("east"), 5).await), Some(Code::TrafficSilent));
        Ok(())
    })
}

/// Maintenance is a person's: it is told, and only a move ends it.
#[test]
fn maintenance_is_ended_by_a_move_only() -> Result<()> {
    let ground = Ground::new(1)?;
    let driver = ground.driver()?;
    let socket = &ground.sockets()[0];
    ground.serves("west");
    on_one_thread(async {
        driver.point(region("west"), 1).await?;
        ground.proxies[0].say("set server ledger/pg-west state maint")?;
        let seen = driver.point(region("west"), 1).await?;
        assert_eq!(seen.region, None);
        let held = "leads nowhere, holds server pg-west in maintenance";
        assert_eq!(seen.dissent, [format!("{socket} {held}")]);
        assert_eq!(ground.client()?, "");
        let seen = driver.point(region("west"), 2).await?;
        assert_eq!(seen.region, Some(region("west")));
        let ended = "held server pg-west in maintenance until now";
        assert_eq!(seen.dissent, [format!("{socket} {ended}")]);
        assert_eq!(driver.observe().await?, leads(2, "west"));
        assert_eq!(ground.client()?, "west");
        Ok(())
    })
}

/// Two at once: HAProxy cannot compare, so the lower one may come last. The next look corrects it.
#[test]
fn after_a_race_the_higher_epoch_is_there_at_the_next_look() -> Result<()> {
    let ground = Ground::new(1)?;
    let (one, other) = (ground.driver()?, ground.driver()?);
    ground.serves("west");
    on_one_thread(async {
        for round in 0..20 {
            let (low, high) = (2 * round + 1, 2 * round + 2);
            let (lower, higher) =
                futures::join!(one.point(region("east"), low), other.point(region("west"), high));
            for outcome in [lower, higher] {
                let code = code(outcome);
                ensure!(matches!(code, None | Some(Code::TrafficSuperseded)), "{code:?}");
            }
            assert_eq!(other.point(region("west"), high).await?.epoch, Some(high));
            ground.until_clients_get("west")?;
        }
        Ok(())
    })
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    let ground = Ground::new(1)?;
    ground.serves("east");
    let expect = |what: &str, wanted, change: &dyn Fn(&mut Settings)| -> Result<()> {
        let mut settings = ground.settings()?;
        change(&mut settings);
        let driver = Haproxy::new(settings)?;
        let failure = on_one_thread(async { Ok(driver.point(region("east"), 1).await) })?;
        let failure = failure.expect_err("it was set");
        assert_eq!(failure.code(), wanted, "{what}: {failure}");
        println!("{what}: {failure}");
        Ok(())
    };
    expect("another backend", Code::TrafficProxy, &|settings| {
        settings.backend = "shop".to_owned();
    })?;
    expect("another server", Code::TrafficProxy, &|settings| {
        settings.targets.insert(region("east"), ["pg-north".to_owned()].into());
        settings.targets.remove(&region("west"));
        settings
            .targets
            .insert(region("west"), ["pg-west".to_owned(), "pg-east".to_owned()].into());
    })?;
    let unchecked = |text: String| text.replace("default-server check", "default-server");
    let members = [ground.east.described(), ground.west.described()];
    let proxy = Proxy::start_as("ledger", &members, unchecked)?;
    expect("no check", Code::TrafficProxy, &|settings| {
        settings.sockets = vec![proxy.socket().display().to_string()];
    })?;
    expect("no such socket", Code::TrafficSilent, &|settings| {
        settings.sockets = vec!["/nowhere/admin.sock".to_owned()];
    })?;
    // A variable that somebody else set.
    ground.proxies[0].say("experimental-mode on;set var proc.lifeboat.ledger str(mine)")?;
    expect("somebody else's", Code::TrafficForeign, &|_| {})?;
    Ok(())
}
