//! The decision: what will be set, in which order, and what speaks against it. Asks nobody.

use std::collections::BTreeSet;

use lifeboat_model::spec::{Acknowledge, OnLoss};
use lifeboat_model::{DatabaseId, RegionName};

use super::memory::Memory;
use super::rule::Rule;
use super::survey::{Survey, weakness};
use crate::receiver_name::receiver_name;
use crate::senders::{Sender, Slot};

/// What the spec asks for, seen from the region that writes.
#[derive(Debug, Clone)]
pub struct Wish<'a> {
    /// The database.
    pub id: &'a DatabaseId,
    /// The region that writes.
    pub writes: &'a RegionName,
    /// All receivers of the spec.
    pub receivers: &'a [RegionName],
    /// What a commit waits for.
    pub acknowledge: &'a Acknowledge,
    /// A value that Lifeboat did not set and may replace, as a person named it.
    pub replace: Option<&'a str>,
    /// The role of the spec's `connection`, as which receivers log in.
    pub role: Option<String>,
    /// Hosts of the region that writes: a receiver that runs there dies with it.
    pub hosts: Vec<String>,
}

/// What will be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The value now.
    pub before: String,
    /// Whether ALTER SYSTEM has set it.
    pub by_alter_system: bool,
    /// The value afterwards.
    pub after: String,
    /// The value between them: what is acknowledged under it satisfies both.
    pub between: Option<String>,
    /// How `after` comes to be.
    pub way: Way,
    /// The receivers outside the region that writes.
    pub receivers: Vec<Standing>,
    /// What is to say about it.
    pub remarks: Vec<Remark>,
}

/// How a value comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By ALTER SYSTEM SET, and only if enough receivers acknowledge.
    Protect,
    /// By ALTER SYSTEM SET, as it was.
    Restore,
    /// By ALTER SYSTEM RESET: it stands elsewhere, or nowhere.
    Reset,
}

/// A receiver of the spec, and who answers to its name.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Its region.
    pub region: RegionName,
    /// Its application name and slot.
    pub name: String,
    /// The receiver itself: it has the slot of its name.
    pub sender: Option<Sender>,
    /// Others of its name, which PostgreSQL would count too.
    pub impostors: Vec<Sender>,
    /// Its slot.
    pub slot: Option<Slot>,
}

impl<'a> Wish<'a> {
    /// What the spec says, and nothing else.
    pub fn new(
        id: &'a DatabaseId,
        writes: &'a RegionName,
        receivers: &'a [RegionName],
        acknowledge: &'a Acknowledge,
    ) -> Self {
        Self { id, writes, receivers, acknowledge, replace: None, role: None, hosts: Vec::new() }
    }

    /// The regions whose receivers count.
    pub fn remote(&self) -> impl Iterator<Item = &RegionName> {
        self.receivers.iter().filter(|region| *region != self.writes)
    }

    /// The rule that the spec asks for; `None` if no commit shall wait.
    pub fn rule(&self) -> Option<Rule> {
        let needed = usize::from(self.acknowledge.remote);
        let names = self.remote().map(|region| receiver_name(self.id, region));
        (needed > 0).then(|| Rule::any(needed, names))
    }
}

impl Standing {
    /// Looks for the receiver of a region.
    pub fn find(id: &DatabaseId, region: &RegionName, senders: &[Sender], slots: &[Slot]) -> Self {
        let name = receiver_name(id, region);
        // PostgreSQL compares without regard to case. Who takes a copy never counts, nor who has
        // not begun to receive: that may be the receiver itself, back before it was missed.
        let claims = |sender: &&Sender| {
            sender.application_name.eq_ignore_ascii_case(&name)
                && !matches!(sender.state.as_deref(), Some("backup" | "startup"))
        };
        let (own, impostors): (Vec<_>, Vec<_>) = senders
            .iter()
            .filter(claims)
            .cloned()
            .partition(|sender| sender.slot.as_ref() == Some(&name));
        let slot = slots.iter().find(|slot| slot.name == name).cloned();
        Self { region: region.clone(), name, sender: own.into_iter().next(), impostors, slot }
    }

    /// Whether it gets WAL as it is written, and nobody else has its name.
    pub fn is_streaming(&self) -> bool {
        self.impostors.is_empty() && self.sender.as_ref().is_some_and(Sender::is_streaming)
    }
}

/// Something to say about a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// How much it weighs.
    pub weight: Weight,
    /// What it is.
    pub message: String,
    /// What to do.
    pub advice: Option<String>,
}

/// How much a remark weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Nothing is changed because of it.
    Refused,
    /// A person should look.
    Warning,
    /// What will happen.
    Note,
}

/// Collects remarks.
#[derive(Default)]
struct Remarks(Vec<Remark>);

impl Remarks {
    fn refuse(&mut self, message: impl Into<String>, advice: impl Into<String>) {
        self.add(Weight::Refused, message.into(), Some(advice.into()));
    }

    fn warn(&mut self, message: impl Into<String>, advice: impl Into<String>) {
        self.add(Weight::Warning, message.into(), Some(advice.into()));
    }

    fn note(&mut self, message: impl Into<String>) {
        self.add(Weight::Note, message.into(), None);
    }

    fn add(&mut self, weight: Weight, message: String, advice: Option<String>) {
        self.0.push(Remark { weight, message, advice });
    }
}

impl Plan {
    /// What the spec asks for.
    pub fn set(wish: &Wish<'_>, survey: &Survey, memory: Option<&Memory>) -> Self {
        let needed = usize::from(wish.acknowledge.remote);
        let receivers: Vec<Standing> = wish
            .remote()
            .map(|region| Standing::find(wish.id, region, &survey.senders, &survey.slots))
            .collect();
        let rule = wish.rule();
        let before = survey.names.value.clone();
        let after = rule.as_ref().map(ToString::to_string).unwrap_or_default();
        let old = Rule::parse(&before);
        let between = old.zip(rule).and_then(|(old, new)| {
            old.on_the_way_to(&new, &streaming(survey, &receivers)).map(|rule| rule.to_string())
        });

        let mut remarks = Remarks::default();
        may_change(survey, memory, wish.replace, &after, &mut remarks);
        names_are_distinct(&receivers, &mut remarks);
        no_impostor(&receivers, &mut remarks);
        enough(wish, needed, &receivers, &mut remarks);
        strangers(wish, &receivers, &mut remarks);
        commits_wait(survey, needed, &mut remarks);
        what_follows(wish, survey, needed, &receivers, &mut remarks);
        let by_alter_system = survey.names.by_alter_system;
        let (way, remarks) = (Way::Protect, remarks.0);
        Self { before, by_alter_system, after, between, way, receivers, remarks }
    }

    /// What was there before.
    pub fn undo(survey: &Survey, memory: &Memory, replace: Option<&str>) -> Self {
        let mut remarks = Remarks::default();
        may_change(survey, Some(memory), replace, &memory.before, &mut remarks);
        let streaming = survey.senders.iter().filter(|sender| sender.is_streaming());
        let streaming = streaming.map(|sender| sender.application_name.clone()).collect();
        match Rule::parse(&memory.before) {
            Some(rule) if !rule.is_met_by(&streaming) => remarks.warn(
                "too few of those that the value from before names are streaming: commits wait",
                "Start them, or set another value by hand.",
            ),
            Some(_) => {}
            None if survey.waiting > 0 => remarks.warn(
                format!("{} waiting commits are acknowledged at once", survey.waiting),
                "They may not be durable in another region.",
            ),
            None => remarks.note("commits wait for nobody any more"),
        }
        Self {
            before: survey.names.value.clone(),
            by_alter_system: survey.names.by_alter_system,
            after: memory.before.clone(),
            between: None,
            way: if memory.by_alter_system { Way::Restore } else { Way::Reset },
            receivers: Vec::new(),
            remarks: remarks.0,
        }
    }

    /// Whether nothing is to do.
    pub fn changes_nothing(&self) -> bool {
        let line_stays = self.way != Way::Reset || !self.by_alter_system;
        self.before == self.after && line_stays
    }

    /// What forbids it.
    pub fn refusals(&self) -> impl Iterator<Item = &Remark> {
        self.remarks.iter().filter(|remark| remark.weight == Weight::Refused)
    }
}

/// The names under which somebody streams whom we believe.
fn streaming(survey: &Survey, receivers: &[Standing]) -> BTreeSet<String> {
    let is_own = |sender: &&Sender| {
        !receivers.iter().any(|one| one.name.eq_ignore_ascii_case(&sender.application_name))
    };
    let others = survey.senders.iter().filter(|sender| sender.is_streaming()).filter(is_own);
    let others = others.map(|sender| sender.application_name.clone());
    let own = receivers.iter().filter(|one| one.is_streaming()).map(|one| one.name.clone());
    others.chain(own).collect()
}

/// Whether the value that is there may be replaced, and can be.
fn may_change(
    survey: &Survey,
    memory: Option<&Memory>,
    replace: Option<&str>,
    after: &str,
    remarks: &mut Remarks,
) {
    let now = &survey.names;
    if now.is_out_of_reach() {
        remarks.refuse(
            format!("synchronous_standby_names comes from the {}, which wins", now.source),
            "Take it out of the server's start command and restart.",
        );
    }
    for line in &survey.broken {
        remarks.refuse(
            format!("the server cannot read its configuration: {line}"),
            "Correct that line: until then a reload changes nothing.",
        );
    }
    let known = memory.is_some_and(|memory| memory.knows(&now.value));
    if now.value.is_empty() || known || now.value == after || replace == Some(&now.value) {
        return;
    }
    let value = &now.value;
    let mut what = format!("synchronous_standby_names is `{value}`, which Lifeboat did not set");
    if Rule::parse(value).is_some_and(|rule| rule.names().iter().any(|name| name == "*")) {
        what.push_str("; `*` lets anybody who receives acknowledge commits");
    }
    remarks.refuse(
        what,
        format!("If it may be replaced, name it: --replace '{}'", value.replace('\'', "'\\''")),
    );
}

fn names_are_distinct(receivers: &[Standing], remarks: &mut Remarks) {
    let mut seen = BTreeSet::new();
    for one in receivers.iter().filter(|one| !seen.insert(&one.name)) {
        remarks.refuse(
            format!("two receivers of the spec are both called {}", one.name),
            "PostgreSQL could not tell them apart: rename a region.",
        );
    }
}

/// V9: whoever has the name is counted, whatever it does with the WAL.
fn no_impostor(receivers: &[Standing], remarks: &mut Remarks) {
    for one in receivers {
        for impostor in &one.impostors {
            let also = match &one.sender {
                Some(sender) => format!(", besides the receiver ({})", sender.describe()),
                None => String::new(),
            };
            remarks.refuse(
                format!(
                    "the name {} is used by {}{also}",
                    impostor.application_name,
                    impostor.describe()
                ),
                format!(
                    "It would acknowledge commits in place of {}'s receiver, which has the slot \
                     {}. End it: SELECT pg_terminate_backend({}).",
                    one.region, one.name, impostor.pid
                ),
            );
        }
    }
}

/// Who has the slot, and still may not be whom the spec means.
fn strangers(wish: &Wish<'_>, receivers: &[Standing], remarks: &mut Remarks) {
    for one in receivers {
        let Some(sender) = &one.sender else { continue };
        if let Some(role) = wish.role.as_ref().filter(|role| **role != sender.role) {
            remarks.warn(
                format!(
                    "{} logged in as {}, and the spec's `connection` says {role}",
                    one.name, sender.role
                ),
                format!("If it is not your receiver: SELECT pg_terminate_backend({}).", sender.pid),
            );
        }
        let place = match sender.address.as_deref() {
            None => "a socket of the server's own host",
            Some(address) if wish.hosts.iter().any(|host| host == address) => address,
            Some(_) => continue,
        };
        remarks.warn(
            format!("{} connects from {place}, which is in {}", one.name, wish.writes),
            format!("Whoever loses {} loses both: run it in {}.", wish.writes, one.region),
        );
    }
}

/// With too few receivers the next commit would wait for ever.
fn enough(wish: &Wish<'_>, needed: usize, receivers: &[Standing], remarks: &mut Remarks) {
    let writes = wish.writes;
    if needed > receivers.len() {
        return remarks.refuse(
            format!(
                "remote: {needed}, and the spec has {} receivers outside {writes}, which writes now",
                receivers.len()
            ),
            "Add receivers in other regions, or lower `remote`.",
        );
    }
    // Impostors are refused for themselves.
    let streams = |one: &&Standing| one.sender.as_ref().is_some_and(Sender::is_streaming);
    let streaming = receivers.iter().filter(streams).count();
    let missing = receivers.iter().filter(|one| !streams(one));
    let missing: Vec<String> = missing.map(describe_missing).collect();
    if streaming < needed {
        return remarks.refuse(
            format!(
                "{streaming} of {needed} needed receivers are streaming, so every commit would \
                 wait: {}",
                missing.join("; ")
            ),
            format!("Start them: `lifeboat wal receive {} --here REGION`.", wish.id),
        );
    }
    for one in missing {
        remarks.warn(one, "It does not acknowledge anything until it streams.");
    }
}

fn describe_missing(one: &Standing) -> String {
    let what = match (&one.sender, &one.slot) {
        (Some(sender), _) => {
            format!("is in state {}", sender.state.as_deref().unwrap_or("unknown to this role"))
        }
        (None, Some(slot)) if slot.is_lost() => "is not there, and its slot is lost".to_owned(),
        (None, Some(_)) => "is not there".to_owned(),
        (None, None) => "is not there and has no slot".to_owned(),
    };
    format!("{} ({}) {what}", one.region, one.name)
}

/// The setting means nothing for commits that do not ask for it.
fn commits_wait(survey: &Survey, needed: usize, remarks: &mut Remarks) {
    if needed == 0 {
        return;
    }
    match survey.commit.as_deref() {
        None => remarks.warn(
            "the server's synchronous_commit cannot be seen by this role",
            "It must be on or remote_apply. Grant pg_read_all_settings.",
        ),
        Some("remote_apply") => remarks.note(
            "synchronous_commit is remote_apply: receivers replay nothing and report what is \
             durable as applied, so it means the same as on",
        ),
        Some(value) => {
            if let Some(means) = weakness(value) {
                remarks.refuse(
                    format!("synchronous_commit is {value} for everybody: {means}"),
                    "ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf();",
                );
            }
        }
    }
    for own in &survey.overrides {
        if let Some(means) = own.means() {
            remarks.warn(
                format!(
                    "{} has synchronous_commit = {} ({} sessions now): {means}",
                    own.who, own.value, own.sessions
                ),
                "What it commits is not protected. ALTER … RESET synchronous_commit, then let it \
                 connect anew.",
            );
        }
    }
}

/// What the change means for those who use the database.
fn what_follows(
    wish: &Wish<'_>,
    survey: &Survey,
    needed: usize,
    receivers: &[Standing],
    remarks: &mut Remarks,
) {
    if needed == 0 {
        return remarks.note("remote: 0: commits wait for nobody outside the server");
    }
    remarks.note(format!(
        "from then on every commit waits ({} sessions now), unless a session has set \
         synchronous_commit itself, of which only the last statement can be seen",
        survey.sessions
    ));
    let spare = receivers.iter().filter(|one| one.is_streaming()).count().saturating_sub(needed);
    remarks.note(format!(
        "{spare} of the streaming receivers can be lost without harm; with one less, commits wait \
         until one is back, or until `lifeboat wal acknowledge {} --undo`. A commit that is \
         cancelled while it waits is visible, and may not be durable elsewhere",
        wish.id
    ));
    if let OnLoss::DegradeAfter(after) = wish.acknowledge.on_loss {
        remarks.warn(
            format!("degrade_after: {after} is acted on by controllers alone"),
            "Without `lifeboat controller` and a quorum store, commits wait as with `on_loss: \
             block`, until somebody runs --undo.",
        );
    }
}

#[cfg(test)]
mod tests;
