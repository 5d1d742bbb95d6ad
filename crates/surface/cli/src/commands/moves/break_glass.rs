//! `lifeboat failover --break-glass`: a person moves a service although no quorum answers.
//!
//! The command creates the next epoch in the repositories and leaves a permission for the agent of
//! this host, which does the rest below the guard (ADR 0016). It begins nothing that it could not
//! do again: a second run with the same epoch only moves the end of the permission.

mod local;

use std::time::Duration;

use jiff::Timestamp;
use lifeboat_drivers::{EpochArchive, Grant, KnownEpoch, RepositoryEpochs};
use lifeboat_environment::{SystemTimer, Timer};
use lifeboat_failover::Service;
use lifeboat_model::{RegionName, ServiceName, TimeSpan};
use lifeboat_objects::Blocking;
use lifeboat_quorum::{
    Beginning, Degraded, EpochRecord, Fence, FenceProof, Nodes, StoreError, Synchronous,
};
use lifeboat_telemetry::{Code, Failure, Outcome, duration};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::control::{Control, FENCE_STATEMENT, person, writer};
use crate::output::{moment, strong, table};
use crate::record::record;
use crate::site::Site;
use local::Local;

/// No permission is longer: who needs more has had the time for a quorum store.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// What is asked of whoever breaks the glass.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) service: &'a ServiceName,
    pub(super) to: &'a RegionName,
    pub(super) statement: Option<&'a str>,
    pub(super) lasting: TimeSpan,
    pub(super) reason: &'a str,
    pub(super) dry_run: bool,
}

/// A move without a quorum.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BrokenGlass {
    /// The service.
    service: String,
    /// The epoch that was created for it, or would be.
    epoch: u64,
    /// The region that writes.
    region: String,
    /// The repositories that have the epoch's object.
    known_to: Vec<String>,
    /// Until when it may write without a lease.
    until: String,
    /// Whether the permission was there already, and only its end was moved.
    extended: bool,
    /// Its nodes.
    nodes: Vec<NodeShown>,
    /// What was found on the way.
    remarks: Vec<String>,
}

/// A node that writes without a lease.
#[derive(Debug, Serialize, JsonSchema)]
struct NodeShown {
    /// `SERVICE/DATABASE`.
    database: String,
    /// Its name.
    node: String,
    /// What it is now.
    state: String,
}

impl BrokenGlass {
    pub(super) fn text(&self, dry_run: bool) -> String {
        let Self { service, epoch, region, until, extended, .. } = self;
        let what = match (dry_run, extended) {
            (true, _) => "would be created for",
            (false, true) => "goes on for",
            (false, false) => "was created for",
        };
        let heading = format!("epoch {epoch} of {service} {what} {region}, without a quorum");
        let row = |node: &NodeShown| [&node.database, &node.node, &node.state].map(String::clone);
        let rows = self.nodes.iter().map(row).collect();
        let mut text = format!("{}\n{}", strong(&heading), table(["database", "node", "is"], rows));
        for remark in &self.remarks {
            text += &format!("{remark}\n");
        }
        text += &match dry_run {
            true => "Nothing was changed (--dry-run).\n".to_owned(),
            false => format!(
                "It may write until {until}, without a lease. Run the same command again to extend \
                 that. When the quorum store is back: lifeboat apply --adopt\n"
            ),
        };
        text
    }
}

/// Moves it, or says what would be done.
pub(super) fn run(wanted: &Wanted<'_>, context: &Context) -> Outcome<BrokenGlass> {
    let site = Site::open(context)?;
    let control = Control::open(&site)?;
    let service = control.service(wanted.service)?;
    let nodes = service.nodes_in(wanted.to)?;
    let local = Local::find(&site, &control, service, wanted.to, &nodes)?;
    refuse_quorum(&control, wanted)?;
    let lasting = lasting(wanted)?;
    let epochs = RepositoryEpochs::new(&site.spec, &context.environment, writer(&site)?)?;
    let known = control.runtime.block_on(epochs.highest(&service.name))?;
    let remembered = local.remembered()?;
    let present = local.present(known.as_ref())?;
    let highest = known.as_ref().map_or(0, |known| known.epoch).max(remembered);
    let extended = present.is_some();
    let epoch = present.as_ref().map_or_else(|| highest.saturating_add(1), |grant| grant.epoch);
    let mut remarks = vec![told(known.as_ref(), remembered)];
    let at = context.environment.clock().now();
    let ends_at = at.checked_add(lasting).unwrap_or(at);
    let mut known_to = Vec::new();
    if !wanted.dry_run {
        refuse_without_statement(wanted)?;
        let mut required = present.and_then(|grant| grant.required);
        if !extended {
            required = local.seal(epoch.saturating_sub(1), &mut remarks);
            let next = next_epoch(service, wanted, &nodes, epoch, at, context);
            known_to = create(&control, &epochs, service, wanted.to, &next)?;
        }
        let now = context.environment.clock().elapsed();
        let until_ms = u64::try_from((now + lasting).as_millis()).unwrap_or(0);
        local.permit(|database, node| Grant {
            service: service.name.clone(),
            database: database.clone(),
            node: node.clone(),
            epoch,
            required,
            boot: Grant::this_boot(),
            until_ms,
            ends_at,
            given_at: at,
            by: person(context),
            statement: FENCE_STATEMENT.to_owned(),
        })?;
        tell_audit(&site, context, wanted, epoch, ends_at);
        local.wait(context)?;
    }
    Ok(BrokenGlass {
        service: service.name.to_string(),
        epoch,
        region: wanted.to.to_string(),
        known_to,
        until: moment(ends_at),
        extended,
        nodes: local.shown()?,
        remarks,
    })
}

fn lasting(wanted: &Wanted<'_>) -> Outcome<Duration> {
    let lasting = wanted.lasting.duration();
    match lasting.is_zero() || lasting > LONGEST {
        false => Ok(lasting),
        true => Err(Failure::new(Code::Usage, format!("--for {} is no time", wanted.lasting))
            .hint(format!("Say up to {}; run it again to extend it.", duration(LONGEST)))),
    }
}

/// Where a quorum answers, it decides. It is asked for a whole lease: an election takes a moment,
/// and nobody who had a lease from it can have one after that.
fn refuse_quorum(control: &Control, wanted: &Wanted<'_>) -> Outcome<()> {
    let end = SystemTimer.elapsed() + control.timing.lease;
    loop {
        let read = control.runtime.block_on(control.store.read(control.keys.all(), 0));
        let (message, hint) = match read {
            Err(StoreError::Unavailable(_)) if wanted.dry_run => return Ok(()),
            Err(StoreError::Unavailable(_)) if SystemTimer.elapsed() >= end => return Ok(()),
            Err(StoreError::Unavailable(_)) => {
                control.runtime.block_on(async { SystemTimer.sleep(control.poll()).await });
                continue;
            }
            Ok(_) => (
                "the quorum store answers".to_owned(),
                format!(
                    "Run `lifeboat failover {}` without --break-glass; if `lifeboat status` says \
                     that its epoch is refused, `lifeboat apply --adopt`.",
                    wanted.service
                ),
            ),
            Err(error) => (
                error.to_string(),
                "It is there: repair what it says, and move the service by it.".to_owned(),
            ),
        };
        return Err(Failure::new(Code::MoveRefused, message).hint(hint));
    }
}

fn refuse_without_statement(wanted: &Wanted<'_>) -> Outcome<()> {
    if wanted.statement == Some(FENCE_STATEMENT) {
        return Ok(());
    }
    let message = "nothing proves that the old primary cannot write";
    Err(Failure::new(Code::MoveRefused, message).hint(format!(
        "Switch it off or cut it off from its clients yourself, then add --statement \
         '{FENCE_STATEMENT}'. If that is wrong, two servers write."
    )))
}

fn told(known: Option<&KnownEpoch>, remembered: u64) -> String {
    let Some(KnownEpoch { epoch, region, repositories, .. }) = known else {
        return format!(
            "No repository that answers knows an epoch; this host remembers {remembered}."
        );
    };
    let places: Vec<&str> = repositories.iter().map(RegionName::as_str).collect();
    let region = region.as_ref().map_or("nobody who can be told", RegionName::as_str);
    format!(
        "The highest epoch is {epoch}, for {region}, in the repository of {}; this host remembers \
         {remembered}.",
        places.join(", ")
    )
}

fn next_epoch(
    service: &Service,
    wanted: &Wanted<'_>,
    nodes: &Nodes,
    epoch: u64,
    at: Timestamp,
    context: &Context,
) -> EpochRecord {
    let statement = format!("{FENCE_STATEMENT} ({})", wanted.reason);
    EpochRecord::first(Beginning {
        epoch,
        region: wanted.to.clone(),
        holders: nodes.clone(),
        fence: Fence {
            epoch: epoch.saturating_sub(1),
            proof: FenceProof::Person { name: person(context), statement },
            at,
        },
        synchronous: Synchronous::default(),
        degraded: Some(Degraded { since: at, why: "moved without a quorum".to_owned() }),
        at,
        spec: service.digest.clone(),
    })
}

/// The object must lie where the service goes; elsewhere as far as anybody answers.
fn create(
    control: &Control,
    epochs: &RepositoryEpochs,
    service: &Service,
    to: &RegionName,
    next: &EpochRecord,
) -> Outcome<Vec<String>> {
    let known = control.runtime.block_on(epochs.record(&service.name, next))?;
    if !known.contains(to) {
        let lines = epochs.away().into_iter().map(|away| format!("{}: {}", away.region, away.why));
        let message = format!("the repository of {to} did not take epoch {}", next.epoch);
        return Err(Failure::new(Code::StoreUnavailable, message)
            .details(lines)
            .hint("Nothing was promoted. Repair it, and run it again: it takes the next number."));
    }
    Ok(known.iter().map(ToString::to_string).collect())
}

/// What a person did is told where it can be; the object itself names person and statement.
fn tell_audit(
    site: &Site<'_>,
    context: &Context,
    wanted: &Wanted<'_>,
    epoch: u64,
    ends_at: Timestamp,
) {
    let facts = [
        ("epoch", epoch.to_string()),
        ("to", wanted.to.to_string()),
        ("by", person(context)),
        ("statement", FENCE_STATEMENT.to_owned()),
        ("reason", wanted.reason.to_owned()),
        ("until", ends_at.to_string()),
    ];
    let told = Blocking::new().and_then(|blocking| {
        let access = site.access(&blocking);
        let mut regions = access.regions()?;
        let act = ("failover --break-glass", wanted.service.to_string());
        record(context, &access, &mut regions, act, facts);
        Ok(())
    });
    if let Err(failure) = told {
        context.reporter.warn(format!("this is not in the audit log: {failure}"));
    }
}
