//! Change maps and time indexes as objects.

use lifeboat_telemetry::Code;

use super::sample;
use crate::changes::{Changes, ChangesName, decode_changes, encode_changes, list_changes};
use crate::keys::Encryption;
use crate::layout;

const NAME: &str = "00000002/000000020000000100000007-0000000b";

fn name() -> ChangesName {
    NAME.parse().unwrap()
}

#[test]
fn only_the_one_way_to_write_a_name_is_a_name() {
    assert_eq!(name().to_string(), NAME);
    assert_eq!((name().segment.timeline().0, name().epoch), (2, 11));
    let wrong = [
        "",
        "00000002/000000020000000100000007",
        "00000002/000000020000000100000007-b",
        "00000002/000000020000000100000007-0000000B",
        "00000002/000000020000000100000007-00000000",
        "00000002/00000002000000010000000-0000000b",
        "00000001/000000020000000100000007-0000000b",
        "00000002/000000020000000100000007-0000000b/x",
    ];
    for text in wrong {
        assert!(text.parse::<ChangesName>().is_err(), "{text}");
    }
}

#[test]
fn they_return_and_every_flipped_byte_is_found() {
    for encryption in [Encryption::Aes256Gcm, Encryption::None] {
        let place = format!("memory:///changes-{encryption:?}");
        let sample = sample::run(sample::build(&place, encryption));
        let (keys, environment) = (&sample.keys, sample::environment());
        let changes = Changes { map: b"the map".repeat(99), times: b"the times".to_vec() };
        let (key, bytes) = encode_changes(keys, &environment, &name(), &changes).unwrap();
        assert_eq!(key, layout::changes(keys.stream(), &name()).unwrap());
        assert_eq!(decode_changes(keys, &name(), &bytes).unwrap(), changes);

        let other = ChangesName { epoch: 12, ..name() };
        let failure = decode_changes(keys, &other, &bytes).unwrap_err();
        assert_eq!(failure.code(), Code::ObjectDamaged);
        for at in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1;
            assert!(decode_changes(keys, &name(), &flipped.into()).is_err(), "byte {at}");
        }

        sample::run(sample.store.create(&key, bytes)).unwrap();
        let listed = list_changes(&sample.store, keys.stream(), name().segment.timeline());
        assert_eq!(sample::run(listed).unwrap(), [name()]);
    }
}
