//! What an exit code promises to whoever started the process (DESIGN section 6 and F7).

use std::ffi::OsString;

use lifeboat_telemetry::{Code, Failure, Kind};

use crate::arguments::command_words;

/// `wal fetch` could not answer. 126 and above abort a recovery instead of ending it early.
const FETCH_UNANSWERED: u8 = 200;
/// PostgreSQL does not count an archive_command that exits above 125 as a failure.
const PUSH_MAXIMUM: u8 = 125;

/// Who reads the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// People and scripts: the kinds of failure.
    Plain,
    /// An agent. A guard hears signals itself: none may end it without its kill.
    Guard,
    /// PostgreSQL's archiver.
    Push,
    /// PostgreSQL's recovery: 0 with the file, 1 if its absence is proved, else 200.
    Fetch,
}

impl Promise {
    /// Decides from the raw arguments, which may be nonsense.
    pub fn of(arguments: &[OsString]) -> Self {
        let words = command_words(arguments);
        match words.get(..2) {
            Some(["wal", "push"]) => Self::Push,
            Some(["wal", "fetch"]) => Self::Fetch,
            Some(["guard", "run" | "init" | "step" | "borrow"]) => Self::Guard,
            _ => Self::Plain,
        }
    }

    /// The code for a command that printed its result and asks for `code`.
    pub fn success(self, code: u8) -> u8 {
        if code == 0 { 0 } else { self.without_answer(code) }
    }

    /// The code for a command that failed.
    pub fn failure(self, failure: &Failure) -> u8 {
        if self == Self::Fetch && failure.code() == Code::WalAbsent {
            return 1;
        }
        self.without_answer(failure.kind().exit_code())
    }

    /// The code for a process that a signal ends.
    pub fn interrupted(self) -> u8 {
        self.without_answer(Kind::Interrupted.exit_code())
    }

    fn without_answer(self, code: u8) -> u8 {
        match self {
            Self::Plain | Self::Guard => code,
            Self::Push if (1..=PUSH_MAXIMUM).contains(&code) => code,
            Self::Push => Kind::Failed.exit_code(),
            Self::Fetch => FETCH_UNANSWERED,
        }
    }
}

#[cfg(test)]
mod tests;
