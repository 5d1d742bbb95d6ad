//! `encryption`: who can open the vault. On, unless it says `none`.

use crate::finding::{Findings, Path};
use crate::reader::{Read, one_key, section};
use crate::tree::{Node, Value};
use crate::{Reference, Secret};

/// How repositories are encrypted.
#[derive(Debug, Clone, PartialEq)]
pub enum Encryption {
    /// Not at all: `encryption: none`.
    None,
    /// By keys that these slots open.
    Slots(Slots),
}

impl Default for Encryption {
    /// Encryption cannot be forgotten: without a word about it, a recovery key is made.
    fn default() -> Self {
        Self::Slots(Slots { slots: vec![Slot::RecoveryKey(Empty {})], writer: None })
    }
}

impl Read for Encryption {
    fn read(node: &Node, path: &Path, findings: &mut Findings<'_>) -> Option<Self> {
        match &node.value {
            Value::Text(text) if text == "none" => Some(Self::None),
            Value::Map(_) => Slots::read(node, path, findings).map(Self::Slots),
            _ => crate::reader::expected(node, path, "a map with `slots`, or `none`", findings),
        }
    }
}

impl schemars::JsonSchema for Encryption {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Encryption".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let slots = generator.subschema_for::<Slots>();
        schemars::json_schema!({ "oneOf": [{ "const": "none" }, slots] })
    }
}

section! {
    /// The keys of the vault.
    pub struct Slots {
        /// What opens the vault; any one of them does.
        slots: Vec<Slot>,
        /// The key file of a database host, made by `lifeboat key enroll`: all that it needs to
        /// write, and nothing to read the past with. Default: writer.key in the state directory.
        writer: Option<Secret>,
    }
}

one_key! {
    /// One way to open the vault.
    pub enum Slot {
        /// A passphrase.
        Passphrase(Secret) = "passphrase",
        /// A file of random bytes.
        KeyFile(Secret) = "key_file",
        /// A key that `lifeboat repo create` makes and shows once.
        RecoveryKey(Empty) = "recovery_key",
        /// A key of a cloud's key management.
        Kms(KmsSlot) = "kms",
        /// A program that wraps and unwraps.
        Command(CommandSlot) = "command",
    }
}

section! {
    /// A map without keys: `{}`.
    pub struct Empty {}
}

section! {
    /// A key of a cloud's key management.
    pub struct KmsSlot {
        /// Its name or address.
        key: Reference,
        /// The cloud's region that holds it.
        region: Option<Reference>,
    }
}

section! {
    /// Programs that wrap and unwrap a key from standard input to standard output.
    pub struct CommandSlot {
        /// Wraps.
        wrap: String,
        /// Unwraps.
        unwrap: String,
    }
}
