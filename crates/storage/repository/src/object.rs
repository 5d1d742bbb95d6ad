//! The frame around every object: a 64-byte header, a body, and for named objects a trailer.
//!
//! Content-named objects are `header body` and their name is the SHA-256 of all bytes.
//! Sequence-named objects are `header name body [signature] SHA-256-of-everything-before`.

use bytes::Bytes;
use lifeboat_objects::Key;
use lifeboat_telemetry::{Code, Failure, Outcome};
use serde::{Deserialize, Serialize};

use crate::crypt::{self, SIGNATURE_BYTES, SigningKey};
use crate::cursor::Cursor;
use crate::ids::{Digest, StreamId, VaultId};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// First bytes of every object.
pub const MAGIC: &[u8; 8] = b"LIFEBOAT";
/// The version that this code writes, and the newest that it reads.
pub const FORMAT_VERSION: u16 = 1;
/// Longest name inside an object.
const NAME_BYTES_MAX: usize = 1024;
/// Signed objects end in: public key, signature, then the SHA-256 trailer.
const SIGNATURE_BLOCK_BYTES: usize = 32 + SIGNATURE_BYTES;
const TRAILER_BYTES: usize = 32;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u16)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectType {
    /// The repository's own description.
    Format = 1,
    /// A key slot.
    Slot = 2,
    /// A writer's certificate, signed by the vault's root.
    Certificate = 3,
    /// The removal of a slot, signed by the vault's root.
    SlotRemoval = 4,
    /// Which stream a database is bound to, signed by the vault's root.
    Binding = 5,
    /// Who was given an epoch of a service, signed by a writer.
    Epoch = 6,
    /// Frames of pages.
    Pack = 7,
    /// Leaves of file maps.
    Map = 8,
    /// Part of a backup's list of files.
    FileTable = 9,
    /// Part of a backup's list of objects.
    ObjectTable = 10,
    /// The root of one backup, signed by a writer.
    Manifest = 11,
    /// A WAL segment, or the last piece of an abandoned timeline.
    Segment = 12,
    /// The head of a WAL segment stored in parts.
    SegmentHead = 13,
    /// A part of a WAL segment.
    SegmentPart = 14,
    /// A timeline history file or a backup history file.
    History = 15,
    /// A piece of a WAL segment, from a receiver.
    Fragment = 16,
    /// A run of a receiver: who has a writer epoch.
    Receiver = 17,
    /// What the WAL of a segment changed, and when.
    Changes = 19,
    /// A writer's session.
    Session = 18,
    /// A link of the audit chain.
    Audit = 22,
}

impl ObjectType {
    const ALL: [Self; 20] = [
        Self::Format,
        Self::Slot,
        Self::Certificate,
        Self::SlotRemoval,
        Self::Binding,
        Self::Epoch,
        Self::Pack,
        Self::Map,
        Self::FileTable,
        Self::ObjectTable,
        Self::Manifest,
        Self::Segment,
        Self::SegmentHead,
        Self::SegmentPart,
        Self::History,
        Self::Fragment,
        Self::Receiver,
        Self::Changes,
        Self::Session,
        Self::Audit,
    ];

    fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == number)
    }
}

/// How the body is compressed and sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coding {
    /// 0 none, 1 zstd.
    pub codec: u8,
    /// 0 none, 1 AES-256-GCM.
    pub sealing: u8,
}

impl Coding {
    /// Neither compressed nor sealed.
    pub const PLAIN: Self = Self { codec: 0, sealing: 0 };
}

/// The first 64 bytes of every object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the object is.
    pub kind: ObjectType,
    /// The vault that it belongs to.
    pub vault: VaultId,
    /// Its stream; zero for objects of the vault.
    pub stream: StreamId,
    /// How its body is coded.
    pub coding: Coding,
    /// Length of the body.
    pub body_bytes: u64,
}

impl Header {
    /// The bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..8].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&(self.kind as u16).to_le_bytes());
        out[10..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        // 12..16: required features, none in version 1.
        out[16..32].copy_from_slice(&self.vault.0);
        out[32..48].copy_from_slice(&self.stream.0);
        out[48] = self.coding.codec;
        out[49] = self.coding.sealing;
        // 50..52 reserved, 52..56 dictionary: zero.
        out[56..64].copy_from_slice(&self.body_bytes.to_le_bytes());
        out
    }

    /// Reads a header and refuses what this version does not know.
    pub fn decode(bytes: &[u8]) -> Outcome<Self> {
        let mut cursor = Cursor::new(bytes, "the object header");
        if cursor.take(8)? != MAGIC {
            return Err(cursor.damaged("it does not start with LIFEBOAT"));
        }
        let kind = cursor.u16()?;
        let version = cursor.u16()?;
        let features = cursor.u32()?;
        if version > FORMAT_VERSION || features != 0 {
            return Err(newer(version, features));
        }
        let Some(kind) = ObjectType::from_number(kind) else {
            return Err(cursor.damaged("its type is not known"));
        };
        let vault = VaultId(cursor.array()?);
        let stream = StreamId(cursor.array()?);
        let coding = Coding { codec: cursor.u8()?, sealing: cursor.u8()? };
        let reserved = cursor.u16()?;
        let dictionary = cursor.u32()?;
        if version == 0 || reserved != 0 || coding.codec > 1 || coding.sealing > 1 {
            return Err(cursor.damaged("a field has no legal value"));
        }
        if dictionary != 0 {
            return Err(newer(version, features));
        }
        Ok(Self { kind, vault, stream, coding, body_bytes: cursor.u64()? })
    }
}

fn newer(version: u16, features: u32) -> Failure {
    Failure::new(
        Code::FormatNewer,
        format!("an object has format version {version} and required features {features:#x}"),
    )
    .hint("Use the version of lifeboat that wrote this repository, or a newer one.")
}

/// A sequence-named object, taken apart and checked.
#[derive(Debug, Clone)]
pub struct Named {
    /// Its header.
    pub header: Header,
    /// Its body.
    pub body: Bytes,
    /// The public key that signed it and proved to have done so.
    pub signer: Option<[u8; 32]>,
}

/// Builds a sequence-named object.
pub fn encode_named(
    mut header: Header,
    key: &Key,
    body: &[u8],
    signer: Option<&SigningKey>,
) -> Bytes {
    header.body_bytes = body.len() as u64;
    let name = key.as_str().as_bytes();
    let capacity = HEADER_BYTES + 3 + name.len() + body.len() + SIGNATURE_BLOCK_BYTES;
    let mut out = Vec::with_capacity(capacity + TRAILER_BYTES);
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(&(name.len() as u16).to_le_bytes());
    out.push(u8::from(signer.is_some()));
    out.extend_from_slice(name);
    out.extend_from_slice(body);
    if let Some(signer) = signer {
        out.extend_from_slice(&signer.public());
        let signature = signer.sign(&out);
        out.extend_from_slice(&signature);
    }
    let trailer = crypt::sha256(&out);
    out.extend_from_slice(&trailer);
    out.into()
}

/// Takes a sequence-named object apart; checks trailer, name, header and signature.
pub fn decode_named(kind: ObjectType, key: &Key, bytes: &Bytes) -> Outcome<Named> {
    decode_any(key, bytes).and_then(|named| {
        if named.header.kind == kind {
            return Ok(named);
        }
        let found = named.header.kind;
        Err(damaged(key, &format!("it is a {found:?}, not a {kind:?}")))
    })
}

/// As [`decode_named`], for a reader that takes any type.
pub fn decode_any(key: &Key, bytes: &Bytes) -> Outcome<Named> {
    let header = Header::decode(bytes).map_err(|failure| failure.within(key))?;
    let Some(end) = bytes.len().checked_sub(TRAILER_BYTES).filter(|end| *end > HEADER_BYTES) else {
        return Err(damaged(key, "it is too short"));
    };
    if crypt::sha256(&bytes[..end]) != bytes[end..] {
        return Err(damaged(key, "its SHA-256 trailer does not match"));
    }
    let mut cursor = Cursor::new(&bytes[HEADER_BYTES..end], "a named object");
    let name_bytes = cursor.u16()? as usize;
    let signed = cursor.u8()?;
    if name_bytes > NAME_BYTES_MAX || cursor.take(name_bytes)? != key.as_str().as_bytes() {
        return Err(damaged(key, "it was stored under another name"));
    }
    let start = HEADER_BYTES + 3 + name_bytes;
    let Some(body_end) = usize::try_from(header.body_bytes)
        .ok()
        .and_then(|length| start.checked_add(length))
        .filter(|body_end| {
            let block = if signed == 1 { SIGNATURE_BLOCK_BYTES } else { 0 };
            signed <= 1 && body_end.checked_add(block) == Some(end)
        })
    else {
        return Err(damaged(key, "its lengths do not add up"));
    };
    let signer = if signed == 1 {
        let mut public = [0; 32];
        public.copy_from_slice(&bytes[body_end..body_end + 32]);
        let signature = &bytes[body_end + 32..end];
        if !crypt::signature_holds(&public, &bytes[..body_end + 32], signature) {
            let message = format!("the signature of {key} does not hold");
            return Err(Failure::new(Code::SignatureInvalid, message));
        }
        Some(public)
    } else {
        None
    };
    Ok(Named { header, body: bytes.slice(start..body_end), signer })
}

/// Checks a content-named object against the digest in its name and takes off its header.
pub fn decode_content(
    kind: ObjectType,
    digest: &Digest,
    bytes: &Bytes,
) -> Outcome<(Header, Bytes)> {
    if crypt::sha256(bytes) != digest.0 {
        let message = format!("object {digest} is damaged: its SHA-256 is not its name");
        return Err(Failure::new(Code::ObjectDamaged, message));
    }
    let header = Header::decode(bytes)?;
    let body = bytes.slice(HEADER_BYTES..);
    if header.kind != kind || header.body_bytes != body.len() as u64 {
        let message = format!("object {digest} is not the {kind:?} that it should be");
        return Err(Failure::new(Code::ObjectDamaged, message));
    }
    Ok((header, body))
}

fn damaged(key: &Key, why: &str) -> Failure {
    Failure::new(Code::ObjectDamaged, format!("{key} is damaged: {why}"))
}
