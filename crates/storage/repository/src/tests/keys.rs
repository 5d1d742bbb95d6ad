//! Who can open what.

use lifeboat_telemetry::Code;
use zeroize::Zeroizing;

use super::sample::{self, PASSPHRASE};
use crate::crypt;
use crate::keys::{
    Encryption, OpenWith, Recipient, RecoveryKey, SlotKind, VaultSecrets, WriterKey, make_slot,
    open_slot,
};
use crate::object::ObjectType;
use crate::repository::Repository;

fn passphrase(text: &[u8]) -> OpenWith {
    OpenWith::Passphrase(Zeroizing::new(text.to_vec()))
}

#[test]
fn a_wrong_passphrase_opens_nothing_and_says_so() {
    sample::run(async {
        let sample = sample::build("memory:///keys-wrong", Encryption::Aes256Gcm).await;
        let repository = Repository::open(sample.store).await.unwrap();
        let wrong = repository.open_secrets(&[passphrase(b"wrong")]).await.unwrap_err();
        assert_eq!(wrong.code(), Code::PassphraseWrong);
        let none = repository.open_secrets(&[]).await.unwrap_err();
        assert_eq!(none.code(), Code::KeyUnavailable);
        assert!(repository.open_secrets(&[passphrase(PASSPHRASE)]).await.is_ok());
    });
}

#[test]
fn each_kind_of_slot_opens_with_its_own_secret_only() {
    let environment = sample::environment();
    let secrets = VaultSecrets::create(&environment, Encryption::Aes256Gcm).unwrap();
    let recovery = RecoveryKey::create(&environment);
    let printed = recovery.print();
    let file = || OpenWith::KeyFile(Zeroizing::new(vec![7; 64]));
    let made =
        [(SlotKind::RecoveryKey, OpenWith::RecoveryKey(recovery)), (SlotKind::KeyFile, file())];
    for (kind, opener) in made {
        let slot = make_slot(&environment, &secrets, &opener, "x").unwrap();
        assert_eq!(slot.kind, kind);
        let typed = RecoveryKey::parse(&printed.to_lowercase().replace('-', " ")).unwrap();
        for candidate in [OpenWith::RecoveryKey(typed), file(), OpenWith::Open] {
            let opened = open_slot(secrets.vault(), &slot, &candidate).unwrap();
            assert_eq!(opened.is_some(), candidate.kind() == kind);
        }
    }
}

#[test]
fn a_mistyped_recovery_key_is_noticed() {
    let printed = RecoveryKey::create(&sample::environment()).print();
    let last = if printed.ends_with('0') { '1' } else { '0' };
    let mistyped = format!("{}{last}", &printed[..printed.len() - 1]);
    assert!(RecoveryKey::parse(&mistyped).is_err());
    assert!(RecoveryKey::parse("").is_err());
    assert!(RecoveryKey::parse("LIFEBOAT-é").is_err());
}

#[test]
fn what_a_writer_holds_does_not_open_what_it_wrote() {
    let environment = sample::environment();
    let secrets = VaultSecrets::create(&environment, Encryption::Aes256Gcm).unwrap();
    let keys = secrets.stream(1, crate::ids::Incarnation::FIRST);
    let object = keys.new_object_key(&environment, Recipient::Restore).unwrap();
    assert!(secrets.read_key().open(keys.vault(), &object.wrapped).is_ok());
    // What a restored host keeps reads the WAL of its own stream, and neither pages nor others.
    let own_wal = secrets.read_key().for_wal(keys.stream());
    let other = secrets.stream(2, crate::ids::Incarnation::FIRST);
    let other_wal = other.new_object_key(&environment, Recipient::Wal).unwrap();
    let wal = keys.new_object_key(&environment, Recipient::Wal).unwrap();
    assert!(own_wal.open(keys.vault(), &wal.wrapped).is_ok());
    assert!(own_wal.open(keys.vault(), &object.wrapped).is_err());
    assert!(own_wal.open(keys.vault(), &other_wal.wrapped).is_err());
    // A key pair of the writer's own making is not the recipient.
    let own = crypt::random_key(&environment);
    assert!(crypt::unwrap(&own, &object.wrapped).is_err());
}

#[test]
fn metadata_opens_only_in_its_place() {
    let environment = sample::environment();
    let secrets = VaultSecrets::create(&environment, Encryption::Aes256Gcm).unwrap();
    let keys = secrets.stream(1, crate::ids::Incarnation::FIRST);
    let other = secrets.stream(2, crate::ids::Incarnation::FIRST);
    let sealed = keys.seal_metadata(&environment, ObjectType::Map, b"here", b"plain").unwrap();
    let open = |keys: &crate::keys::StreamKeys, kind, place: &[u8]| {
        keys.open_metadata(kind, place, &sealed).ok()
    };
    assert_eq!(open(&keys, ObjectType::Map, b"here").as_deref(), Some(b"plain".as_slice()));
    assert_eq!(open(&keys, ObjectType::Map, b"there"), None);
    assert_eq!(open(&keys, ObjectType::Pack, b"here"), None);
    assert_eq!(open(&other, ObjectType::Map, b"here"), None);
}

#[test]
fn a_writer_key_file_survives_and_is_refused_when_others_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let sample = sample::run(sample::build("memory:///keys-writer", Encryption::Aes256Gcm));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("writer.key");
    sample.writer.save(&path).unwrap();
    let loaded = WriterKey::load(&path).unwrap();
    assert_eq!(loaded.public().unwrap(), sample.writer.public().unwrap());
    let stream = loaded.stream(sample::DATABASE).unwrap();
    assert_eq!(stream.keys.page_id(b"x"), sample.keys.page_id(b"x"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(WriterKey::load(&path).unwrap_err().code(), Code::WriterKeyMissing);
    assert!(!format!("{:?}", sample.secrets).contains("seed"));
}
