//! Where a repository lies.

use std::path::{Path, PathBuf};

use lifeboat_telemetry::{Code, Failure, Outcome};
use url::Url;

use crate::Key;

/// A parsed repository URL with the options that the spec gives beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    pub(crate) place: Place,
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
}

/// What the URL names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Directory(PathBuf),
    Memory(String),
    Bucket { cloud: Cloud, bucket: String, prefix: String },
}

/// Who keeps the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cloud {
    Aws,
    Google,
    Azure,
}

impl Cloud {
    fn scheme(self) -> &'static str {
        match self {
            Self::Aws => "s3",
            Self::Google => "gs",
            Self::Azure => "az",
        }
    }
}

impl Location {
    /// Parses `file:///path`, `memory:///name` (tests), `s3://bucket/prefix`, `gs://bucket/prefix`
    /// or `az://container/prefix`.
    pub fn new(url: &str) -> Outcome<Self> {
        let parsed = Url::parse(url).map_err(|error| wrong("is not a URL").because(error))?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(wrong("holds credentials")
                .hint("Give credentials in the environment, as the cloud's own tools take them."));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() || parsed.port().is_some() {
            return Err(wrong("has a port, a query or a fragment")
                .hint("Give an endpoint of your own as `endpoint:` beside the URL."));
        }
        let cloud = match parsed.scheme() {
            "file" => return directory(&parsed),
            "memory" => return Ok(Self::of(Place::Memory(parsed.path().to_owned()))),
            "s3" => Cloud::Aws,
            "gs" => Cloud::Google,
            "az" => Cloud::Azure,
            other => {
                return Err(wrong(&format!("has the unknown scheme {other}"))
                    .hint("Use file:///path, s3://bucket, gs://bucket or az://container."));
            }
        };
        let bucket = parsed.host_str().unwrap_or_default().to_owned();
        if bucket.is_empty() {
            return Err(wrong("names no bucket").hint("Write it as s3://bucket/prefix."));
        }
        let prefix = parsed.path().trim_matches('/').to_owned();
        if !prefix.is_empty() && Key::new(prefix.as_str()).is_err() {
            return Err(wrong("has an unusable prefix")
                .hint("Prefixes are letters, digits, dot, underscore, dash and slash."));
        }
        Ok(Self::of(Place::Bucket { cloud, bucket, prefix }))
    }

    fn of(place: Place) -> Self {
        Self { place, endpoint: None, region: None }
    }

    /// The same place behind another address, as of an S3-compatible store.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: Option<String>) -> Self {
        self.endpoint = endpoint;
        self
    }

    /// The same place in the cloud's region of that name.
    #[must_use]
    pub fn with_region(mut self, region: Option<String>) -> Self {
        self.region = region;
        self
    }

    /// The URL, for people. An endpoint is left out, for it could hold credentials.
    pub fn display(&self) -> String {
        match &self.place {
            Place::Directory(root) => format!("file://{}", root.display()),
            Place::Memory(name) => format!("memory://{name}"),
            Place::Bucket { cloud, bucket, prefix } if prefix.is_empty() => {
                format!("{}://{bucket}", cloud.scheme())
            }
            Place::Bucket { cloud, bucket, prefix } => {
                format!("{}://{bucket}/{prefix}", cloud.scheme())
            }
        }
    }

    /// Errors of the HTTP client show the endpoint, so it must not hold a secret.
    pub(crate) fn check_endpoint(&self) -> Outcome<()> {
        let Some(endpoint) = &self.endpoint else {
            return Ok(());
        };
        let plain = |url: &Url| {
            matches!(url.scheme(), "http" | "https")
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
        };
        match Url::parse(endpoint) {
            Ok(url) if plain(&url) => Ok(()),
            _ => Err(Failure::new(Code::SpecInvalid, "the endpoint is no plain HTTP address")
                .hint("Write it as https://host:port, without credentials.")),
        }
    }

    /// The root directory, where the repository is one.
    pub fn directory(&self) -> Option<&Path> {
        match &self.place {
            Place::Directory(root) => Some(root),
            Place::Memory(_) | Place::Bucket { .. } => None,
        }
    }
}

fn directory(url: &Url) -> Outcome<Location> {
    let path = url.to_file_path().ok().filter(|path| path.parent().is_some());
    let path = path.ok_or_else(|| {
        wrong("names no directory").hint("Write it as file:///absolute/path, without a host.")
    })?;
    Ok(Location::of(Place::Directory(path)))
}

/// The URL itself is not repeated: it may hold what somebody took for the place of a password.
fn wrong(what: &str) -> Failure {
    Failure::new(Code::SpecInvalid, format!("the repository's URL {what}"))
}
