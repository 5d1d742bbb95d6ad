//! Objects of a repository that is not encrypted, around bodies that the fuzzer wants. Names,
//! checksums and signatures are right: what is to be read is what lies behind them.

use bytes::Bytes;
use lifeboat_environment::Environment;
use lifeboat_objects::Key;
use lifeboat_repository::changes::decode_changes;
use lifeboat_repository::crypt::SigningKey;
use lifeboat_repository::fragment::decode_fragment;
use lifeboat_repository::ids::{Digest, Incarnation};
use lifeboat_repository::keys::{Encryption, ReadKey, StreamKeys, VaultSecrets};
use lifeboat_repository::layout;
use lifeboat_repository::manifest::Manifest;
use lifeboat_repository::object::{
    Coding, HEADER_BYTES, Header, ObjectType, decode_any, decode_content, encode_named,
};
use lifeboat_repository::receiver::Receiver;
use lifeboat_repository::session::SessionBody;
use lifeboat_repository::tree::{FileTablePage, MapObject, ObjectTable};
use lifeboat_repository::wal_file;

const FRAGMENT: &str = "00000001/0000000000300000-0000000000300400-00000001";
const CHANGES: &str = "00000001/000000010000000000000003-00000001";
const SEGMENT: &str = "000000010000000000000001";
const MANIFEST: &str = "00000001-00000001";

/// The types whose bodies are fuzzed; their position is an input's first byte.
pub const TYPES: [ObjectType; 11] = [
    ObjectType::Map,
    ObjectType::FileTable,
    ObjectType::ObjectTable,
    ObjectType::Manifest,
    ObjectType::Session,
    ObjectType::Receiver,
    ObjectType::Fragment,
    ObjectType::Changes,
    ObjectType::Segment,
    ObjectType::SegmentPart,
    ObjectType::Binding,
];

/// The keys of a stream, and who signs.
pub struct Keys {
    /// The stream's keys.
    pub stream: StreamKeys,
    read: ReadKey,
    signer: SigningKey,
}

impl Keys {
    /// Keys of a new vault without encryption.
    pub fn new() -> anyhow::Result<Self> {
        let failed = |failure| anyhow::anyhow!("{failure}");
        let secrets = VaultSecrets::create(&Environment::system(), Encryption::None);
        let secrets = secrets.map_err(failed)?;
        let stream = secrets.stream(7, Incarnation::FIRST);
        let read = secrets.read_key().for_wal(stream.stream());
        let signer = secrets.root().map_err(failed)?;
        Ok(Self { stream, read, signer })
    }

    /// Writes the identities of this vault and stream into an object.
    pub fn own(&self, object: &mut [u8]) {
        let ids = [&self.stream.vault().id.0[..], &self.stream.stream().0[..]].concat();
        if let Some(place) = object.get_mut(16..48) {
            place.copy_from_slice(&ids);
        }
    }

    fn header(&self, kind: ObjectType) -> Header {
        let (vault, stream) = (self.stream.vault().id, self.stream.stream());
        Header { kind, vault, stream, coding: Coding::PLAIN, body_bytes: 0 }
    }

    fn content(&self, kind: ObjectType, body: &[u8]) -> (Digest, Bytes) {
        let header = Header { body_bytes: body.len() as u64, ..self.header(kind) };
        let bytes = Bytes::from([&header.encode()[..], body].concat());
        (Digest::of(&bytes), bytes)
    }

    fn named(&self, kind: ObjectType, key: &Key, body: &[u8]) -> Bytes {
        encode_named(self.header(kind), key, body, Some(&self.signer))
    }
}

/// Reads a body as that of the type that the first byte names.
pub fn read(keys: &Keys, input: &[u8]) {
    let Some((choice, body)) = input.split_first() else { return };
    let kind = TYPES[usize::from(*choice) % TYPES.len()];
    let _ = read_as(keys, kind, body);
}

fn read_as(keys: &Keys, kind: ObjectType, body: &[u8]) -> Option<()> {
    let stream = keys.stream.stream();
    match kind {
        ObjectType::Map | ObjectType::FileTable | ObjectType::ObjectTable => {
            let (digest, bytes) = keys.content(kind, body);
            let _ = decode_content(kind, &digest, &bytes);
            match kind {
                ObjectType::Map => drop(MapObject::decode(&keys.stream, &digest, &bytes)),
                ObjectType::ObjectTable => drop(ObjectTable::decode(&digest, &bytes)),
                _ => {
                    let files = FileTablePage::decode(&keys.stream, &digest, &bytes).ok()?;
                    assert!(files.iter().all(|file| file.path_is_safe()), "an unsafe path");
                }
            }
        }
        ObjectType::Manifest => {
            let key = layout::manifest(stream, MANIFEST).ok()?;
            let manifest = Manifest::decode(&key, &keys.named(kind, &key, body)).ok()?;
            drop(manifest.description(&keys.stream));
        }
        ObjectType::Session => {
            let key = layout::session(stream, MANIFEST).ok()?;
            drop(SessionBody::decode(&key, &keys.named(kind, &key, body)));
        }
        ObjectType::Receiver => {
            let key = layout::receiver(stream, 1).ok()?;
            drop(Receiver::decode(stream, 1, &keys.named(kind, &key, body)));
        }
        ObjectType::Fragment => {
            let name = FRAGMENT.parse().ok()?;
            let key = layout::fragment(stream, &name).ok()?;
            let bytes = keys.named(kind, &key, body);
            drop(decode_fragment(&keys.stream, &keys.read, &name, &bytes));
        }
        ObjectType::Changes => {
            let name = CHANGES.parse().ok()?;
            let key = layout::changes(stream, &name).ok()?;
            drop(decode_changes(&keys.stream, &name, &keys.named(kind, &key, body)));
        }
        ObjectType::Segment | ObjectType::SegmentPart => {
            let key = match kind {
                ObjectType::Segment => layout::wal(stream, SEGMENT).ok()?,
                _ => layout::wal_part(stream, SEGMENT, 0).ok()?,
            };
            let bytes = keys.named(kind, &key, body);
            drop(wal_file::decode_head(&keys.stream, kind, &key, &bytes));
            drop(wal_file::decode_digest(&keys.stream, &key, &bytes));
            drop(wal_file::plain_bytes(&bytes));
            drop(wal_file::decode(&keys.stream, &keys.read, kind, &key, &bytes));
        }
        _ => {
            // As it is: nothing is right about it but what the fuzzer makes right.
            let key = layout::binding("shop/main", 1).ok()?;
            drop(decode_any(&key, &Bytes::copy_from_slice(body)));
            if body.len() >= HEADER_BYTES {
                drop(Header::decode(body));
            }
        }
    }
    Some(())
}
