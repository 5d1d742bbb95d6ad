//! Where a command stands: the spec, the region of this process, its state directory, and the
//! way to the repositories.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_model::spec::{Database, PostgresNode};
use lifeboat_model::{DatabaseId, NodeName, Reference, RegionName, Spec};
use lifeboat_objects::{Blocking, Options};
use lifeboat_repository::access::Access;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::plan::PlanRepository;

use crate::context::Context;

/// An accepted spec on this host.
pub struct Site<'a> {
    context: &'a Context,
    /// The spec.
    pub spec: Spec,
    /// Its file, as an absolute path.
    pub origin: PathBuf,
    /// The region of this process, if it was said.
    pub here: Option<RegionName>,
    /// The state directory.
    pub state: PathBuf,
}

impl<'a> Site<'a> {
    /// Reads the spec and prepares the way to what it names; connects to nothing.
    pub fn open(context: &'a Context) -> Outcome<Self> {
        let origin = Spec::locate(context.global.spec.as_deref(), &context.environment)?;
        let spec = Spec::open(&origin)?.accept()?;
        Self::with(context, origin, spec)
    }

    /// As `open`, for commands that run in the witness's domain too.
    pub fn open_anywhere(context: &'a Context) -> Outcome<Self> {
        let origin = Spec::locate(context.global.spec.as_deref(), &context.environment)?;
        let spec = Spec::open(&origin)?.accept()?;
        let here = context.here()?;
        match here.is_some() && here == spec.witness {
            true => Self::at(context, origin, spec, here),
            false => Self::with(context, origin, spec),
        }
    }

    /// As `open`, with a spec that was read already.
    pub fn with(context: &'a Context, origin: PathBuf, spec: Spec) -> Outcome<Self> {
        let here = context.here()?;
        if let Some(here) = &here {
            spec.region(here)?;
        }
        Self::at(context, origin, spec, here)
    }

    fn at(
        context: &'a Context,
        origin: PathBuf,
        spec: Spec,
        here: Option<RegionName>,
    ) -> Outcome<Self> {
        let origin = origin.canonicalize().unwrap_or(origin);
        // Processes that are started from here may work in other directories.
        let state = spec.state_directory(&origin, &context.environment)?;
        let state = std::path::absolute(&state).unwrap_or(state);
        Ok(Self { context, spec, origin, here, state })
    }

    /// The world of the command.
    pub fn context(&self) -> &Context {
        self.context
    }

    /// The way to repositories and keys.
    pub fn access<'b>(&'b self, blocking: &'b Blocking) -> Access<'b> {
        Access {
            spec: &self.spec,
            here: self.here.as_ref(),
            state: &self.state,
            environment: &self.context.environment,
            blocking,
            options: Options::default(),
        }
    }

    /// As `access`, for commands that PostgreSQL waits for: a store gets two attempts at least.
    pub fn access_within<'b>(&'b self, blocking: &'b Blocking, deadline: Duration) -> Access<'b> {
        let mut access = self.access(blocking);
        access.options.deadline = deadline;
        access.options.attempt_timeout = access.options.attempt_timeout.min(deadline / 2);
        access
    }

    /// Where all repositories lie, for plans that must work without the spec's environment.
    pub fn repositories(&self, access: &Access<'_>) -> Outcome<Vec<PlanRepository>> {
        let environment = &self.context.environment;
        let one = |name: &RegionName| {
            let settings = &self.spec.region(name)?.repository;
            let resolve = |text: &Option<Reference>| {
                text.as_ref().map(|text| text.resolve(environment)).transpose()
            };
            Ok(PlanRepository {
                region: name.to_string(),
                url: settings.url.resolve(environment)?,
                endpoint: resolve(&settings.endpoint)?,
                region_name: resolve(&settings.region)?,
            })
        };
        access.region_names().into_iter().map(one).collect()
    }

    /// The database that is meant: the one named, else the one whose data directory is the
    /// working directory, else the only one.
    pub fn database(&self, named: Option<&DatabaseId>) -> Outcome<(DatabaseId, &Database)> {
        let id = match (named, self.database_of_working_directory()) {
            (Some(id), _) => id.clone(),
            (None, Some(id)) => id,
            (None, None) => self.spec.only_database()?,
        };
        let database = self.spec.database(&id)?;
        Ok((id, database))
    }

    fn database_of_working_directory(&self) -> Option<DatabaseId> {
        let here = std::env::current_dir().ok()?.canonicalize().ok()?;
        let mut databases = self.spec.databases();
        databases
            .find(|(_, database)| {
                database.nodes.values().any(|node| is_same(&node.data_directory, &here))
            })
            .map(|(id, _)| id)
    }

    /// The node of a database that runs on this host: in the region of this process, and where
    /// that leaves a choice, the one whose data directory is here.
    pub fn node<'b>(
        &self,
        id: &DatabaseId,
        database: &'b Database,
    ) -> Outcome<(&'b NodeName, &'b PostgresNode)> {
        let mut nodes: Vec<_> = database.nodes.iter().collect();
        if let Some(here) = &self.here {
            nodes.retain(|(_, node)| node.region == *here);
        }
        if nodes.len() > 1 || self.here.is_none() {
            nodes.retain(|(_, node)| node.data_directory.exists());
        }
        match nodes.as_slice() {
            [only] => Ok(*only),
            [] => {
                let message = match &self.here {
                    Some(here) => format!("{id} has no node in region {here}"),
                    None => format!("no node of {id} has its data directory on this host"),
                };
                Err(Failure::new(Code::RegionUnknown, message)
                    .hint("Run it on a host of the database, or say with --here which region."))
            }
            several => {
                let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
                let message = format!("{id} could be any of {} here", names.join(", "));
                Err(Failure::new(Code::RegionUnknown, message)
                    .hint("Say with --here in which region this process runs."))
            }
        }
    }
}

fn is_same(directory: &Path, canonical: &Path) -> bool {
    directory == canonical || directory.canonicalize().is_ok_and(|path| path == canonical)
}

#[cfg(test)]
mod tests;
