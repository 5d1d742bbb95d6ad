//! Who can do what: the vault's secrets, slots that open them, keys of one stream, writer keys.

mod reader;
mod slot;
mod stream;
mod vault;
mod writer;

pub use reader::WalReadKey;
pub use slot::{OpenWith, RecoveryKey, SlotBody, SlotKind, make_slot, open_slot};
pub use stream::{ReadKey, Recipient, Sealed, StreamKeys};
pub use vault::{Encryption, Vault, VaultSecrets};
pub use writer::{CertificateBody, WriterKey, WriterStream, write_secret_file};
