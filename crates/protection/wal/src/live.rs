//! This moment, as the writing server sees it: who has received what, and what would be lost now.
//!
//! Nothing here is guessed: what the server does not say is not known.

use jiff::{SignedDuration, Timestamp};
use lifeboat_model::spec::Acknowledge;
use lifeboat_model::{DatabaseId, Lsn, RegionName};

use crate::acknowledge::{Rule, Standing, Survey, Wish, weakness};

/// What the server says now.
#[derive(Debug, Clone)]
pub struct Live {
    /// The end of the server's own durable WAL.
    pub flushed: Lsn,
    /// `synchronous_standby_names`.
    pub names: String,
    /// The receivers of the spec.
    pub receivers: Vec<LiveReceiver>,
    /// What would be lost with the region that writes.
    pub rpo: Rpo,
}

/// A receiver now.
#[derive(Debug, Clone)]
pub struct LiveReceiver {
    /// Who it is.
    pub standing: Standing,
    /// How much of the server's durable WAL it has not made durable.
    pub bytes_behind: Option<u64>,
    /// For how long at most that WAL has been waiting, as the server measured it last.
    pub seconds_behind: Option<f64>,
}

/// What would be lost now, if the region that writes were lost.
#[derive(Debug, Clone, PartialEq)]
pub struct Rpo {
    /// The age of the oldest commit that might be lost; `None` if that is not known.
    pub seconds: Option<f64>,
    /// Whether no acknowledged commit can be lost, now and until the setting or a role changes.
    pub promised: bool,
    /// Why, in words.
    pub reason: String,
}

impl Rpo {
    /// The server was not asked, or did not answer.
    pub fn unknown(why: &str) -> Self {
        Self { seconds: None, promised: false, reason: format!("not known: {why}") }
    }
}

/// What the spec says, and what other regions are known to hold.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The database.
    pub id: &'a DatabaseId,
    /// The region that writes.
    pub writes: &'a RegionName,
    /// The receivers of the spec.
    pub receivers: &'a [RegionName],
    /// What a commit waits for.
    pub acknowledge: Option<&'a Acknowledge>,
    /// The last commit that lies in a repository of another region.
    pub stored_elsewhere: Option<Timestamp>,
}

impl Live {
    /// Puts together what the server said.
    pub fn of(question: &Question<'_>, survey: &Survey) -> Self {
        let receivers = question.receivers.iter().map(|region| {
            let standing = Standing::find(question.id, region, &survey.senders, &survey.slots);
            LiveReceiver::new(standing, survey.flushed)
        });
        let receivers: Vec<LiveReceiver> = receivers.collect();
        let rpo = rpo(question, survey, &receivers);
        Self { flushed: survey.flushed, names: survey.names.value.clone(), receivers, rpo }
    }
}

impl LiveReceiver {
    fn new(standing: Standing, end: Lsn) -> Self {
        let sender = standing.sender.as_ref();
        let durable = sender.and_then(|sender| sender.flushed);
        let bytes_behind = durable.map(|lsn| end.0.saturating_sub(lsn.0));
        let seconds_behind = match bytes_behind {
            Some(0) => Some(0.0),
            // Since its last reply it may have come no further.
            Some(_) => sender.and_then(|sender| Some(sender.lag_seconds? + sender.silence()?)),
            None => None,
        };
        Self { standing, bytes_behind, seconds_behind }
    }

    /// What it has made durable, if it is what its name says.
    fn durable(&self) -> Option<Lsn> {
        self.standing.sender.as_ref()?.flushed
    }
}

fn rpo(question: &Question<'_>, survey: &Survey, receivers: &[LiveReceiver]) -> Rpo {
    let remote = || receivers.iter().filter(|one| one.standing.region != *question.writes);
    let doubt = match broken_promise(question, survey, &remote().collect::<Vec<_>>()) {
        Ok(reason) => return Rpo { seconds: Some(0.0), promised: true, reason },
        Err(doubt) => doubt,
    };
    let best = remote().filter_map(|one| Some((one.durable()?, &one.standing.region))).max();
    if let Some((lsn, region)) = best.filter(|(lsn, _)| *lsn >= survey.flushed) {
        let reason = format!("{region} has everything up to {lsn} at this moment, but {doubt}");
        return Rpo { seconds: Some(0.0), promised: false, reason };
    }
    let Some(stored) = question.stored_elsewhere else {
        let reason = format!(
            "not known: {doubt}, and no commit is known to lie outside {}",
            question.writes
        );
        return Rpo { seconds: None, promised: false, reason };
    };
    let seconds = survey.now.duration_since(stored).max(SignedDuration::ZERO).as_secs_f64();
    let reason = format!("at most, for {doubt}; the last commit stored elsewhere is of {stored}");
    Rpo { seconds: Some(seconds), promised: false, reason }
}

/// Why no acknowledged commit can be lost, or why one could.
fn broken_promise(
    question: &Question<'_>,
    survey: &Survey,
    remote: &[&LiveReceiver],
) -> Result<String, String> {
    let writes = question.writes;
    let Some(acknowledge) = question.acknowledge.filter(|wish| wish.remote > 0) else {
        return Err("the spec lets no commit wait for another region".to_owned());
    };
    let (id, receivers) = (question.id, question.receivers);
    let wish = Wish::new(id, writes, receivers, acknowledge);
    let needed = usize::from(acknowledge.remote);
    let names: Vec<String> = remote.iter().map(|one| one.standing.name.clone()).collect();
    let value = &survey.names.value;
    let Some(rule) = Rule::parse(value).filter(|rule| rule.guarantees(&names) >= needed) else {
        let wanted = wish.rule().map(|rule| rule.to_string()).unwrap_or_default();
        return Err(match value.as_str() {
            "" => "commits wait for nobody: synchronous_standby_names is empty".to_owned(),
            value => format!("synchronous_standby_names is {value}, and not {wanted}"),
        });
    };
    if let Some(one) = remote.iter().find(|one| !one.standing.impostors.is_empty()) {
        return Err(format!("somebody else has the name {} too", one.standing.name));
    }
    let counted = |one: &&&LiveReceiver| {
        one.standing.sender.as_ref().is_some_and(|sender| sender.is_synchronous())
    };
    let synchronous: Vec<&&LiveReceiver> = remote.iter().filter(counted).collect();
    if synchronous.len() < needed {
        return Err(format!(
            "{} of {needed} needed receivers outside {writes} are synchronous, so commits wait",
            synchronous.len()
        ));
    }
    commits_wait(survey)?;
    let shown: Vec<String> = synchronous
        .iter()
        .map(|one| {
            let region = &one.standing.region;
            match one.durable() {
                Some(lsn) => format!("{region} has acknowledged up to {lsn}"),
                None => region.to_string(),
            }
        })
        .collect();
    Ok(format!("{rule} is synchronous; {}", shown.join(", ")))
}

fn commits_wait(survey: &Survey) -> Result<(), String> {
    match survey.commit.as_deref() {
        None => return Err("this role may not see synchronous_commit".to_owned()),
        Some(value) => {
            if let Some(means) = weakness(value) {
                return Err(format!("synchronous_commit is {value}: {means}"));
            }
        }
    }
    match survey.overrides.iter().find(|own| own.means().is_some()) {
        Some(own) => Err(format!("{} has synchronous_commit = {}", own.who, own.value)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
