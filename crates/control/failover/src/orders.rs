//! Writes of a controller: one transaction that compares what was read.

use lifeboat_model::{DatabaseName, NodeName, RegionName};
use lifeboat_quorum::{
    Desired, EpochRecord, Goal, Keys, ReceiverGoal, Revision, Synchronous, Token, Transaction,
};
use lifeboat_workflow::{Change, Facts, Run};

use crate::Service;

/// What a controller writes at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writes {
    /// The record after it; none if it stays.
    pub record: Option<EpochRecord>,
    /// Orders to nodes.
    pub nodes: Vec<(DatabaseName, NodeName, Goal)>,
    /// Orders to receivers.
    pub receivers: Vec<(DatabaseName, RegionName, ReceiverGoal)>,
    /// The transition of the run's step.
    pub change: Change,
    /// What was found, in words.
    pub evidence: String,
    /// What later steps need of it.
    pub facts: Facts,
}

impl Writes {
    /// A transition alone.
    pub fn new(change: Change, evidence: impl Into<String>) -> Self {
        Self {
            record: None,
            nodes: Vec::new(),
            receivers: Vec::new(),
            change,
            evidence: evidence.into(),
            facts: Facts::new(),
        }
    }

    /// The same with a record.
    #[must_use]
    pub fn record(mut self, record: EpochRecord) -> Self {
        self.record = Some(record);
        self
    }

    /// The same with a fact.
    #[must_use]
    pub fn fact(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.facts.insert(name.into(), value.into());
        self
    }

    /// The transaction: nothing of it happens if the record or the journal is not what was read.
    pub fn transaction(
        &self,
        service: &Service,
        keys: &Keys,
        read: (&EpochRecord, Revision),
        run: &Run,
        by: &str,
        at: jiff::Timestamp,
    ) -> Transaction {
        let name = &service.name;
        let mut after = run.clone();
        let mut entry = run.entry(self.change, self.evidence.clone(), by, at);
        entry.facts.clone_from(&self.facts);
        let transition = keys.transition(name, run.plan.run, run.next_number());
        let mut transaction =
            Transaction::new().when(keys.epoch(name), read.1).create(transition, &entry);
        after.journal.push(entry);
        if let Some(record) = &self.record {
            transaction = transaction.put(keys.epoch(name), record);
        }
        let epoch = self.record.as_ref().map_or(read.0.epoch, |record| record.epoch);
        let token = after.token(epoch);
        self.put_orders(service, keys, token, transaction)
    }

    fn put_orders(
        &self,
        service: &Service,
        keys: &Keys,
        token: Token,
        mut transaction: Transaction,
    ) -> Transaction {
        for (database, node, goal) in &self.nodes {
            let key = keys.desired(&service.name, database, node);
            transaction = transaction.put(key, &Desired { token, goal: goal.clone() });
        }
        for (database, region, goal) in &self.receivers {
            let key = keys.receiver_desired(&service.name, database, region);
            transaction = transaction.put(key, &Desired { token, goal: goal.clone() });
        }
        transaction
    }
}

/// The value of synchronous_standby_names for what commits shall wait for.
pub fn names(service: &Service, database: &DatabaseName, synchronous: &Synchronous) -> String {
    if synchronous.needed == 0 {
        return String::new();
    }
    let id = service.id(database);
    let names = synchronous.receivers.iter();
    let names = names.map(|region| format!("\"{}\"", lifeboat_wal::receiver_name(&id, region)));
    format!("ANY {} ({})", synchronous.needed, names.collect::<Vec<_>>().join(", "))
}
