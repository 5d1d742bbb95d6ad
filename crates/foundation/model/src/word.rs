//! What all words have in common: one error when a text is not one, and serde as text.

use lifeboat_telemetry::{Code, Failure};

/// A text that is not the word it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidWord {
    text: String,
    expected: &'static str,
}

impl InvalidWord {
    /// `text` is not what was expected, as in "a duration such as 500ms, 15s, 5m, 4h or 35d".
    pub(crate) fn new(text: &str, expected: &'static str) -> Self {
        // Messages stay short whatever a hostile input holds.
        Self { text: text.chars().take(80).collect(), expected }
    }

    /// What the word must look like.
    pub fn expected(&self) -> &'static str {
        self.expected
    }
}

impl std::fmt::Display for InvalidWord {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?} is not {}", self.text, self.expected)
    }
}

impl std::error::Error for InvalidWord {}

impl From<InvalidWord> for Failure {
    fn from(error: InvalidWord) -> Self {
        Self::new(Code::Usage, error.to_string())
    }
}

/// Writes and reads a word as the text of its `Display` and `FromStr`.
macro_rules! serde_as_text {
    ($word:ty) => {
        impl serde::Serialize for $word {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $word {
            fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(source)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Tells the JSON Schema that a word is a text of this pattern.
macro_rules! schema_as_text {
    ($word:ty, $name:literal, $description:literal, $pattern:literal) => {
        impl schemars::JsonSchema for $word {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "description": $description,
                    "pattern": $pattern,
                })
            }
        }
    };
}

pub(crate) use {schema_as_text, serde_as_text};
