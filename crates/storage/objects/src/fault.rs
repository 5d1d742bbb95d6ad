//! What an answer of a back end means: absent, there already, worth another try, or final.

use std::error::Error;
use std::io;
use std::time::Duration;

use lifeboat_telemetry::{Code, duration};
use object_store::client::{HttpError, HttpErrorKind};

/// Why one attempt did not succeed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The store says that there is no such object.
    Absent,
    /// The store refused to create, because the name is taken or being taken.
    Exists,
    /// Another attempt may work. `landed` says whether a write may have been carried out although
    /// the answer did not arrive.
    Transient { landed: bool, error: BoxedError },
    /// Another attempt cannot help. `{store}` in the hint stands for the location.
    Final { code: Code, error: BoxedError, hint: &'static str },
}

pub(crate) type BoxedError = Box<dyn Error + Send + Sync>;

/// HTTP 400 is how stores say that a body arrived damaged or too slowly; a second try is right.
const DAMAGED_ON_THE_WAY: [&str; 6] = [
    "BadDigest",
    "InvalidDigest",
    "IncompleteBody",
    "RequestTimeout",
    "ContentSHA256Mismatch",
    "ChecksumMismatch",
];
const NO_BUCKET: [&str; 4] =
    ["NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted", "bucket does not exist"];
const EXPIRED: [&str; 3] = ["ExpiredToken", "InvalidToken", "TokenRefreshRequired"];
/// How the crate says that a range starts behind the object's end, where no HTTP status does.
const BEYOND_THE_END: &str = "but object was only";
const EPERM: i32 = 1;
const METADATA_SERVICE: &str = "169.254.169.254";

impl Fault {
    /// A failed try whose outcome is unknown.
    pub(crate) fn unknown(error: impl Into<BoxedError>) -> Self {
        Self::Transient { landed: true, error: error.into() }
    }

    /// No answer in time.
    pub(crate) fn silence(limit: Duration) -> Self {
        Self::unknown(format!("no answer within {}", duration(limit)))
    }

    /// Reads an error of a cloud or of the memory store.
    pub(crate) fn from_store(error: object_store::Error) -> Self {
        use object_store::Error as Said;
        let text = chain(&error);
        match &error {
            Said::NotFound { .. } => not_found(&text, error),
            Said::AlreadyExists { .. } | Said::Precondition { .. } | Said::NotModified { .. } => {
                Self::Exists
            }
            Said::PermissionDenied { .. } | Said::Unauthenticated { .. } => refused(&text, error),
            Said::NotImplemented { .. } | Said::NotSupported { .. } => unfit(error),
            _ => match status(&text) {
                Some(status) => from_status(status, &text, error),
                None => from_transport(&text, error),
            },
        }
    }

    /// Reads an error of the file system.
    pub(crate) fn from_directory(error: object_store::Error) -> Self {
        match &error {
            object_store::Error::NotFound { .. } => Self::Absent,
            object_store::Error::AlreadyExists { .. } => Self::Exists,
            _ => match find::<io::Error>(&error) {
                Some(io) if lacks_links(io, &error) => Self::Final {
                    code: Code::StoreUnfit,
                    error: error.into(),
                    hint: "The file system of {store} has no hard links: use another one.",
                },
                Some(io) => Self::from_kind(io.kind(), error),
                None => from_transport(&chain(&error), error),
            },
        }
    }

    /// Reads an error of the operating system.
    pub(crate) fn from_io(error: io::Error) -> Self {
        Self::from_kind(error.kind(), error)
    }

    fn from_kind(kind: io::ErrorKind, error: impl Into<BoxedError>) -> Self {
        use io::ErrorKind as Kind;
        match kind {
            Kind::StorageFull | Kind::QuotaExceeded => full(error),
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => Self::Final {
                code: Code::StoreDenied,
                error: error.into(),
                hint: "Let the user that runs Lifeboat read and write {store}.",
            },
            Kind::NotADirectory
            | Kind::IsADirectory
            | Kind::InvalidFilename
            | Kind::FileTooLarge => {
                unusable(error, "Check that {store} is a directory for Lifeboat alone.")
            }
            _ => Self::unknown(error),
        }
    }
}

/// Whether the last step of a put failed as `link` does where there are no hard links.
fn lacks_links(io: &io::Error, error: &object_store::Error) -> bool {
    let unsupported = io.kind() == io::ErrorKind::Unsupported || io.raw_os_error() == Some(EPERM);
    unsupported && chain(error).contains("Unable to rename file")
}

fn not_found(text: &str, error: object_store::Error) -> Fault {
    if NO_BUCKET.iter().any(|code| text.contains(code)) {
        return unusable(error, "Create the bucket of {store}, or correct its name or region.");
    }
    Fault::Absent
}

fn refused(text: &str, error: object_store::Error) -> Fault {
    if text.contains("QuotaExceeded") {
        return full(error);
    }
    let hint = if text.contains("RequestTimeTooSkewed") {
        "Set this machine's clock: {store} refuses requests that are minutes off."
    } else {
        "Check the credentials in the environment and what they allow below {store}."
    };
    Fault::Final { code: Code::StoreDenied, error: error.into(), hint }
}

fn from_status(status: u16, text: &str, error: object_store::Error) -> Fault {
    let says = |codes: &[&str]| codes.iter().any(|code| text.contains(code));
    match status {
        400 if says(&EXPIRED) => refused(text, error),
        400 if !says(&DAMAGED_ON_THE_WAY) => {
            unusable(error, "The store does not understand the request: check {store}.")
        }
        401 | 403 => refused(text, error),
        404 => not_found(text, error),
        405 | 501 => unfit(error),
        416 => too_short(error),
        429 | 503 => Fault::Transient { landed: false, error: error.into() },
        507 => full(error),
        300..400 => unusable(error, "The bucket of {store} lies elsewhere: correct its region."),
        _ => Fault::unknown(error),
    }
}

fn from_transport(text: &str, error: object_store::Error) -> Fault {
    if text.contains(BEYOND_THE_END) {
        return too_short(error);
    }
    let unsent =
        find::<HttpError>(&error).is_some_and(|http| http.kind() == HttpErrorKind::Connect);
    if unsent && text.contains(METADATA_SERVICE) {
        return Fault::Final {
            code: Code::StoreDenied,
            error: error.into(),
            hint: "Put credentials for {store} into the environment: there are none, and this \
                   machine has no metadata service.",
        };
    }
    Fault::Transient { landed: !unsent, error: error.into() }
}

/// The crate tells the HTTP status of most failures in words only.
fn status(text: &str) -> Option<u16> {
    let (_, after) = text.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

fn chain(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn full(error: impl Into<BoxedError>) -> Fault {
    let hint = "Make room in {store} or raise its quota.";
    Fault::Final { code: Code::StoreFull, error: error.into(), hint }
}

fn unusable(error: impl Into<BoxedError>, hint: &'static str) -> Fault {
    Fault::Final { code: Code::StoreUnavailable, error: error.into(), hint }
}

fn too_short(error: impl Into<BoxedError>) -> Fault {
    let hint = "The object is shorter than it must be: run `lifeboat repo check` on {store}.";
    Fault::Final { code: Code::ObjectDamaged, error: error.into(), hint }
}

fn unfit(error: impl Into<BoxedError>) -> Fault {
    let hint = "{store} must support conditional writes (If-None-Match): use another store.";
    Fault::Final { code: Code::StoreUnfit, error: error.into(), hint }
}
