//! `lifeboat init`: a spec to begin with, from what is on this machine.

mod machine;
mod template;

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lifeboat_telemetry::{Code, Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::output::{Report, strong, table};

pub use machine::Found;

/// Write a spec to begin with, after a look at this machine
///
/// Looks for PostgreSQL clusters: Debian's configuration, running servers, data directories in
/// the usual places. Writes a commented spec with the databases it found; lines marked EDIT need
/// a person. Nothing else is written, no repository is touched.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat init
  lifeboat init --here west --output /etc/lifeboat/lifeboat.yaml")]
pub struct Args {
    /// Where to write the spec
    #[arg(short, long, value_name = "FILE", default_value = "lifeboat.yaml")]
    output: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

/// What was found and written.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Begun {
    /// The spec that was written.
    spec: PathBuf,
    /// The clusters on this machine.
    clusters: Vec<Found>,
}

impl Report for Begun {
    const COMMAND: &'static str = "init";

    fn text(&self) -> String {
        let spec = self.spec.display();
        let found = match self.clusters.as_slice() {
            [] => "No PostgreSQL cluster was found here; the spec holds an example.\n".to_owned(),
            clusters => table(
                ["Version", "Data directory", "Port", "Running", "Readable", "Found by"],
                clusters.iter().map(Found::row).collect(),
            ),
        };
        format!(
            "{found}\nWrote {spec}.\n\n{}\n  1. Edit the lines marked EDIT in {spec}.\n  \
             2. lifeboat check --spec {spec}\n  3. lifeboat repo create --spec {spec}\n",
            strong("What to do next:")
        )
    }
}

/// Looks at the machine and writes the spec.
pub fn run(args: &Args, context: &Context) -> Outcome<Begun> {
    let here = context.here()?;
    let clusters = machine::look(Path::new("/"), &context.environment);
    let text = template::spec(&clusters, here.as_ref(), context.environment.clock().now());
    write(&args.output, args.force, &text)?;
    Ok(Begun { spec: args.output.clone(), clusters })
}

fn write(path: &Path, force: bool, text: &str) -> Outcome<()> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o644);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let written = options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| {
        let exists = error.kind() == std::io::ErrorKind::AlreadyExists;
        Failure::new(Code::LocalFile, format!("cannot write {}", path.display()))
            .because(error)
            .hint(if exists {
                "Name another file with --output, or replace this one with --force."
            } else {
                "Name a file that this user may write with --output."
            })
    })
}

#[cfg(test)]
mod tests;
