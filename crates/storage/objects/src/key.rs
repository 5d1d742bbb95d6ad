//! Names of objects.

use lifeboat_telemetry::{Code, Failure, Outcome};

/// File systems allow 255 bytes; the rest is for the staging suffix.
const MAX_PART: usize = 240;
/// Stores allow 1,024 bytes; the rest is for the repository's prefix.
const MAX_KEY: usize = 768;

/// A path below the repository root: parts of letters, digits, `.`, `_` and `-`, joined by `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Checks a path; keys are made by programs, so a wrong one is a defect and not a typing error.
    pub fn new(path: impl Into<String>) -> Outcome<Self> {
        let path = path.into();
        if path.len() <= MAX_KEY && path.split('/').all(is_part) {
            return Ok(Self(path));
        }
        let shown: String = path.chars().take(80).collect();
        Err(Failure::new(Code::Internal, format!("{shown:?} is not an object key")))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `part` may stand between two slashes.
pub(crate) fn is_part(part: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !matches!(part, "" | "." | "..") && part.len() <= MAX_PART && part.bytes().all(fits)
}

impl std::fmt::Display for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}
