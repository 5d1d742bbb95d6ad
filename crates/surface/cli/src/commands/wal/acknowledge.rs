//! `lifeboat wal acknowledge`: commits wait for receivers in other regions.

mod report;

use lifeboat_model::DatabaseId;
use lifeboat_model::spec::{Database, WalMode};
use lifeboat_objects::Blocking;
use lifeboat_repository::access::Access;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::acknowledge::{Change, Memory, Plan, Standing, Survey, Wish};
use lifeboat_wal::connect::role_of;
use lifeboat_wal::senders::{senders, slots};
use lifeboat_wal::writing_server::{self, WritingServer};

use crate::context::Context;
use crate::record::record;
use crate::site::Site;
pub use report::Acknowledged;

/// How the act is called in the audit log.
const ACT: &str = "wal acknowledge";

/// Make commits wait until their WAL is durable in other regions
///
/// Sets synchronous_standby_names on the server that writes, from `wal.acknowledge` and
/// `wal.receivers` of the spec, counting only receivers outside the region that writes. Says first
/// what it will do and what follows; proves that enough receivers acknowledge; reads everything
/// back. Refused, with exit code 4, if too few receivers stream, if somebody else has a receiver's
/// name, or if the setting has a value that Lifeboat did not set. Needs a superuser, or a role that
/// may ALTER SYSTEM.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat wal acknowledge payments/ledger --dry-run
  lifeboat wal acknowledge payments/ledger
  lifeboat wal acknowledge payments/ledger --undo")]
pub struct Args {
    /// The database, as SERVICE/DATABASE; without it the one whose data directory is the working
    /// directory, else the only one
    #[arg(value_name = "DB")]
    database: Option<DatabaseId>,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Put back exactly what was there before the first time
    #[arg(long)]
    undo: bool,
    /// A value of synchronous_standby_names that Lifeboat did not set and may replace
    #[arg(long, value_name = "VALUE")]
    replace: Option<String>,
}

/// One call at work.
struct Call<'a> {
    args: &'a Args,
    context: &'a Context,
    site: &'a Site<'a>,
    access: &'a Access<'a>,
    id: &'a DatabaseId,
    database: &'a Database,
    server: WritingServer,
}

/// Sets it, or puts back what was there.
pub fn run(args: &Args, context: &Context) -> Outcome<Acknowledged> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let (id, database) = site.database(args.database.as_ref())?;
    let here = site.here.as_ref();
    let found = writing_server::find(&id, database, here, &context.environment);
    let server = blocking.run(found)?;
    let call = Call { args, context, site: &site, access: &access, id: &id, database, server };
    let survey = blocking.run(Survey::take(&call.server.connection))?;
    let memory = call.memory(&survey)?;
    let plan = call.plan(&survey, memory.as_ref())?;
    let report = Acknowledged::planned(&id, &call.server, &plan, (args.dry_run, args.undo));
    if args.dry_run || plan.refusals().next().is_some() {
        return Ok(report);
    }
    if plan.changes_nothing() {
        if args.undo {
            Memory::forget(&site.state, &id)?;
        }
        return Ok(report);
    }
    for line in report.plan_lines() {
        context.reporter.note(line);
    }
    context.cancel.check()?;
    call.change(&survey, memory, plan, report)
}

impl Call<'_> {
    fn plan(&self, survey: &Survey, memory: Option<&Memory>) -> Outcome<Plan> {
        let replace = self.args.replace.as_deref();
        if self.args.undo {
            let found = Memory::new(&survey.system_identifier, &survey.names);
            return match memory {
                Some(memory) => Ok(Plan::undo(survey, memory, replace)),
                None if survey.names.value.is_empty() => Ok(Plan::undo(survey, &found, replace)),
                None => Err(self.nothing_to_undo(survey)),
            };
        }
        let wal = &self.database.wal;
        let Some(acknowledge) = wal.acknowledge.as_ref().filter(|_| wal.mode == WalMode::Stream)
        else {
            let message = format!("the spec does not say for what a commit of {} waits", self.id);
            return Err(Failure::new(Code::SpecInvalid, message).hint(
                "Write `wal: { mode: stream, receivers: [REGION, …], acknowledge: { remote: 1 } }`; \
                 --undo puts back what was there before.",
            ));
        };
        let wish = Wish {
            replace,
            role: self.role(),
            hosts: self.hosts(),
            ..Wish::new(self.id, &self.server.region, &wal.receivers, acknowledge)
        };
        Ok(Plan::set(&wish, survey, memory))
    }

    /// Receivers log in with the `connection` of the node that writes.
    fn role(&self) -> Option<String> {
        let node = self.database.nodes.get(&self.server.node)?;
        role_of(&node.connection.resolve(&self.context.environment).ok()?)
    }

    /// Where the nodes of the region that writes run.
    fn hosts(&self) -> Vec<String> {
        let nodes = self.database.nodes_of(&self.server.region);
        let addresses = nodes.filter_map(|(_, node)| {
            let address = node.address.as_ref()?.resolve(&self.context.environment).ok()?;
            let (host, _) = address.rsplit_once(':')?;
            Some(host.trim_start_matches('[').trim_end_matches(']').to_owned())
        });
        addresses.chain(["127.0.0.1", "::1"].map(str::to_owned)).collect()
    }

    fn nothing_to_undo(&self, survey: &Survey) -> Failure {
        let value = &survey.names.value;
        let message = format!(
            "there is nothing to undo: synchronous_standby_names is `{value}`, and neither this \
             host nor the audit log knows of a value that Lifeboat has set",
        );
        Failure::new(Code::AcknowledgeRefused, message)
            .hint("Set it by hand: ALTER SYSTEM SET synchronous_standby_names = '…'.")
    }

    /// What was there before: this host knows, or else the audit log.
    fn memory(&self, survey: &Survey) -> Outcome<Option<Memory>> {
        let own = Memory::load(&self.site.state, self.id)?;
        let own = own.filter(|memory| memory.system_identifier == survey.system_identifier);
        if own.is_some() || (survey.names.value.is_empty() && !self.args.undo) {
            return Ok(own);
        }
        let audited = self.audited(&survey.system_identifier);
        Ok(audited.unwrap_or_else(|failure| {
            self.context.reporter.warn(format!("the audit log cannot be read: {failure}"));
            None
        }))
    }

    fn audited(&self, system_identifier: &str) -> Outcome<Option<Memory>> {
        let regions = self.access.regions()?;
        let chains = self.access.blocking.run(lifeboat_audit::verify(regions.nearest()))?;
        let mut entries: Vec<_> = chains.into_values().flatten().collect();
        entries.sort_by_key(|entry| entry.at);
        let subject = self.id.to_string();
        Ok(Memory::of_acts(entries.iter().filter_map(|entry| {
            let done = &entry.done;
            let facts = &done.facts;
            let same = done.act == ACT
                && done.subject == subject
                && facts.get("system").is_some_and(|system| system == system_identifier);
            same.then_some(facts)
        })))
    }

    fn change(
        &self,
        survey: &Survey,
        memory: Option<Memory>,
        plan: Plan,
        mut report: Acknowledged,
    ) -> Outcome<Acknowledged> {
        let (state, blocking) = (&self.site.state, self.access.blocking);
        let known = memory.filter(|memory| memory.knows(&plan.before));
        let mut memory =
            known.unwrap_or_else(|| Memory::new(&survey.system_identifier, &survey.names));
        if !self.args.undo {
            memory.set.extend(plan.between.iter().chain([&plan.after]).cloned());
            memory.save(state, self.id)?;
        }
        let connection = &self.server.connection;
        let change = Change { environment: &self.context.environment, blocking, connection };
        let from = change.apply(&plan)?;
        if self.args.undo {
            Memory::forget(state, self.id)?;
        }
        let senders = blocking.run(senders(connection))?;
        let slots = blocking.run(slots(connection))?;
        let standings = plan.receivers.iter();
        let standings = standings
            .map(|one| Standing::find(self.id, &one.region, &senders, &slots))
            .collect::<Vec<_>>();
        report.done(from, &standings);
        self.audit(&memory, &plan);
        Ok(report)
    }

    fn audit(&self, memory: &Memory, plan: &Plan) {
        let mut regions = match self.access.regions() {
            Ok(regions) => regions,
            Err(failure) => {
                return self
                    .context
                    .reporter
                    .warn(format!("this is not in the audit log: {failure}"));
            }
        };
        let mut facts = vec![
            ("system", memory.system_identifier.clone()),
            ("node", self.server.node.to_string()),
            ("before", plan.before.clone()),
            ("by_alter_system", memory.by_alter_system.to_string()),
            ("after", plan.after.clone()),
        ];
        facts.extend(plan.between.clone().map(|value| ("between", value)));
        if self.args.undo {
            facts.push(("undone", "true".to_owned()));
        }
        record(self.context, self.access, &mut regions, (ACT, self.id.to_string()), facts);
    }
}
