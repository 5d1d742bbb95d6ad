use std::sync::Arc;

use hickory_proto::op::{OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use lifeboat_environment::{ManualClock, SeededRandom};
use proptest::prelude::*;

use super::*;

fn peer() -> Peer {
    let clock = Arc::new(ManualClock::at("2026-11-27T00:00:00Z".parse().unwrap()));
    let environment = Environment::for_test(clock, Arc::new(SeededRandom::new(1)));
    let secret = Zeroizing::new(vec![7; 32]);
    let key = Key { name: "lifeboat".to_owned(), algorithm: "hmac-sha256".to_owned(), secret };
    Peer::new("192.0.2.53", Some(key.signer().unwrap()), &environment)
}

fn question() -> Message {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii("db.lifeboat.test.").unwrap();
    message.add_query(Query::query(name, RecordType::A));
    message
}

proptest! {
    /// Nothing that a server says makes us panic, and only its key makes us believe it.
    #[test]
    fn no_answer_makes_it_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let peer = peer();
        let sent = peer.seal(question(), 7).unwrap();
        prop_assert!(peer.open(&sent, &noise).is_err());
        // Our own question, sent back as an answer, damaged or not.
        let mut answer = sent.bytes.clone();
        answer[2] |= 0x80;
        for (place, value) in &changes {
            let place = place.index(answer.len());
            answer[place] = *value;
        }
        if let Ok(believed) = peer.open(&sent, &answer) {
            let code = believed.metadata.response_code;
            prop_assert!(code != ResponseCode::NoError && code != ResponseCode::NXDomain);
        }
        answer.truncate(cut.index(answer.len()));
        prop_assert!(peer.open(&sent, &answer).is_err() || answer.len() >= 12);
    }
}

#[test]
fn an_answer_that_claims_too_much_is_none() {
    let peer = peer();
    let sent = peer.seal(question(), 7).unwrap();
    let mut answer = sent.bytes.clone();
    answer[2] |= 0x80;
    answer[6..12].fill(0xff);
    assert_eq!(peer.open(&sent, &answer).unwrap_err().code(), Code::TrafficAnswer);
}

#[test]
fn a_host_alone_means_port_53() {
    for (given, meant) in [
        ("192.0.2.53", "192.0.2.53:53"),
        ("192.0.2.53:5353", "192.0.2.53:5353"),
        ("2001:db8::53", "[2001:db8::53]:53"),
        ("[2001:db8::53]", "[2001:db8::53]:53"),
        ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
        ("ns1.example.test", "ns1.example.test:53"),
        ("ns1.example.test:5353", "ns1.example.test:5353"),
    ] {
        assert_eq!(with_port(given), meant);
    }
}

#[test]
fn a_key_that_cannot_sign_is_refused_and_never_shown() {
    let secret = Zeroizing::new(b"secret".to_vec());
    let key = Key { name: "lifeboat".to_owned(), algorithm: "hmac-md5".to_owned(), secret };
    assert_eq!(key.signer().map(|_| ()).unwrap_err().code(), Code::SpecInvalid);
    assert!(!format!("{key:?}").contains("115"));
}
