//! What answers of back ends mean.

use std::io;

use crate::fault::Fault;

fn kind(fault: &Fault) -> String {
    match fault {
        Fault::Absent => "absent".to_owned(),
        Fault::Exists => "exists".to_owned(),
        Fault::Transient { landed: true, .. } => "unsure".to_owned(),
        Fault::Transient { landed: false, .. } => "again".to_owned(),
        Fault::Final { code, .. } => format!("{code:?}"),
    }
}

#[test]
fn operating_system_errors_have_meanings() {
    for (errno, meaning) in [
        (28, "StoreFull"),
        (122, "StoreFull"),
        (13, "StoreDenied"),
        (1, "StoreDenied"),
        (30, "StoreDenied"),
        (20, "StoreUnavailable"),
        (5, "unsure"),
        (116, "unsure"),
        (4, "unsure"),
    ] {
        let error = io::Error::from_raw_os_error(errno);
        let wrapped =
            object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(error) };
        assert_eq!(kind(&Fault::from_directory(wrapped)), meaning, "errno {errno}");
        assert_eq!(kind(&Fault::from_io(io::Error::from_raw_os_error(errno))), meaning);
    }
}

/// As the crate wraps what `link` says; its own type is private.
#[derive(Debug)]
struct Unlinked(io::Error);

impl std::fmt::Display for Unlinked {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Unable to rename file: {}", self.0)
    }
}

impl std::error::Error for Unlinked {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn a_file_system_without_hard_links_is_not_fit() {
    for (errno, meaning) in [(1, "StoreUnfit"), (95, "StoreUnfit"), (13, "StoreDenied")] {
        let source = Box::new(Unlinked(io::Error::from_raw_os_error(errno)));
        let error = object_store::Error::Generic { store: "LocalFileSystem", source };
        assert_eq!(kind(&Fault::from_directory(error)), meaning, "errno {errno}");
    }
}

#[test]
fn http_answers_have_meanings() {
    for (said, meaning) in [
        ("status code: 500 Internal Server Error: ", "unsure"),
        ("status code: 502 Bad Gateway: ", "unsure"),
        ("status code: 503 Service Unavailable: SlowDown", "again"),
        ("status code: 429 Too Many Requests: ", "again"),
        ("status code: 408 Request Timeout: ", "unsure"),
        ("status code: 400 Bad Request: <Code>BadDigest</Code>", "unsure"),
        ("status code: 400 Bad Request: <Code>ExpiredToken</Code>", "StoreDenied"),
        ("status code: 400 Bad Request: <Code>InvalidArgument</Code>", "StoreUnavailable"),
        ("status code: 404 Not Found: <Code>NoSuchBucket</Code>", "StoreUnavailable"),
        ("status code: 404 Not Found: <Code>NoSuchKey</Code>", "absent"),
        ("status code: 301 Moved Permanently: ", "StoreUnavailable"),
        ("status code: 501 Not Implemented: ", "StoreUnfit"),
        ("status code: 507 Insufficient Storage: ", "StoreFull"),
        ("connection reset by peer", "unsure"),
    ] {
        let error = object_store::Error::Generic { store: "S3", source: said.into() };
        assert_eq!(kind(&Fault::from_store(error)), meaning, "{said}");
    }
    let forbidden = |said: &str| object_store::Error::PermissionDenied {
        path: "a".to_owned(),
        source: said.into(),
    };
    assert_eq!(kind(&Fault::from_store(forbidden("AccessDenied"))), "StoreDenied");
    assert_eq!(kind(&Fault::from_store(forbidden("QuotaExceeded"))), "StoreFull");
}
