//! What `wal acknowledge` found, and what became of it.

use lifeboat_model::{DatabaseId, Lsn};
use lifeboat_telemetry::{Code, Failure};
use lifeboat_wal::acknowledge::{self, Plan, Standing, Weight};
use lifeboat_wal::writing_server::WritingServer;
use schemars::JsonSchema;
use serde::Serialize;

use crate::output::{Mark, Report, emphasis, strong};

/// For whom commits wait, before and after.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Acknowledged {
    /// `SERVICE/DATABASE`.
    database: String,
    /// The node that writes.
    node: String,
    /// The region that writes.
    region: String,
    /// Whether it was only asked what would be done.
    dry_run: bool,
    /// Whether what was there before was to be put back.
    undo: bool,
    /// `synchronous_standby_names` as it was found; empty: commits wait for nobody.
    before: String,
    /// The value on the way, under which both rules hold; null if none is needed.
    between: Option<String>,
    /// The value that was asked for.
    after: String,
    /// Whether the server was changed.
    changed: bool,
    /// Commits from this position on have the new protection; null if nothing was changed.
    from_lsn: Option<String>,
    /// The receivers outside the region that writes.
    receivers: Vec<Receiver>,
    /// What forbids it.
    refusals: Vec<Remark>,
    /// What a person should look at.
    warnings: Vec<Remark>,
    /// What follows from it.
    notes: Vec<String>,
    #[serde(skip)]
    failure: Option<Failure>,
}

/// A receiver as the server sees it.
#[derive(Debug, Serialize, JsonSchema)]
struct Receiver {
    /// Its region.
    region: String,
    /// Its application name and slot.
    name: String,
    /// `streaming`, `catchup`, …; null if it is not there.
    state: Option<String>,
    /// `async`, `sync`, `quorum` or `potential`.
    sync_state: Option<String>,
    /// What it has made durable.
    durable_lsn: Option<String>,
    /// The role that it logged in as.
    role: Option<String>,
    /// Where it connects from; null for a socket of the server's host.
    address: Option<String>,
    /// Others who use its name.
    impostors: Vec<String>,
}

/// Something to say.
#[derive(Debug, Serialize, JsonSchema)]
struct Remark {
    /// What it is.
    message: String,
    /// What to do.
    advice: String,
}

impl Receiver {
    fn new(standing: &Standing) -> Self {
        let sender = standing.sender.as_ref();
        Self {
            region: standing.region.to_string(),
            name: standing.name.clone(),
            state: sender.and_then(|one| one.state.clone()),
            sync_state: sender.and_then(|one| one.sync_state.clone()),
            durable_lsn: sender.and_then(|one| one.flushed).map(|lsn| lsn.to_string()),
            role: sender.map(|one| one.role.clone()),
            address: sender.and_then(|one| one.address.clone()),
            impostors: standing.impostors.iter().map(|one| one.describe()).collect(),
        }
    }

    fn shown(&self) -> String {
        let state = self.state.as_deref().unwrap_or("not there");
        let mut text = format!("{} ({}): {state}", self.region, self.name);
        if let Some(lsn) = &self.durable_lsn {
            text.push_str(&format!(", durable up to {lsn}"));
        }
        if let Some(sync) = &self.sync_state {
            text.push_str(&format!(", {sync}"));
        }
        text
    }
}

impl Acknowledged {
    /// What is to be done.
    pub(super) fn planned(
        id: &DatabaseId,
        server: &WritingServer,
        plan: &Plan,
        (dry_run, undo): (bool, bool),
    ) -> Self {
        let of = |weight: Weight| {
            plan.remarks.iter().filter(move |remark| remark.weight == weight).map(Remark::new)
        };
        let refusals: Vec<Remark> = of(Weight::Refused).collect();
        Self {
            database: id.to_string(),
            node: server.node.to_string(),
            region: server.region.to_string(),
            dry_run,
            undo,
            before: plan.before.clone(),
            between: plan.between.clone(),
            after: plan.after.clone(),
            changed: false,
            from_lsn: None,
            receivers: plan.receivers.iter().map(Receiver::new).collect(),
            failure: refused(&refusals).filter(|_| !dry_run),
            refusals,
            warnings: of(Weight::Warning).collect(),
            notes: of(Weight::Note).map(|remark| remark.message).collect(),
        }
    }

    /// It was done.
    pub(super) fn done(&mut self, from: Lsn, receivers: &[Standing]) {
        self.changed = true;
        self.from_lsn = Some(from.to_string());
        self.receivers = receivers.iter().map(Receiver::new).collect();
    }

    /// What will be done and what follows, before it is done.
    pub(super) fn plan_lines(&self) -> Vec<String> {
        let mut lines =
            vec![format!("{} writes on {} in {}", self.database, self.node, self.region)];
        let mut line = |label: String, text: &str| lines.push(format!("  {label}  {text}"));
        line(emphasis("now    "), &value(&self.before));
        if let Some(between) = &self.between {
            line(emphasis("between"), &format!("{}, so that no commit has less", value(between)));
        }
        line(emphasis("then   "), &value(&self.after));
        for receiver in &self.receivers {
            line(emphasis("from   "), &receiver.shown());
        }
        for note in &self.notes {
            line(emphasis("note   "), note);
        }
        let warnings = self.warnings.iter().map(|one| (Mark::Doubtful.paint("warning"), one));
        let refusals = self.refusals.iter().map(|one| (Mark::Bad.paint("refused"), one));
        for (label, remark) in warnings.chain(refusals) {
            line(label, &remark.message);
            line(emphasis("     ->"), &remark.advice);
        }
        lines
    }
}

impl Remark {
    fn new(remark: &acknowledge::Remark) -> Self {
        let advice = remark.advice.clone().unwrap_or_default();
        Self { message: remark.message.clone(), advice }
    }
}

fn refused(refusals: &[Remark]) -> Option<Failure> {
    let first = refusals.first()?;
    let failure =
        Failure::new(Code::AcknowledgeRefused, "synchronous_standby_names was left as it is");
    let lines = refusals.iter().map(|one| one.message.clone());
    Some(failure.details(lines).hint(first.advice.clone()))
}

fn value(text: &str) -> String {
    match text {
        "" => "commits wait for nobody".to_owned(),
        text => format!("synchronous_standby_names = {text}"),
    }
}

impl Report for Acknowledged {
    const COMMAND: &'static str = "wal acknowledge";

    fn text(&self) -> String {
        // What was done has been announced on standard error.
        if let Some(from) = &self.from_lsn {
            let mut text = format!("{}: {}.\n", strong(&self.database), value(&self.after));
            if !self.after.is_empty() && !self.undo {
                text.push_str(&format!("Commits after {from} wait for it.\n"));
            }
            for receiver in &self.receivers {
                text.push_str(&format!("  {}\n", receiver.shown()));
            }
            return text;
        }
        let mut text = self.plan_lines().join("\n") + "\n";
        text.push_str(match (self.failure.is_some(), self.dry_run, self.before == self.after) {
            (true, ..) => "Nothing was changed.\n",
            (_, true, _) if !self.refusals.is_empty() => "It would be refused.\n",
            (_, _, true) => "There is nothing to change.\n",
            _ => "Nothing was changed: this was a dry run.\n",
        });
        text
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}
