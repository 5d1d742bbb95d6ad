//! The files that make up a server's configuration, wherever the distribution put them.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use lifeboat_telemetry::{Code, Failure, Outcome};

use super::syntax::{Setting, parse};

/// As deep as PostgreSQL follows includes.
const DEEPEST: usize = 10;
/// No configuration is larger; what is, is something else.
const LARGEST: u64 = 16 << 20;

/// A server's configuration files and what they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// `config_file`.
    pub config_file: PathBuf,
    /// `hba_file`.
    pub hba_file: PathBuf,
    /// `ident_file`.
    pub ident_file: PathBuf,
    /// `data_directory`.
    pub data_directory: PathBuf,
    /// Files that `config_file` includes, in the order in which they are read.
    pub included: Vec<PathBuf>,
    /// The settings in effect, `postgresql.auto.conf` counted in; later ones win.
    pub settings: BTreeMap<String, String>,
}

impl Sources {
    /// Each of these files that lies outside of the data directory, in the order in which a
    /// backup stores them.
    pub fn outside(&self) -> Vec<&Path> {
        let main = [&self.config_file, &self.hba_file, &self.ident_file];
        let all = main.into_iter().chain(&self.included);
        all.map(PathBuf::as_path).filter(|path| !path.starts_with(&self.data_directory)).collect()
    }
}

/// Reads a configuration from its main file. `data_directory` is what the server was started
/// with; the file's own `data_directory` comes first.
pub fn read_sources(config_file: &Path, data_directory: Option<&Path>) -> Outcome<Sources> {
    let mut reader = Reader { included: Vec::new(), settings: BTreeMap::new() };
    reader.file(config_file, 0)?;
    let named = |settings: &BTreeMap<String, String>, name: &str| {
        settings.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    };
    let folder = config_file.parent().unwrap_or_else(|| Path::new("."));
    let data = named(&reader.settings, "data_directory")
        .or_else(|| data_directory.map(Path::to_owned))
        .unwrap_or_else(|| folder.to_owned());
    // ALTER SYSTEM writes here; it is read last and wins.
    let automatic = data.join("postgresql.auto.conf");
    if automatic.exists() {
        let before = reader.included.len();
        reader.file(&automatic, 0)?;
        reader.included.truncate(before);
    }
    // A relative name starts at the data directory, for that is where the server works.
    let place = |name: &str, usual: &str| {
        data.join(named(&reader.settings, name).unwrap_or_else(|| PathBuf::from(usual)))
    };
    Ok(Sources {
        config_file: config_file.to_owned(),
        hba_file: place("hba_file", "pg_hba.conf"),
        ident_file: place("ident_file", "pg_ident.conf"),
        data_directory: data.clone(),
        included: reader.included,
        settings: reader.settings,
    })
}

struct Reader {
    included: Vec<PathBuf>,
    settings: BTreeMap<String, String>,
}

impl Reader {
    fn file(&mut self, path: &Path, depth: usize) -> Outcome<()> {
        if depth > DEEPEST {
            return Err(Failure::new(
                Code::ClusterSettings,
                format!("{} is included too deep", path.display()),
            )
            .hint("Look for a file that includes itself."));
        }
        let content = load(path)?;
        let settings = parse(&content).map_err(|error| {
            Failure::new(Code::ClusterSettings, format!("cannot read {}", path.display()))
                .because(error)
                .hint("Correct the line; PostgreSQL would refuse it too.")
        })?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        for Setting { name, value, .. } in settings {
            let target = folder.join(&value);
            match name.as_str() {
                // Only what a guard started can follow it, and it sets nothing.
                "include" if value == super::grant_path() => {}
                "include" => self.include(target, depth)?,
                "include_if_exists" if target.exists() => self.include(target, depth)?,
                "include_if_exists" => {}
                "include_dir" => {
                    for file in config_files(&target)? {
                        self.include(file, depth)?;
                    }
                }
                _ => {
                    self.settings.insert(name, value);
                }
            }
        }
        Ok(())
    }

    fn include(&mut self, path: PathBuf, depth: usize) -> Outcome<()> {
        self.included.push(path.clone());
        self.file(&path, depth + 1)
    }
}

/// What PostgreSQL takes from an `include_dir`, in its order.
fn config_files(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| unreadable(folder, error))? {
        let name = entry.map_err(|error| unreadable(folder, error))?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.ends_with(b".conf") && !bytes.starts_with(b".") {
            let path = folder.join(name);
            if path.is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn load(path: &Path) -> Outcome<Vec<u8>> {
    let found = std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
    if found.len() > LARGEST {
        return Err(unreadable(path, ErrorKind::FileTooLarge.into()));
    }
    std::fs::read(path).map_err(|error| unreadable(path, error))
}

fn unreadable(path: &Path, error: std::io::Error) -> Failure {
    Failure::new(Code::SourceFileUnreadable, format!("cannot read {}", path.display()))
        .because(error)
        .hint("Run as the user that owns the configuration, and check its includes.")
}
