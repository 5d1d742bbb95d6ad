//! The agent's own probe: a commit on this server, which waits for nobody else (R3).

use std::time::Duration;

use lifeboat_model::NodeName;

use super::session::literal;

/// Said at the start of the session. A commit that hangs is not ended by a cancel: the caller
/// gives the session up; the limit only keeps what was given up from staying for ever.
pub(crate) fn prepare(limit: Duration) -> String {
    format!(
        "SET synchronous_commit = local; SET default_transaction_read_only = off;
         SET application_name = 'lifeboat agent'; SET statement_timeout = {0};
         SET lock_timeout = {0}",
        limit.as_millis().max(1)
    )
}

/// One row a node, in a page of its own with room for the next versions of the row: each update
/// is a HOT one, and the page is cleaned on the way.
pub(crate) const TABLE: &str = "
    CREATE SCHEMA IF NOT EXISTS lifeboat;
    CREATE TABLE IF NOT EXISTS lifeboat.agent (
        node text PRIMARY KEY, beat bigint NOT NULL, at timestamptz NOT NULL
    ) WITH (fillfactor = 10);";

/// The SQLSTATEs of a table, or schema, that is not there.
pub(crate) const MISSING: [&str; 2] = ["42P01", "3F000"];

/// The write.
pub(crate) fn write(node: &NodeName) -> String {
    let node = literal(node.as_str());
    format!(
        "INSERT INTO lifeboat.agent AS own (node, beat, at) VALUES ({node}, 1, clock_timestamp())
         ON CONFLICT (node) DO UPDATE SET beat = own.beat + 1, at = excluded.at"
    )
}
