//! Named places at which a test makes the process fail or die.
//!
//! `LIFEBOAT_FAILPOINTS="backup.before_manifest=kill;push.stored=sleep:500"`. Actions: `kill`
//! (SIGKILL to this process), `panic`, `error`, `sleep:MILLISECONDS`, `error*N` (the first N
//! times).
//! They exist only in builds with debug assertions: a release binary ignores the variable.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A failpoint said `error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailpointError(pub String);

impl std::fmt::Display for FailpointError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "failpoint {} was asked to fail", self.0)
    }
}

impl std::error::Error for FailpointError {}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Kill,
    Panic,
    Error { times: u32 },
    Sleep(Duration),
}

/// The failpoints of one process or one test; clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Failpoints {
    actions: Arc<Mutex<BTreeMap<String, Action>>>,
}

impl Failpoints {
    /// Reads a list; anything malformed is ignored, for a test notices that nothing happened.
    pub fn from_list(list: Option<&String>) -> Self {
        let mut actions = BTreeMap::new();
        if cfg!(debug_assertions) {
            for item in list.map(String::as_str).unwrap_or_default().split(';') {
                if let Some((name, action)) = item.split_once('=').and_then(parse) {
                    actions.insert(name, action);
                }
            }
        }
        Self { actions: Arc::new(Mutex::new(actions)) }
    }

    /// Does at `name` what the test asked for; nothing in normal life.
    #[expect(clippy::panic, reason = "a test asks for the panic, to see who catches it")]
    pub fn hit(&self, name: &str) -> Result<(), FailpointError> {
        let action = {
            let mut actions = self.actions.lock().unwrap_or_else(PoisonError::into_inner);
            match actions.get_mut(name) {
                None => return Ok(()),
                Some(Action::Error { times: 0 }) => return Ok(()),
                Some(Action::Error { times }) => {
                    *times = times.saturating_sub(1);
                    Action::Error { times: 1 }
                }
                Some(action) => action.clone(),
            }
        };
        match action {
            Action::Kill => {
                let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
                Ok(())
            }
            Action::Panic => panic!("failpoint {name} was asked to panic"),
            Action::Error { .. } => Err(FailpointError(name.to_owned())),
            Action::Sleep(duration) => {
                std::thread::sleep(duration);
                Ok(())
            }
        }
    }
}

fn parse((name, action): (&str, &str)) -> Option<(String, Action)> {
    let action = match action.trim() {
        "kill" => Action::Kill,
        "panic" => Action::Panic,
        "error" => Action::Error { times: u32::MAX },
        other => match (other.strip_prefix("error*"), other.strip_prefix("sleep:")) {
            (Some(times), _) => Action::Error { times: times.parse().ok()? },
            (_, Some(millis)) => Action::Sleep(Duration::from_millis(millis.parse().ok()?)),
            _ => return None,
        },
    };
    Some((name.trim().to_owned(), action))
}
