//! What an agent must not forget.

use std::io::ErrorKind;
use std::path::PathBuf;

use lifeboat_quorum::Token;
use lifeboat_repository::keys::write_secret_file;
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::Grant;

/// The highest token that this agent has accepted, durable before it is acted on.
pub trait Memory {
    /// What was remembered; nothing at the first start. What cannot be read is an error: an agent
    /// that does not know what it has seen acts on nothing.
    fn highest(&self) -> Outcome<Token>;

    /// Remembers a higher one. Durable when this returns.
    fn remember(&self, token: Token) -> Outcome<()>;

    /// What a person permits this node without a lease; none if nothing. Whether it holds is for
    /// the reader to see.
    fn grant(&self) -> Outcome<Option<Grant>> {
        Ok(None)
    }
}

/// A file beside the agent's other state. It holds one small document and is replaced in one
/// durable step.
#[derive(Debug)]
pub struct FileMemory {
    path: PathBuf,
}

impl FileMemory {
    /// The memory in a file; its folder is made when something is remembered.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Leaves a permission for the agent that remembers here; it replaces any other one.
    pub fn permit(&self, grant: &Grant) -> Outcome<()> {
        write_secret_file(&self.path.with_extension(GRANT), &lifeboat_quorum::encode(grant))
    }
}

/// The file of a permission lies beside that of the token.
const GRANT: &str = "grant";

impl Memory for FileMemory {
    fn highest(&self) -> Outcome<Token> {
        let unreadable = |why: String| {
            Failure::new(Code::LocalState, format!("cannot read {}", self.path.display()))
                .because(why)
                .hint(
                    "It says which orders are old. If it is lost, move it away only after \
                     `lifeboat status` shows that no other node writes.",
                )
        };
        match std::fs::read(&self.path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Token::default()),
            Err(error) => Err(unreadable(error.to_string())),
        }
    }

    fn remember(&self, token: Token) -> Outcome<()> {
        write_secret_file(&self.path, &lifeboat_quorum::encode(&token))
    }

    fn grant(&self) -> Outcome<Option<Grant>> {
        let path = self.path.with_extension(GRANT);
        let unreadable = |why: String| {
            Failure::new(Code::LocalState, format!("cannot read {}", path.display()))
                .because(why)
                .hint("Run the same `lifeboat failover … --break-glass` again: it writes it anew.")
        };
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| unreadable(error.to_string())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(error.to_string())),
        }
    }
}
