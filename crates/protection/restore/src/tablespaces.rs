//! Where tablespaces go.

use std::path::{Path, PathBuf};

use lifeboat_repository::manifest::Description;
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::request::{PlannedTablespace, RestoreRequest};
use crate::survey::Survey;

/// Maps every tablespace: to where the operator sends it, else to where it was.
pub(crate) fn map(
    request: &RestoreRequest,
    description: &Description,
    survey: &Survey,
) -> Outcome<Vec<PlannedTablespace>> {
    let mut unused: Vec<&(String, PathBuf)> = request.tablespaces.iter().collect();
    let mut planned: Vec<PlannedTablespace> = Vec::new();
    for tablespace in &description.tablespaces {
        let (oid, was) = (tablespace.oid, tablespace.location.clone());
        let of_this = |(old, _): &&(String, PathBuf)| *old == was || *old == oid.to_string();
        let place = match request.tablespaces.iter().find(of_this) {
            Some((_, new)) => new.clone(),
            None => usual_place(request, description, Path::new(&was)),
        };
        unused.retain(|mapping| !of_this(mapping));
        check(request, survey, &planned, oid, &place)?;
        planned.push(PlannedTablespace { oid, was, place });
    }
    match unused.first() {
        None => Ok(planned),
        Some((old, _)) => {
            let known: Vec<String> =
                planned.iter().map(|one| format!("{} ({})", one.was, one.oid)).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Err(Failure::new(Code::Usage, format!("the backup has no tablespace {old}"))
                .hint(format!("Its tablespaces are: {known}.")))
        }
    }
}

/// One that was inside the data directory stays inside.
fn usual_place(request: &RestoreRequest, description: &Description, was: &Path) -> PathBuf {
    match was.strip_prefix(&description.cluster.data_directory) {
        Ok(inside) => request.to.join(inside),
        Err(_) => was.to_owned(),
    }
}

fn check(
    request: &RestoreRequest,
    survey: &Survey,
    others: &[PlannedTablespace],
    oid: u32,
    place: &Path,
) -> Outcome<()> {
    use std::os::unix::ffi::OsStrExt;

    let shown = place.display();
    let refused = |why: &str| {
        Err(Failure::new(Code::TargetDirectory, format!("{shown}, for tablespace {oid}, {why}"))
            .hint("Send it to an empty directory of its own with --tablespace OLD=NEW."))
    };
    let plain = place.is_absolute()
        && !place.components().any(|part| matches!(part, std::path::Component::ParentDir));
    if !plain {
        return refused("is not a plain absolute path");
    }
    if others.iter().any(|other| place.starts_with(&other.place) || other.place.starts_with(place))
    {
        return refused("is, or lies in, the place of another tablespace");
    }
    if request.to.starts_with(place) {
        return refused("would hold the data directory itself");
    }
    match place.strip_prefix(&request.to) {
        Ok(inside) if !survey.is_empty_directory(inside.as_os_str().as_bytes()) => {
            refused("lies inside the data directory")
        }
        _ => Ok(()),
    }
}
