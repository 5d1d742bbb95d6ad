//! A new copy from the repository in the place of what is there, by a process of its own.

use std::path::Path;
use std::time::Duration;

use lifeboat_telemetry::{Code, Failure, Outcome};

use super::child::Work;
use super::settings::Settings;
use super::stopped;

const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Makes the copy; what was there is kept beside it.
pub(crate) fn replace(settings: &Settings) -> Outcome<String> {
    run(settings, stopped::is_there(settings.data()?))
}

/// Makes the directory, which is not there yet.
pub(crate) fn make(settings: &Settings) -> Outcome<String> {
    run(settings, false)
}

fn run(settings: &Settings, keep_old: bool) -> Outcome<String> {
    let text = |path: &Path| path.display().to_string();
    let mut arguments = vec![
        "--spec".to_owned(),
        text(&settings.spec_path),
        "--here".to_owned(),
        settings.node()?.region.to_string(),
        "standby".to_owned(),
        "create".to_owned(),
        settings.database.to_string(),
        "--node".to_owned(),
        settings.node.to_string(),
    ];
    if keep_old {
        arguments.push("--keep-old".to_owned());
    }
    let finished = Work::begin(settings)?.lifeboat(settings, arguments, LIMIT)?;
    match finished.success() {
        true => Ok("a new copy from the repository took its place".to_owned()),
        false => {
            let message = format!("no copy of {} could be made", settings.database);
            Err(Failure::new(Code::RestoreIncomplete, message)
                .details(finished.lines())
                .hint("Run the step again: an interrupted copy is continued."))
        }
    }
}
