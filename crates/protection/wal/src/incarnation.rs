//! The marker in a data directory: which incarnation of the cluster this copy is, and whether it
//! may write into the archive.

use std::io::{ErrorKind, Read};
use std::path::Path;

use lifeboat_model::SystemIdentifier;
use lifeboat_repository::ids::Incarnation;
use lifeboat_repository::keys::WriterStream;
use lifeboat_telemetry::{Code, Failure, Outcome};
use serde::{Deserialize, Serialize};

use crate::durable;

/// The marker's name in the data directory.
pub const MARKER: &str = "lifeboat.incarnation";
/// The setting that says the same to whoever is connected; a server that was never restored has
/// none.
pub const INCARNATION_SETTING: &str = "lifeboat.incarnation";
const MARKER_BYTES_MAX: u64 = 16 * 1024;

/// What a restore leaves in the data directory; a cluster that was never restored has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    /// Version of this file.
    pub lifeboat_incarnation: u32,
    /// `SERVICE/DATABASE`.
    pub database: String,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// Which incarnation of it.
    pub incarnation: Incarnation,
    /// Whether this incarnation may write.
    pub granted: bool,
}

impl Marker {
    /// A marker of version 1.
    pub fn new(
        database: &str,
        system_identifier: SystemIdentifier,
        incarnation: Incarnation,
        granted: bool,
    ) -> Self {
        let database = database.to_owned();
        Self { lifeboat_incarnation: 1, database, system_identifier, incarnation, granted }
    }

    /// Reads a data directory's marker; `None` where there is none.
    pub fn read(data_directory: &Path) -> Outcome<Option<Self>> {
        let path = data_directory.join(MARKER);
        // What cannot be read may forbid what the reader is about to do.
        let unreadable = || {
            Failure::new(Code::CloneRefused, format!("cannot read {}", path.display()))
                .hint("Restore the file, or run `lifeboat adopt` if this cluster is the source.")
        };
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable().because(error)),
        };
        let mut text = String::new();
        file.take(MARKER_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| unreadable().because(error))?;
        let marker: Self =
            serde_json::from_str(&text).map_err(|error| unreadable().because(error))?;
        if marker.lifeboat_incarnation != 1 {
            return Err(unreadable().hint("A newer version of lifeboat wrote it: use that one."));
        }
        Ok(Some(marker))
    }

    /// Writes the marker durably, in one step, for the owner of the data directory.
    pub fn write(&self, data_directory: &Path) -> Outcome<()> {
        durable::write(&data_directory.join(MARKER), &self.encode()?)
    }

    /// What the file holds.
    pub fn encode(&self) -> Outcome<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| {
            Failure::new(Code::Internal, "the marker cannot be encoded").because(error)
        })?;
        text.push(b'\n');
        Ok(text)
    }
}

/// The refusal of a copy that nobody adopted.
pub fn not_adopted(marker: &Marker) -> Failure {
    let database = &marker.database;
    let message = format!("this cluster is a restored copy of {database} that was not adopted");
    Failure::new(Code::CloneRefused, message).hint(format!(
        "`lifeboat adopt {database}` makes it the source and ends the other; else turn archiving \
         off."
    ))
}

/// Refuses a data directory that is not the incarnation of the cluster that `stream` was granted to.
pub fn check(data_directory: &Path, database: &str, stream: &WriterStream) -> Outcome<()> {
    let granted = stream.incarnation;
    let shown = data_directory.display();
    let refused = |message: String, hint: &str| {
        Err(Failure::new(Code::CloneRefused, message).hint(hint.to_owned()))
    };
    match Marker::read(data_directory)? {
        // Only the first incarnation has no marker. With a later one granted, this is what was the
        // source before a restored copy was adopted.
        None if granted == Incarnation::FIRST => Ok(()),
        None => refused(
            format!(
                "{shown} is incarnation 1 of {database}, and incarnation {} writes now",
                granted.0
            ),
            "Stop this server. `lifeboat adopt` would make it the source again.",
        ),
        Some(marker)
            if marker.database != database
                || marker.system_identifier.0 != stream.system_identifier =>
        {
            refused(
                format!("{shown} was restored as {}, not as {database}", marker.database),
                "Correct the spec, or `--db`.",
            )
        }
        Some(marker) if !marker.granted => Err(not_adopted(&marker)),
        Some(marker) if marker.incarnation != granted => refused(
            format!(
                "{shown} is incarnation {} of {database}, this host's writer key is for {}",
                marker.incarnation.0, granted.0
            ),
            "If this cluster is the source, run `lifeboat key enroll`; else stop it.",
        ),
        Some(_) => Ok(()),
    }
}
