//! Whether the cluster that asks may write into this archive (FORMAT, "Incarnation").

use std::path::PathBuf;

use lifeboat_cluster::{ControlFile, control};
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::PushRequest;
use super::place::Places;
use crate::incarnation;

/// The cluster that asks.
pub(crate) struct Source {
    pub(crate) directory: PathBuf,
    pub(crate) control: ControlFile,
}

/// Checks what can be known without a repository: where we are, and which cluster lives there.
pub(crate) fn check(request: &PushRequest<'_>) -> Outcome<Source> {
    let database = request.database;
    let directory = request.working_directory.canonicalize().map_err(|error| {
        let shown = request.working_directory.display();
        Failure::new(Code::DataDirectoryInvalid, format!("cannot look at {shown}")).because(error)
    })?;
    let known = |node: &PathBuf| node.canonicalize().is_ok_and(|node| node == directory);
    if !request.data_directories.iter().any(known) {
        let shown = directory.display();
        let message = format!("{shown} is not the data directory of {database} in this region");
        let nodes = request.data_directories.iter().map(|node| node.display().to_string());
        return Err(Failure::new(Code::CloneRefused, message).details(nodes).hint(
            "PostgreSQL starts archive_command in its data directory. A copy elsewhere may not \
             write into the archive of its source: run `lifeboat adopt`, or name it in the spec.",
        ));
    }
    let control = control::read(&directory, request.environment)?;
    if control.system.0 != request.stream.system_identifier {
        let (is, should) = (control.system, request.stream.system_identifier);
        let message = format!("{database} is bound to cluster {should}, and this is {is}");
        return Err(Failure::new(Code::BindingConflict, message).hint(
            "A new cluster in the place of an old one needs a name of its own in the spec.",
        ));
    }
    incarnation::check(&directory, database, request.stream)?;
    Ok(Source { directory, control })
}

/// Checks in the repositories that no other incarnation of the cluster was made the source. One region
/// is enough to forbid: it may be the only one in which the grant could be written.
pub(crate) fn check_binding(request: &PushRequest<'_>, places: &Places<'_>) -> Outcome<()> {
    let (database, known) = (request.database, request.stream.binding);
    let next = known.saturating_add(1);
    let stream = request.stream.keys.stream();
    let bindings = places.ask(places.active(), |repository| async move {
        match repository.binding_number(database, next).await? {
            None => Ok(None),
            Some(_) => repository.binding(database).await,
        }
    });
    for (repository, binding) in bindings {
        if let Some(binding) = binding.filter(|binding| binding.body.stream != stream) {
            let (number, region) = (binding.body.incarnation.0, repository.region());
            let message =
                format!("incarnation {number} of {database} is the source now, says {region}");
            return Err(Failure::new(Code::CloneRefused, message).hint(
                "Stop this server if another one has taken over. If this one is the source, run \
                 `lifeboat key enroll` here, or `lifeboat adopt` to make it so.",
            ));
        }
    }
    Ok(())
}
