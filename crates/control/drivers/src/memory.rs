//! What an agent must not forget.

use lifeboat_quorum::Token;
use lifeboat_telemetry::Outcome;

/// The highest token that this agent has accepted, durable before it is acted on.
pub trait Memory {
    /// What was remembered; nothing at the first start. What cannot be read is an error: an agent
    /// that does not know what it has seen acts on nothing.
    fn highest(&self) -> Outcome<Token>;

    /// Remembers a higher one. Durable when this returns.
    fn remember(&self, token: Token) -> Outcome<()>;
}
