//! DNS UPDATE against real BIND.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::op::{Message, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use lifeboat_drivers::traffic::rfc2136::{Key, Rfc2136, Settings};
use lifeboat_drivers::traffic::{Stamp, TrafficDriver as _};
use lifeboat_environment::{Clock as _, Environment, ManualClock, SystemClock, SystemRandom};
use lifeboat_telemetry::Code;
use lifeboat_testkit::bind::{self, Server, Zone};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::on_one_thread;
use crate::suite::{code, conforms, leads, region, the_higher_epoch_wins, until_seen};

const RECORD: &str = "db.lifeboat.test.";
const STAMP: &str = "_lifeboat.db.lifeboat.test.";
const EAST: &str = "127.0.1.10";
const WEST: &str = "127.0.2.10";

fn settings(zone: &Zone, servers: &[&Server]) -> Result<Settings> {
    let targets = [("east", EAST.parse()?), ("west", WEST.parse()?)];
    Ok(Settings {
        service: "ledger".parse()?,
        record: RECORD.to_owned(),
        zone: None,
        ttl: Duration::from_secs(2),
        targets: targets
            .into_iter()
            .map(|(name, address)| (region(name), BTreeSet::from([address])))
            .collect(),
        servers: servers.iter().map(|server| server.address().to_string()).collect(),
        resolver: None,
        key: Some(key(&zone.key)?),
    })
}

fn key(key: &bind::Key) -> Result<Key> {
    Ok(Key {
        name: key.name.clone(),
        algorithm: "hmac-sha256".to_owned(),
        secret: STANDARD.decode(&key.secret)?.into(),
    })
}

fn driver(settings: Settings) -> Result<Rfc2136> {
    Ok(Rfc2136::new(settings, &Environment::system())?)
}

/// Servers of their own and a driver for all of them.
fn servers<const COUNT: usize>() -> Result<([Server; COUNT], Zone)> {
    let zone = Zone::with(&[RECORD]);
    let servers: Vec<_> =
        (0..COUNT).map(|_| Server::authoritative(&zone)).collect::<Result<_>>()?;
    let servers = servers.try_into().map_err(|_| anyhow::anyhow!("another number of servers"))?;
    Ok((servers, zone))
}

fn stamp(epoch: u64, name: &str) -> String {
    format!("\"lifeboat=1 service=ledger epoch={epoch} region={name}\"")
}

#[test]
fn bind_conforms() -> Result<()> {
    let ([east, west], zone) = servers()?;
    let driver = driver(settings(&zone, &[&east, &west])?)?;
    on_one_thread(conforms(&driver, &|_| {}))?;
    for server in [&east, &west] {
        assert_eq!(server.ask(RECORD, "A")?, [format!("{RECORD} 2 IN A {EAST}")]);
        assert_eq!(server.data(STAMP, "TXT")?, [stamp(6, "east")]);
    }
    Ok(())
}

/// All of a region's addresses come and go together, of both families, whatever the letters' case.
#[test]
fn a_region_may_have_several_addresses() -> Result<()> {
    let ([server], zone) = servers()?;
    let mut settings = settings(&zone, &[&server])?;
    settings.record = "DB.Lifeboat.Test.".to_owned();
    let east = [EAST, "127.0.1.11", "2001:db8::1"].map(|address| address.parse().unwrap());
    settings.targets = [
        (region("east"), BTreeSet::from(east)),
        (region("west"), BTreeSet::from(["2001:db8::2".parse()?])),
    ]
    .into();
    let driver = driver(settings)?;
    on_one_thread(async {
        for (epoch, name, v4, v6) in [
            (1, "east", vec![EAST, "127.0.1.11"], "2001:db8::1"),
            (2, "west", vec![], "2001:db8::2"),
            (3, "east", vec![EAST, "127.0.1.11"], "2001:db8::1"),
        ] {
            assert_eq!(driver.point(region(name), epoch).await?, leads(epoch, name));
            assert_eq!(driver.observe().await?, leads(epoch, name));
            assert_eq!(server.data(RECORD, "A")?, v4);
            assert_eq!(server.data(RECORD, "AAAA")?, [v6]);
        }
        // One of them less is not the region any more.
        server.edit(&["update delete db.lifeboat.test. A 127.0.1.11"])?;
        assert_eq!(driver.observe().await?.region, None);
        assert_eq!(driver.point(region("east"), 3).await?, leads(3, "east"));
        Ok(())
    })
}

/// While two of them race, clients always get one address, and stamps only grow.
#[test]
fn of_two_updaters_the_higher_epoch_wins_and_the_name_is_never_empty() -> Result<()> {
    let ([east, west], zone) = servers()?;
    let one = driver(settings(&zone, &[&east, &west])?)?;
    let other = driver(settings(&zone, &[&west, &east])?)?;
    on_one_thread(one.point(region("east"), 1).map_ok())?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| watch(&east, &over));
        let raced = {
            let _over = Over(&over);
            on_one_thread(the_higher_epoch_wins(&one, &other, 40))
        };
        let seen = client.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
        ensure!(seen.len() > 10, "the client saw {} changes only", seen.len());
        raced
    })
}

/// Ends the client also where the race fails with a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks as fast as it can; the changes that it saw. An address is always there, and only one.
fn watch(server: &Server, over: &AtomicBool) -> Result<Vec<String>> {
    let socket = UdpSocket::bind(("127.0.0.1", 0))?;
    socket.connect(server.address())?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let ask = |name: &str, kind| -> Result<Vec<String>> {
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii(name)?, kind));
        socket.send(&question.to_vec()?)?;
        let mut answer = [0; 4096];
        let length = socket.recv(&mut answer)?;
        let answer = Message::from_vec(answer.get(..length).unwrap_or_default())?;
        Ok(answer.answers.iter().map(|record| record.data.to_string()).collect())
    };
    let (mut newest, mut seen) = (0, Vec::new());
    while !over.load(Ordering::Relaxed) {
        let addresses = ask(RECORD, RecordType::A)?;
        ensure!(addresses == [EAST] || addresses == [WEST], "clients get {addresses:?}");
        let texts = ask(STAMP, RecordType::TXT)?;
        let stamp = texts.first().and_then(|text| Stamp::read(text.trim_matches('"')));
        let epoch = stamp.map_or(0, |stamp| stamp.epoch);
        ensure!(epoch >= newest, "epoch {epoch} came after {newest}");
        newest = epoch;
        if seen.last() != addresses.first() {
            seen.extend(addresses);
        }
    }
    Ok(seen)
}

/// The worst order: the lower epoch's message was decided on, and arrives after the higher one.
#[test]
fn a_change_that_was_delayed_on_its_way_changes_nothing() -> Result<()> {
    let ([server], zone) = servers()?;
    let quick = driver(settings(&zone, &[&server])?)?;
    on_one_thread(async {
        quick.point(region("east"), 1).await?;
        let late = overtaken(&server, &zone, async {
            assert_eq!(quick.point(region("east"), 3).await?, leads(3, "east"));
            Ok(())
        });
        assert_eq!(late.await?, Some(Code::TrafficSuperseded));
        assert_eq!(server.data(RECORD, "A")?, [EAST]);
        assert_eq!(server.data(STAMP, "TXT")?, [stamp(3, "east")]);
        Ok(())
    })
}

/// Addresses beside an alias are ignored by servers without a word; a stamp would claim them.
#[test]
fn an_alias_that_was_made_meanwhile_stays_alone() -> Result<()> {
    let ([server], zone) = servers()?;
    on_one_thread(async {
        let late = overtaken(&server, &zone, async {
            server.edit(&["update add db.lifeboat.test. 2 CNAME www.lifeboat.test."])?;
            Ok(())
        });
        assert_eq!(late.await?, Some(Code::TrafficForeign));
        assert_eq!(server.data(RECORD, "CNAME")?, ["www.lifeboat.test."]);
        assert!(server.data(STAMP, "TXT")?.is_empty());
        Ok(())
    })
}

/// Leads the record to west for epoch 2, and lets `meanwhile` happen between reading and changing.
async fn overtaken(
    server: &Server,
    zone: &Zone,
    meanwhile: impl Future<Output = Result<()>>,
) -> Result<Option<Code>> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let through = vec![listener.local_addr()?.to_string()];
    let slow = driver(Settings { servers: through, ..settings(zone, &[server])? })?;
    let (reached, open) = (Notify::new(), Notify::new());
    let late = async {
        tokio::select! {
            late = slow.point(region("west"), 2) => Ok(late),
            broken = hold_updates(&listener, server.address(), &reached, &open) => broken,
        }
    };
    let meanwhile = async {
        reached.notified().await;
        meanwhile.await?;
        open.notify_one();
        anyhow::Ok(())
    };
    let (late, meanwhile) = futures::join!(late, meanwhile);
    meanwhile?;
    Ok(code(late?))
}

/// Stands before a server and lets no UPDATE through until it is told to; ends only by an error.
async fn hold_updates<T>(
    listener: &tokio::net::TcpListener,
    server: SocketAddr,
    reached: &Notify,
    open: &Notify,
) -> Result<T> {
    loop {
        let (client, _) = listener.accept().await?;
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) =
            tokio::net::TcpStream::connect(server).await?.into_split();
        let questions = async {
            while let Ok(length) = from_client.read_u16().await {
                let mut question = vec![0; usize::from(length)];
                from_client.read_exact(&mut question).await?;
                if question.get(2).is_some_and(|flags| flags >> 3 == u8::from(OpCode::Update)) {
                    reached.notify_one();
                    open.notified().await;
                }
                to_server.write_u16(length).await?;
                to_server.write_all(&question).await?;
            }
            to_server.shutdown().await
        };
        let answers = tokio::io::copy(&mut from_server, &mut to_client);
        futures::future::try_join(questions, answers).await?;
    }
}

/// Short for turning an outcome into a test's result.
trait MapOk {
    fn map_ok(self) -> impl Future<Output = Result<()>>;
}

impl<T, F: Future<Output = lifeboat_telemetry::Outcome<T>>> MapOk for F {
    async fn map_ok(self) -> Result<()> {
        self.await?;
        Ok(())
    }
}

#[test]
fn servers_that_do_not_answer_only_dissent_and_are_caught_up_with() -> Result<()> {
    let ([up, mut dead, frozen], zone) = servers()?;
    let driver = driver(settings(&zone, &[&up, &dead, &frozen])?)?;
    on_one_thread(async {
        driver.point(region("east"), 1).await?;
        dead.kill();
        frozen.freeze()?;
        let pointing = driver.point(region("west"), 2).await?;
        assert_eq!((pointing.epoch, pointing.region), (Some(2), Some(region("west"))));
        assert_eq!(pointing.dissent.len(), 2, "{:?}", pointing.dissent);
        assert_eq!(up.data(RECORD, "A")?, [WEST]);

        frozen.thaw()?;
        dead.revive()?;
        let seen = driver.observe().await?;
        assert_eq!((seen.epoch, seen.region.as_ref()), (Some(2), Some(&region("west"))));
        let behind = |server: &Server| format!("{} leads to east, for epoch 1", server.address());
        assert_eq!(seen.dissent, [behind(&dead), behind(&frozen)]);
        // A controller that slept through the move tells the ones that were away nothing.
        let late = driver.point(region("east"), 1).await;
        assert_eq!(code(late), Some(Code::TrafficSuperseded));
        assert_eq!(driver.point(region("west"), 2).await?, leads(2, "west"));
        assert_eq!(dead.data(RECORD, "A")?, [WEST]);

        dead.kill();
        frozen.freeze()?;
        up.freeze()?;
        assert_eq!(code(driver.observe().await), Some(Code::TrafficSilent));
        assert_eq!(code(driver.point(region("east"), 3).await), Some(Code::TrafficSilent));
        up.thaw()?;
        assert_eq!(up.data(RECORD, "A")?, [WEST]);
        Ok(())
    })
}

#[test]
fn what_keeps_a_server_from_changing_is_told_apart() -> Result<()> {
    let ([server], zone) = servers()?;
    let servers = [&server];
    let refused = |change: &dyn Fn(&mut Settings)| -> Result<(Option<Code>, String)> {
        let mut settings = settings(&zone, &servers)?;
        change(&mut settings);
        let driver = driver(settings)?;
        let outcome = on_one_thread(async { Ok(driver.point(region("east"), 1).await) })?;
        let failure = outcome.expect_err("it was changed");
        assert!(failure.hint_text().is_some());
        let secret = &zone.key.secret;
        assert!(!format!("{failure} {failure:?}").contains(secret.as_str()));
        Ok((Some(failure.code()), failure.full_message()))
    };
    let expect = |what: &str, wanted, change: &dyn Fn(&mut Settings)| -> Result<()> {
        let (code, message) = refused(change)?;
        assert_eq!(code, Some(wanted), "{what}: {message}");
        println!("{what}: {message}");
        Ok(())
    };
    let another = bind::Key::new("lifeboat");
    let nobody = bind::Key::new("nobody");
    expect("another secret", Code::TrafficKeyRefused, &|settings| {
        settings.key = key(&another).ok();
    })?;
    expect("another name", Code::TrafficKeyRefused, &|settings| settings.key = key(&nobody).ok())?;
    expect("no key", Code::TrafficDenied, &|settings| settings.key = None)?;
    expect("another record", Code::TrafficDenied, &|settings| {
        settings.record = "www.lifeboat.test.".to_owned();
    })?;
    expect("another zone", Code::TrafficZone, &|settings| {
        settings.record = "db.example.test.".to_owned();
    })?;
    expect("a zone that is none", Code::TrafficZone, &|settings| {
        settings.record = "db.below.lifeboat.test.".to_owned();
    })?;
    assert!(server.data(RECORD, "A")?.is_empty());
    assert!(server.data("www.lifeboat.test.", "A")?.is_empty());
    Ok(())
}

#[test]
fn a_clock_that_is_wrong_is_named() -> Result<()> {
    let ([server], zone) = servers()?;
    for (hours, word) in [(1, "behind"), (-1, "ahead of")] {
        let now = SystemClock.now() + jiff::SignedDuration::from_hours(hours);
        let clock = Arc::new(ManualClock::at(now));
        let environment = Environment::for_test(clock, Arc::new(SystemRandom));
        let driver = Rfc2136::new(settings(&zone, &[&server])?, &environment)?;
        let failure = on_one_thread(async { Ok(driver.observe().await) })?.unwrap_err();
        assert_eq!(failure.code(), Code::TrafficClock, "{failure}");
        assert!(failure.message().contains(word), "{failure}");
    }
    Ok(())
}

#[test]
fn what_others_did_to_our_record_is_seen_and_undone() -> Result<()> {
    let ([server], zone) = servers()?;
    let driver = driver(settings(&zone, &[&server])?)?;
    on_one_thread(async {
        driver.point(region("west"), 7).await?;
        let address = server.address();
        for (what, edit, region_seen, dissent) in [
            (
                "emptied",
                vec!["update delete db.lifeboat.test. A"],
                None,
                format!("{address} leads nowhere"),
            ),
            (
                "hijacked",
                vec![
                    "update delete db.lifeboat.test. A",
                    "update add db.lifeboat.test. 2 A 203.0.113.9",
                ],
                None,
                format!("{address} leads to 203.0.113.9, which is not one region's"),
            ),
            (
                "an address more",
                vec!["update add db.lifeboat.test. 2 AAAA 2001:db8::9"],
                None,
                format!("{address} leads to 127.0.2.10, 2001:db8::9, which is not one region's"),
            ),
            (
                "led back",
                vec![
                    "update delete db.lifeboat.test. A",
                    "update add db.lifeboat.test. 2 A 127.0.1.10",
                ],
                Some("east"),
                format!("{address} leads to east, but epoch 7 is of west"),
            ),
            (
                "remembered longer",
                vec![
                    "update delete db.lifeboat.test. A",
                    "update add db.lifeboat.test. 600 A 127.0.2.10",
                ],
                Some("west"),
                format!("{address} may be remembered for 600 s, and the spec says 2 s"),
            ),
        ] {
            server.edit(&edit)?;
            let seen = driver.observe().await?;
            assert_eq!(seen.epoch, Some(7), "{what}");
            assert_eq!(seen.region, region_seen.map(region), "{what}");
            assert_eq!(seen.dissent, [dissent], "{what}");
            assert_eq!(driver.point(region("west"), 7).await?, leads(7, "west"), "{what}");
            assert_eq!(server.ask(RECORD, "A")?, [format!("{RECORD} 2 IN A {WEST}")], "{what}");
        }
        // All of it is gone: nothing says any more which epoch it was.
        server.edit(&[
            "update delete db.lifeboat.test.",
            "update delete _lifeboat.db.lifeboat.test.",
        ])?;
        let seen = driver.observe().await?;
        assert_eq!((seen.epoch, seen.region), (None, None));
        assert_eq!(driver.point(region("west"), 7).await?, leads(7, "west"));
        Ok(())
    })
}

#[test]
fn what_is_not_ours_is_refused_and_what_fits_is_adopted() -> Result<()> {
    let ([server], zone) = servers()?;
    let driver = driver(settings(&zone, &[&server])?)?;
    let clear = ["update delete db.lifeboat.test.", "update delete _lifeboat.db.lifeboat.test."];
    on_one_thread(async {
        for (kind, edit) in [
            ("A", "update add db.lifeboat.test. 2 A 203.0.113.9"),
            ("CNAME", "update add db.lifeboat.test. 2 CNAME www.lifeboat.test."),
            ("AAAA", "update add db.lifeboat.test. 2 AAAA 2001:db8::9"),
        ] {
            server.edit(&[edit])?;
            let before = server.ask(RECORD, kind)?;
            let refused = driver.point(region("east"), 1).await;
            assert_eq!(code(refused), Some(Code::TrafficForeign), "{kind}");
            assert_eq!(server.ask(RECORD, kind)?, before, "{kind}");
            assert!(server.data(STAMP, "TXT")?.is_empty(), "{kind}");
            server.edit(&clear)?;
        }
        for text in ["v=spf1 -all", "lifeboat=1 service=shop epoch=1 region=east", "lifeboat=9"] {
            let add = format!("update add {STAMP} 2 TXT \"{text}\"");
            server.edit(&["update add db.lifeboat.test. 2 A 127.0.1.10", add.as_str()])?;
            let refused = driver.point(region("west"), 2).await;
            assert_eq!(code(refused), Some(Code::TrafficForeign), "{text}");
            assert_eq!(driver.observe().await?.epoch, None, "{text}");
            assert_eq!(server.data(RECORD, "A")?, [EAST], "{text}");
            server.edit(&clear)?;
        }
        // What leads to one of the regions is taken over, from there or to another one.
        server.edit(&["update add db.lifeboat.test. 600 A 127.0.1.10"])?;
        let seen = driver.observe().await?;
        assert_eq!((seen.epoch, seen.region), (None, Some(region("east"))));
        assert_eq!(driver.point(region("west"), 1).await?, leads(1, "west"));
        Ok(())
    })
}

#[test]
fn clients_of_a_resolver_follow_when_it_forgets() -> Result<()> {
    let ([east, west], zone) = servers()?;
    let resolver = Server::caching(&[&east, &west])?;
    let asked = resolver.address().to_string();
    let driver =
        driver(Settings { resolver: Some(asked.clone()), ..settings(&zone, &[&east, &west])? })?;
    on_one_thread(async {
        driver.point(region("east"), 1).await?;
        assert_eq!(driver.observe().await?, leads(1, "east"));
        driver.point(region("west"), 2).await?;
        let seen = driver.observe().await?;
        assert_eq!((seen.epoch, seen.region), (Some(2), Some(region("west"))));
        let start = format!("resolver {asked} leads to east, for at most ");
        assert!(
            seen.lagging.iter().all(|lagging| lagging.starts_with(&start)),
            "{:?}",
            seen.lagging
        );
        assert_eq!(seen.lagging.len(), 1);
        let began = SystemClock.elapsed();
        until_seen(&driver, &leads(2, "west")).await?;
        println!("seen through the resolver after {:?}", SystemClock.elapsed() - began);
        resolver.freeze()?;
        let seen = driver.observe().await?;
        assert_eq!(seen.lagging.len(), 1, "{:?}", seen.lagging);
        Ok(())
    })
}

/// Somebody who stands between us and the server knows no key.
#[test]
fn an_impostor_is_not_believed() -> Result<()> {
    let ([server], zone) = servers()?;
    for (what, alter) in [
        ("says nothing", (|_| None) as fn(Vec<u8>) -> Option<Vec<u8>>),
        ("talks nonsense", |_| Some(b"HTTP/1.1 200 OK\r\n\r\n".to_vec())),
        ("echoes", Some),
        ("answers without a signature", |mut question| {
            question.get_mut(2..4)?.copy_from_slice(&[0x84, 0x00]);
            // No additional record: the signature is not counted, and not there.
            question.get_mut(10..12)?.copy_from_slice(&[0, 0]);
            question.truncate(12);
            question.get_mut(4..6)?.copy_from_slice(&[0, 0]);
            Some(question)
        }),
        ("signs with our own signature", |mut question| {
            question.get_mut(2..4)?.copy_from_slice(&[0x84, 0x00]);
            Some(question)
        }),
    ] {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?.to_string();
        // Ends with its listener's last connection: the driver connects once a call.
        let impostor = std::thread::spawn(move || impersonate(&listener, alter));
        let driver = driver(Settings { servers: vec![address], ..settings(&zone, &[&server])? })?;
        let failure = on_one_thread(async { Ok(driver.observe().await) })?.unwrap_err();
        println!("{what}: {failure}");
        let known = matches!(failure.code(), Code::TrafficAnswer | Code::TrafficSilent);
        assert!(known, "{what}: {failure}");
        impostor.join().map_err(|_| anyhow::anyhow!("the impostor panicked"))??;
    }
    Ok(())
}

fn impersonate(listener: &TcpListener, alter: fn(Vec<u8>) -> Option<Vec<u8>>) -> Result<()> {
    let (mut stream, _) = listener.accept()?;
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut question)?;
        if let Some(answer) = alter(question) {
            let length = u16::try_from(answer.len())?.to_be_bytes();
            let _ = stream.write_all(&[length.as_slice(), answer.as_slice()].concat());
        }
    }
    Ok(())
}
