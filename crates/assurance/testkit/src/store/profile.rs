//! What can go wrong with a call, and how often it does.

use std::time::Duration;

use lifeboat_environment::{Random, SeededRandom};

use super::proxy::Kind;

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 500, and nothing was done.
    Error,
    /// 500, although it was done.
    ErrorAfterwards,
    /// 503 SlowDown.
    Throttle,
    /// 403 AccessDenied.
    Deny,
    /// 404 for something that may be there.
    FalseNotFound,
    /// The connection ends before anything was done.
    Reset,
    /// It was done, then the connection ends without an answer.
    LostReply,
    /// The connection ends in the middle of the answer's body.
    BrokenReply,
    /// The answer comes late.
    Delay(Duration),
    /// One bit of the body flips on the way: the request's for a PUT, else the answer's.
    Corrupt,
    /// PUT: 200, and nothing is stored.
    AcknowledgeOnly,
    /// PUT: 200, and half of the body is stored. Else the answer has half a body.
    Halve,
    /// The condition `If-None-Match` is dropped.
    IgnoreCondition,
    /// 307 to the store itself, another address than the one that was asked.
    Redirect,
    /// No answer, ever.
    Silence,
}

/// How often what goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// The name in reports.
    pub name: &'static str,
    /// Chances in percent, tried in order; the first hit decides.
    chances: &'static [(u64, Chance)],
    /// The longest delay.
    pub longest_delay: Duration,
}

/// A kind of fault, before it is known which call it hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chance {
    Error,
    Throttle,
    Reset,
    Delay,
    Corruption,
    /// Of PUTs: acknowledged only, or stored by half.
    FalsePut,
    /// Of answers: flipped or halved.
    FalseAnswer,
    NoCondition,
    Silence,
}

impl Profile {
    /// Nothing goes wrong.
    pub const CALM: Self = Self::new("calm", &[]);
    /// 5 % throttled, 1 % resets.
    pub const AWS_BAD_DAY: Self =
        Self::new("aws-bad-day", &[(5, Chance::Throttle), (1, Chance::Reset)]);
    /// 25 % errors, 30 % throttled, 15 % late, 1 % corrupted, as FoundationDB tests its backups.
    pub const FDB_HEAVY: Self = Self::new(
        "fdb-heavy",
        &[
            (25, Chance::Error),
            (30, Chance::Throttle),
            (15, Chance::Delay),
            (1, Chance::Corruption),
        ],
    );
    /// Says that it stored what it did not, damages answers, ignores conditions.
    pub const LIAR: Self = Self::new(
        "liar",
        &[(25, Chance::FalsePut), (20, Chance::FalseAnswer), (100, Chance::NoCondition)],
    );
    /// Accepts and never answers.
    pub const TARPIT: Self = Self::new("tarpit", &[(100, Chance::Silence)]);
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::CALM, Self::AWS_BAD_DAY, Self::FDB_HEAVY, Self::LIAR, Self::TARPIT];

    const fn new(name: &'static str, chances: &'static [(u64, Chance)]) -> Self {
        // Ten seconds, as the original has them, teach nothing that a fifth of one does not.
        Self { name, chances, longest_delay: Duration::from_millis(200) }
    }

    /// What happens to call number `call`: the same for the same seed.
    pub(super) fn draw(&self, seed: u64, call: u64, kind: Kind) -> Option<Fault> {
        let random = SeededRandom::new(seed ^ call.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let hit = self.chances.iter().find(|(percent, _)| random.next_u64() % 100 < *percent);
        let (_, chance) = hit?;
        let odd = random.next_u64() % 2 == 1;
        match chance {
            Chance::Error if odd => Some(Fault::ErrorAfterwards),
            Chance::Error => Some(Fault::Error),
            Chance::Throttle => Some(Fault::Throttle),
            Chance::Reset if odd => Some(Fault::LostReply),
            Chance::Reset => Some(Fault::Reset),
            Chance::Delay => {
                let millis = u64::try_from(self.longest_delay.as_millis()).unwrap_or(u64::MAX);
                Some(Fault::Delay(Duration::from_millis(random.next_u64() % millis.max(1))))
            }
            Chance::Corruption => Some(Fault::Corrupt),
            Chance::FalsePut if kind == Kind::Put && odd => Some(Fault::Halve),
            Chance::FalsePut if kind == Kind::Put => Some(Fault::AcknowledgeOnly),
            Chance::FalseAnswer if kind == Kind::Get && odd => Some(Fault::Halve),
            Chance::FalseAnswer if kind == Kind::Get => Some(Fault::Corrupt),
            Chance::FalsePut | Chance::FalseAnswer | Chance::NoCondition => {
                Some(Fault::IgnoreCondition)
            }
            Chance::Silence => Some(Fault::Silence),
        }
    }
}
