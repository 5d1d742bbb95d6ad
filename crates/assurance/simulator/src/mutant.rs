//! What can be made wrong on purpose, to see that it is found.
//!
//! Production code has no switches: what it is given lies to it. A clock jumps, a store forgets
//! conditions, a driver says what it did not do.

/// A fault in the product itself, or in what it relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// The holder counts its lease from the answer, not from the question.
    HolderFromResponse,
    /// The waiter waits for half of a lease.
    ShortWait,
    /// The waiter counts from the first time it saw the key, whatever changes.
    WaiterIgnoresRenewals,
    /// A controller that was started again takes the lease for one that it has always watched.
    ResumeWithoutWatching,
    /// The guard is not told a deadline that ends.
    NoDeadline,
    /// Killing takes longer than the fence's deadline says.
    SlowKill,
    /// Controllers take a fence that was ordered for one that was done.
    PromoteOnUnknownFence,
    /// The driver takes the death of the postmaster for that of every process: it says "fenced" and
    /// "down" while sessions can still commit. To say "fenced" too early is harmless by itself:
    /// an agent whose epoch is revoked obeys nothing while it sees its instance run.
    FenceBeforeDeath,
    /// A lease is renewed without a local write.
    NoProbe,
    /// A change of the record compares nothing.
    BlindRecord,
    /// Transitions of a run are written without a look at what is there.
    BlindJournal,
    /// A person's run begins while another one is at work.
    TwoRuns,
    /// A receiver says that it is sealed, and is not.
    NoSeal,
    /// A receiver goes on acknowledging after its seal.
    AcknowledgeAfterSeal,
    /// A receiver acknowledges what it has not flushed.
    AcknowledgeBeforeFlush,
    /// A receiver takes WAL from a primary of an older epoch than its own.
    OldEpochReceived,
    /// A standby says that it has replayed everything.
    PromoteTooEarly,
    /// synchronous_standby_names is not set.
    NoSynchronousNames,
    /// Names are changed without a look at their epoch.
    BlindTraffic,
    /// Agents keep the highest token in memory alone.
    TokenNotPersisted,
    /// Agents take any token after a restart.
    LowerTokenAccepted,
    /// WAL that nobody else has is thrown away without being set apart.
    NoSalvage,
    /// Clocks differ by more than the margin covers: no fault of the product, and it must show.
    Drift,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::HolderFromResponse,
        Self::ShortWait,
        Self::WaiterIgnoresRenewals,
        Self::ResumeWithoutWatching,
        Self::NoDeadline,
        Self::SlowKill,
        Self::PromoteOnUnknownFence,
        Self::FenceBeforeDeath,
        Self::NoProbe,
        Self::BlindRecord,
        Self::BlindJournal,
        Self::TwoRuns,
        Self::NoSeal,
        Self::AcknowledgeAfterSeal,
        Self::AcknowledgeBeforeFlush,
        Self::OldEpochReceived,
        Self::PromoteTooEarly,
        Self::NoSynchronousNames,
        Self::BlindTraffic,
        Self::TokenNotPersisted,
        Self::LowerTokenAccepted,
        Self::NoSalvage,
        Self::Drift,
    ];
}
