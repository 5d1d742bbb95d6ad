//! Lines for an engineer. Never written between a deadline and its kill: the disk may hang.

use std::io::Write;

use lifeboat_environment::Environment;

/// Writes one line to standard error, which is `guard.log` for a detached guard. What cannot be
/// written is lost: a full disk must not end a guard.
pub(super) fn log(environment: &Environment, who: &str, what: &str) {
    let now = environment.clock().now();
    let line = format!("{now:.3} {who}[{}]: {what}\n", std::process::id());
    let _ = std::io::stderr().write_all(line.as_bytes());
}
