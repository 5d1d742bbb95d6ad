//! `lifeboat guard`: PostgreSQL's parent, and the directories that only it can start.

pub mod borrow;
pub mod init;
pub mod manage;
pub mod run;
pub mod status;
pub mod step;
pub mod unmanage;

use schemars::JsonSchema;
use serde::Serialize;

/// Be PostgreSQL's parent, which kills it when its lease is over
#[derive(Debug, clap::Subcommand)]
pub enum Guard {
    Run(run::Args),
    Status(status::Args),
    Manage(manage::Args),
    Unmanage(unmanage::Args),
    Init(init::Args),
    Step(step::Args),
    Borrow(borrow::Args),
}

/// Which files of a server's configuration refuse other starts now, or do no more.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Configuration {
    /// `SERVICE/DATABASE`.
    database: String,
    /// The data directory.
    data_directory: String,
    /// Every file that a start may read first.
    files: Vec<String>,
    /// Those of them that were changed now.
    changed: Vec<String>,
}

impl Configuration {
    fn new(
        database: String,
        data_directory: &std::path::Path,
        managed: &lifeboat_drivers::guard::Managed,
    ) -> Self {
        let shown = |files: &[std::path::PathBuf]| {
            files.iter().map(|file| file.display().to_string()).collect()
        };
        let data_directory = data_directory.display().to_string();
        let (files, changed) = (shown(&managed.files), shown(&managed.changed));
        Self { database, data_directory, files, changed }
    }

    fn lines(&self) -> String {
        let line = |file: &String| {
            let what = if self.changed.contains(file) { "changed" } else { "was so already" };
            format!("  {file}: {what}\n")
        };
        self.files.iter().map(line).collect()
    }
}
