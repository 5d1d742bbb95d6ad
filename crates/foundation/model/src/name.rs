//! Names that people give: regions, services, databases, nodes, tiers, persons.

use std::fmt;
use std::str::FromStr;

use crate::word::{InvalidWord, schema_as_text, serde_as_text};

const NAME: &str = "a name (1 to 63 letters, digits, `-`, `_` or `.`, not digits alone)";
const DATABASE_ID: &str = "a database, named SERVICE/DATABASE as in payments/ledger";

/// Names become parts of paths and object keys, so they are short and plain.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=63).contains(&text.len())
        && text.bytes().all(plain)
        // YAML would take `1` and `01` for one number.
        && !text.bytes().all(|byte| byte.is_ascii_digit())
        && text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $schema:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidWord;

            fn from_str(text: &str) -> Result<Self, InvalidWord> {
                let name = || Self(text.to_owned());
                is_name(text).then(name).ok_or_else(|| InvalidWord::new(text, NAME))
            }
        }

        /// So that a map keyed by names can be asked with a plain text.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        serde_as_text!($name);
        schema_as_text!(
            $name,
            $schema,
            "1 to 63 letters, digits, `-`, `_` or `.`.",
            "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
        );
    )*};
}

names! {
    /// A region: a failure domain with a repository.
    RegionName = "RegionName";
    /// A service: an application with a tier.
    ServiceName = "ServiceName";
    /// A database within its service; across services use [`DatabaseId`].
    DatabaseName = "DatabaseName";
    /// One server of a database.
    NodeName = "NodeName";
    /// A tier of objectives.
    TierName = "TierName";
    /// A person who may approve or operate.
    PersonName = "PersonName";
    /// A bucket, table, workload or other resource within its service.
    ResourceName = "ResourceName";
}

/// `SERVICE/DATABASE`, as in `payments/ledger`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseId {
    /// The service.
    pub service: ServiceName,
    /// The database within it.
    pub database: DatabaseName,
}

impl fmt::Display for DatabaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&format!("{}/{}", self.service, self.database))
    }
}

impl FromStr for DatabaseId {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, InvalidWord> {
        let parts = text.split_once('/').and_then(|(service, database)| {
            Some(Self { service: service.parse().ok()?, database: database.parse().ok()? })
        });
        parts.ok_or_else(|| InvalidWord::new(text, DATABASE_ID))
    }
}

serde_as_text!(DatabaseId);

crate::reader::read_as_word! {
    RegionName = "the name of a region as text",
    ServiceName = "the name of a service as text",
    TierName = "the name of a tier as text",
    PersonName = "the name of a person as text",
}
