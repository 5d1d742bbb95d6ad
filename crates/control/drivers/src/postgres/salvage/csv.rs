//! Rows as COPY ... WITH (FORMAT csv, HEADER) reads them back.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lifeboat_telemetry::Outcome;

use super::super::place;

/// A file that is made with its first row.
pub(crate) struct Rows {
    path: PathBuf,
    header: String,
    file: Option<BufWriter<File>>,
    /// How many there are.
    pub(crate) count: u64,
}

impl Rows {
    pub(crate) fn new(path: PathBuf, columns: &[String]) -> Self {
        let header = line(columns.iter().map(|name| Some(name.as_str())));
        Self { path, header, file: None, count: 0 }
    }

    /// Adds a row.
    pub(crate) fn push<'a>(
        &mut self,
        values: impl Iterator<Item = Option<&'a str>>,
    ) -> Outcome<()> {
        let path = self.path.clone();
        let failed = |error| place::failed(&path, error);
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let mut options = OpenOptions::new();
                options.write(true).create(true).truncate(true).mode(0o600);
                let mut file = BufWriter::new(options.open(&self.path).map_err(failed)?);
                file.write_all(self.header.as_bytes()).map_err(failed)?;
                self.file.insert(file)
            }
        };
        file.write_all(line(values).as_bytes()).map_err(failed)?;
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// Makes it durable; the file, if there is one.
    pub(crate) fn finish(self) -> Outcome<Option<PathBuf>> {
        let path: &Path = &self.path;
        let Some(mut file) = self.file else { return Ok(None) };
        file.flush()
            .and_then(|()| file.get_ref().sync_all())
            .map_err(|error| place::failed(path, error))?;
        Ok(Some(self.path))
    }
}

/// NULL is nothing, the empty text is two quotes.
fn line<'a>(values: impl Iterator<Item = Option<&'a str>>) -> String {
    let mut line = String::new();
    for (number, value) in values.enumerate() {
        if number > 0 {
            line.push(',');
        }
        let Some(value) = value else { continue };
        if value.is_empty() || value == "\\." || value.contains([',', '"', '\n', '\r']) {
            line.push('"');
            line.push_str(&value.replace('"', "\"\""));
            line.push('"');
        } else {
            line.push_str(value);
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests;
