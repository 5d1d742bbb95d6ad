//! Fragments and the epochs of receivers.

use lifeboat_environment::{Environment, SeededRandom};
use lifeboat_model::{Lsn, Timeline};
use lifeboat_objects::{Location, Options, Store};
use lifeboat_telemetry::Code;
use proptest::prelude::*;

use super::sample::{self, Sample};
use crate::fragment::{
    FRAGMENT_BYTES_MAX, FragmentName, decode_fragment, encode_fragment, list_fragments,
};
use crate::keys::Encryption;
use crate::layout;
use crate::receiver::{Durable, ReceiverBody, claim_epoch, receivers};
use crate::repository::Repository;
use crate::wal_file::{WalContent, WalFacts};

fn name(timeline: u32, start: u64, end: u64, epoch: u32) -> FragmentName {
    FragmentName { timeline: Timeline(timeline), start: Lsn(start), end: Lsn(end), epoch }
}

proptest! {
    #[test]
    fn names_return(
        timeline in 1u32.., start: u64, length in 1u64..=FRAGMENT_BYTES_MAX, epoch in 1u32..
    ) {
        let Some(end) = start.checked_add(length) else { return Ok(()) };
        let name = name(timeline, start, end, epoch);
        prop_assert_eq!(name.to_string().parse::<FragmentName>().unwrap(), name);
        prop_assert_eq!(name.plain_bytes(), length);
    }

    #[test]
    fn a_listing_sorts_as_the_names_do(
        one in (1u32..3, 0u64..1 << 40, 1u32..3), two in (1u32..3, 0u64..1 << 40, 1u32..3)
    ) {
        let [one, two] = [one, two].map(|(timeline, start, epoch)| {
            name(timeline, start, start + 8, epoch)
        });
        prop_assert_eq!(one.cmp(&two), one.to_string().cmp(&two.to_string()));
    }
}

#[test]
fn only_the_one_way_to_write_a_name_is_a_name() {
    let good = "0000000A/000000000300ab00-000000000300ac00-0000000b";
    assert_eq!(good.parse::<FragmentName>().unwrap(), name(10, 0x0300_ab00, 0x0300_ac00, 11));
    let wrong = [
        "",
        "0000000A",
        "0000000a/000000000300ab00-000000000300ac00-0000000b",
        "0000000A/000000000300AB00-000000000300ac00-0000000b",
        "0000000A/000000000300ab00-000000000300ac00-0000000B",
        "A/000000000300ab00-000000000300ac00-0000000b",
        "0000000A/300ab00-300ac00-b",
        "0000000A/+00000000300ab00-000000000300ac00-0000000b",
        "0000000A/000000000300ab00-000000000300ac00",
        "0000000A/000000000300ab00-000000000300ac00-0000000b-00000001",
        "0000000A/000000000300ab00-000000000300ac00-0000000b/x",
        // No timeline, no epoch, no bytes, less than no bytes, more than 8 MiB.
        "00000000/000000000300ab00-000000000300ac00-0000000b",
        "0000000A/000000000300ab00-000000000300ac00-00000000",
        "0000000A/000000000300ab00-000000000300ab00-0000000b",
        "0000000A/000000000300ac00-000000000300ab00-0000000b",
        "0000000A/0000000003000000-0000000003800001-0000000b",
    ];
    for text in wrong {
        assert!(text.parse::<FragmentName>().is_err(), "{text}");
    }
    let most = "0000000A/0000000003000000-0000000003800000-0000000b";
    assert_eq!(most.parse::<FragmentName>().unwrap().plain_bytes(), FRAGMENT_BYTES_MAX);
}

#[test]
fn a_fragment_returns_and_takes_no_other_length_name_or_place() {
    for encryption in [Encryption::Aes256Gcm, Encryption::None] {
        let place = format!("memory:///fragment-{encryption:?}");
        let sample = sample::run(sample::build(&place, encryption));
        let (keys, environment) = (&sample.keys, sample::environment());
        let wal_key = sample.secrets.read_key().for_wal(keys.stream());
        let plain = sample::wal(100_000);
        let facts = WalFacts { last_commit_us: Some(7), ..WalFacts::default() };
        let content =
            WalContent { plain: &plain, digest: keys.content_digest(&plain), facts: &facts };
        let own = name(1, 0x50_0000, 0x50_0000 + 100_000, 1);
        let (key, bytes) = encode_fragment(keys, &environment, &own, 1, &content).unwrap();
        assert_eq!(key, layout::fragment(keys.stream(), &own).unwrap());
        let (head, read) = decode_fragment(keys, &wal_key, &own, &bytes).unwrap();
        assert!(read == plain);
        assert_eq!(head.facts, facts);

        let others = [
            FragmentName { timeline: Timeline(2), ..own },
            FragmentName { end: Lsn(own.end.0 + 1), ..own },
            FragmentName { epoch: 2, ..own },
        ];
        for other in others {
            let failure = decode_fragment(keys, &wal_key, &other, &bytes).unwrap_err();
            assert_eq!(failure.code(), Code::ObjectDamaged, "{other}");
        }
        let longer = FragmentName { end: Lsn(own.end.0 + 1), ..own };
        assert!(encode_fragment(keys, &environment, &longer, 1, &content).is_err());
        let long = vec![0; FRAGMENT_BYTES_MAX as usize + 1];
        let content = WalContent { plain: &long, digest: [0; 32], facts: &facts };
        let name = name(1, 0x80_0000, 0x80_0000 + long.len() as u64, 1);
        assert!(encode_fragment(keys, &environment, &name, 1, &content).is_err());
    }
}

#[test]
fn a_listing_gives_what_begins_in_a_span() {
    let sample = sample::run(sample::build("memory:///fragment-list", Encryption::Aes256Gcm));
    let (keys, environment) = (&sample.keys, sample::environment());
    let names = [
        name(3, 0, 0x10, 1),
        name(3, 0xfff0, 0x1_0000, 1),
        name(3, 0x1_0000, 0x1_0010, 1),
        name(3, 0x1_0000, 0x1_0010, 2),
        name(3, 0x1_0010, 0x1_0020, 1),
        name(3, 0xffff_ffff_0000_0000, 0xffff_ffff_0000_0010, 1),
        name(4, 0x1_0000, 0x1_0010, 1),
    ];
    for name in names {
        let (plain, facts) = ([7; 16], WalFacts::default());
        let digest = keys.content_digest(&plain);
        let content = WalContent { plain: &plain, digest, facts: &facts };
        let (key, bytes) = encode_fragment(keys, &environment, &name, 1, &content).unwrap();
        sample::run(sample.store.create(&key, bytes)).unwrap();
    }
    let spans = [
        (0, u64::MAX),
        (0, 0),
        (0, 1),
        (1, 0),
        (0xfff0, 0x1_0001),
        (0x1_0000, 0x1_0010),
        (0x1_0000, 0x1_0011),
        (0x1_0001, u64::MAX),
        (0xffff_ffff_0000_0001, u64::MAX),
    ];
    for (timeline, (start, end)) in
        [3, 4, 5].into_iter().flat_map(|one| spans.map(|two| (one, two)))
    {
        let span = Lsn(start)..Lsn(end);
        let stream = keys.stream();
        let listed = list_fragments(&sample.store, stream, Timeline(timeline), span.clone());
        let listed: Vec<_> = sample::run(listed).unwrap().into_iter().map(|one| one.0).collect();
        let expected = names
            .iter()
            .filter(|name| name.timeline == Timeline(timeline) && span.contains(&name.start));
        assert_eq!(listed, expected.copied().collect::<Vec<_>>(), "{timeline} {span:?}");
    }
}

fn body(host: &str) -> ReceiverBody {
    ReceiverBody {
        writer: "east-1".to_owned(),
        region: "east".to_owned(),
        host: host.to_owned(),
        control_epoch: 0,
        started_at: sample::environment().clock().now(),
        durable: Durable::Spool,
    }
}

fn opened(sample: &Sample) -> Repository {
    sample::run(Repository::open(sample.store.clone())).unwrap()
}

#[test]
fn every_receiver_takes_an_epoch_of_its_own() {
    let sample = sample::run(sample::build("memory:///epochs", Encryption::Aes256Gcm));
    let (repository, signer) = (opened(&sample), sample.writer.signing().unwrap());
    let stream = sample.keys.stream();
    let before = sample::run(receivers(&repository, stream)).unwrap().sound.len() as u32;
    // Two of them are the same in every byte: they are two runs nevertheless.
    let bodies = ["a", "a", "b", "c", "d", "e"].map(body);
    let taken = sample::run(futures::future::join_all(
        bodies.iter().map(|body| claim_epoch(&repository, stream, &signer, body)),
    ));
    let mut taken: Vec<u32> = taken.into_iter().map(Result::unwrap).collect();
    taken.sort_unstable();
    assert_eq!(taken, (before + 1..=before + 6).collect::<Vec<u32>>());
    let known = sample::run(receivers(&repository, stream)).unwrap();
    assert_eq!(known.damaged.len(), 0);
    let epochs: Vec<u32> = known.sound.iter().map(|receiver| receiver.epoch).collect();
    assert_eq!(epochs, (1..=before + 6).collect::<Vec<u32>>());
    assert!(known.sound.iter().any(|receiver| receiver.body == body("e")));
}

#[test]
fn a_receiver_that_nobody_certified_is_named_and_its_epoch_stays_taken() {
    let sample = sample::run(sample::build("memory:///epochs-forged", Encryption::Aes256Gcm));
    let (repository, stream) = (opened(&sample), sample.keys.stream());
    let clock = std::sync::Arc::new(lifeboat_environment::ManualClock::at(
        "2026-11-20T10:00:00Z".parse().unwrap(),
    ));
    let other = Environment::for_test(clock, std::sync::Arc::new(SeededRandom::new(7)));
    let forger = crate::crypt::SigningKey::from_seed(&crate::crypt::random_key(&other)).unwrap();
    let forged = sample::run(claim_epoch(&repository, stream, &forger, &body("x"))).unwrap();
    let own = sample.writer.signing().unwrap();
    let next = sample::run(claim_epoch(&repository, stream, &own, &body("y"))).unwrap();
    assert_eq!(next, forged + 1);
    let known = sample::run(receivers(&repository, stream)).unwrap();
    let [(epoch, failure)] = known.damaged.as_slice() else { panic!("one is forged") };
    assert_eq!((*epoch, failure.code()), (forged, Code::SignatureInvalid));
    assert!(known.sound.iter().any(|receiver| receiver.epoch == next));
}

#[test]
fn a_store_that_refuses_gives_no_epoch() {
    let sample = sample::run(sample::build("memory:///epochs-refused", Encryption::Aes256Gcm));
    let place = tempfile::tempdir().unwrap();
    let location = Location::new(&format!("file://{}", place.path().display())).unwrap();
    let store = Store::open(&location, &sample::environment(), Options::default()).unwrap();
    let format = opened(&sample).format().clone();
    let root = sample.secrets.root().unwrap();
    let repository = sample::run(Repository::create(store, format, &root)).unwrap();
    drop(place);
    let signer = sample.writer.signing().unwrap();
    let (stream, body) = (sample.keys.stream(), body("x"));
    assert!(sample::run(claim_epoch(&repository, stream, &signer, &body)).is_err());
}
