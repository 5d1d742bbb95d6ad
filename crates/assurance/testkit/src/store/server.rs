//! A strict S3 in memory, with Google's XML dialect: what a store must do, and nothing that
//! hides a client's mistake.
//!
//! It refuses bodies whose digest is wrong, honours `If-None-Match: *`, ranges and pages, and says
//! `NoSuchBucket` where there is none. Signatures are not checked; the emulators know those.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use lifeboat_environment::{Clock, SystemClock};

use super::serving::{Answer, Body, HangUp, Serving, whole};

/// Objects by their keys.
pub type Objects = BTreeMap<String, Bytes>;

/// What a store may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misbehaviour {
    /// Creates overwrite.
    IgnoresConditions,
    /// Every page of a listing is the first one.
    IgnoresTokens,
}

/// A store with one bucket named `bucket`.
#[derive(Debug)]
pub struct S3Server {
    shelf: Arc<Shelf>,
    serving: Serving,
}

#[derive(Debug, Default)]
struct Shelf {
    objects: Mutex<BTreeMap<String, Object>>,
    misbehaviours: Mutex<Vec<Misbehaviour>>,
}

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    modified: Timestamp,
}

/// Small, so that tests see several.
const PAGE: usize = 7;

impl S3Server {
    /// The name of its bucket.
    pub const BUCKET: &str = "bucket";

    /// Starts on a free port.
    pub fn start() -> Result<Self> {
        let shelf = Arc::new(Shelf::default());
        let serving = Serving::start(Arc::clone(&shelf))?;
        Ok(Self { shelf, serving })
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> &str {
        self.serving.endpoint()
    }

    /// Ends as a killed process does; what it holds stays.
    pub fn kill(&mut self) {
        self.serving.stop();
    }

    /// Serves what it holds again, at the same address.
    pub fn revive(&mut self) -> Result<()> {
        self.serving.restart(Arc::clone(&self.shelf))
    }

    /// Behaves that way from now on.
    pub fn misbehave(&self, misbehaviour: Misbehaviour) {
        lock(&self.shelf.misbehaviours).push(misbehaviour);
    }

    /// Every object, as the store holds it.
    pub fn objects(&self) -> Objects {
        let objects = lock(&self.shelf.objects);
        objects.iter().map(|(key, object)| (key.clone(), object.bytes.clone())).collect()
    }

    /// Puts an object there behind everybody's back.
    pub fn plant(&self, key: &str, bytes: impl Into<Bytes>) {
        let object = Object { bytes: bytes.into(), modified: SystemClock.now() };
        lock(&self.shelf.objects).insert(key.to_owned(), object);
    }

    /// Holds these objects and no others from now on, but for those whose key `stays`.
    pub fn put_back(&self, objects: &Objects, stays: impl Fn(&str) -> bool) {
        lock(&self.shelf.objects).retain(|key, _| objects.contains_key(key) || stays(key));
        for (key, bytes) in objects {
            self.plant(key, bytes.clone());
        }
    }

    /// Removes an object behind everybody's back.
    pub fn lose(&self, key: &str) {
        lock(&self.shelf.objects).remove(key);
    }
}

impl Answer for Shelf {
    async fn answer(&self, request: Request<Bytes>) -> Result<Response<Body>, HangUp> {
        // Google's client escapes slashes; no test uses a plus, which forms read as a blank.
        let path = url::form_urlencoded::parse(request.uri().path().as_bytes()).next();
        let path = path.map(|(path, _)| path.into_owned()).unwrap_or_default();
        let (bucket, key) = split(&path);
        if bucket != S3Server::BUCKET {
            return Ok(refuse(StatusCode::NOT_FOUND, "NoSuchBucket"));
        }
        Ok(match (request.method(), key) {
            (&Method::GET, "") => self.list(request.uri().query().unwrap_or_default()),
            (&Method::GET | &Method::HEAD, key) => self.read(key, request.headers()),
            (&Method::PUT, key) if !key.is_empty() => self.put(key, &request),
            (&Method::DELETE, key) if !key.is_empty() => {
                lock(&self.objects).remove(key);
                reply(StatusCode::NO_CONTENT, &[], Bytes::new())
            }
            _ => refuse(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
        })
    }
}

impl Shelf {
    fn put(&self, key: &str, request: &Request<Bytes>) -> Response<Body> {
        let (headers, body) = (request.headers(), request.body());
        let sha256 = digest(&SHA256, body);
        let checksum = header(headers, "x-amz-checksum-sha256");
        if checksum.is_some_and(|sent| sent != STANDARD.encode(sha256)) {
            return refuse(StatusCode::BAD_REQUEST, "BadDigest");
        }
        let signed = header(headers, "x-amz-content-sha256").filter(|sent| sent.len() == 64);
        if signed.is_some_and(|sent| sent != hex::encode(sha256)) {
            return refuse(StatusCode::BAD_REQUEST, "XAmzContentSHA256Mismatch");
        }
        if signed.is_some() && checksum.is_none() {
            return refuse(StatusCode::BAD_REQUEST, "ChecksumRequired");
        }
        let mut objects = lock(&self.objects);
        let asked = header(headers, "if-none-match") == Some("*")
            || header(headers, "x-goog-if-generation-match") == Some("0");
        let exclusive = asked && !self.misbehaves(Misbehaviour::IgnoresConditions);
        if exclusive && objects.contains_key(key) {
            return refuse(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let object = Object { bytes: body.clone(), modified: SystemClock.now() };
        objects.insert(key.to_owned(), object);
        let tags = [("etag", etag(body)), ("x-goog-generation", "1".to_owned())];
        reply(StatusCode::OK, &tags, Bytes::new())
    }

    fn read(&self, key: &str, headers: &HeaderMap) -> Response<Body> {
        let Some(object) = lock(&self.objects).get(key).cloned() else {
            return refuse(StatusCode::NOT_FOUND, "NoSuchKey");
        };
        let printer = DateTimePrinter::new();
        let modified = printer.timestamp_to_rfc9110_string(&object.modified).unwrap_or_default();
        let mut tags = vec![("etag", etag(&object.bytes)), ("last-modified", modified)];
        let Some(range) = header(headers, "range") else {
            return reply(StatusCode::OK, &tags, object.bytes);
        };
        let length = object.bytes.len();
        match window(range, length) {
            Some((start, end)) => {
                tags.push(("content-range", format!("bytes {start}-{}/{length}", end - 1)));
                reply(StatusCode::PARTIAL_CONTENT, &tags, object.bytes.slice(start..end))
            }
            None => refuse(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange"),
        }
    }

    fn list(&self, query: &str) -> Response<Body> {
        let query: BTreeMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).collect();
        let text = |name: &str| query.get(name).map(|value| value.to_string()).unwrap_or_default();
        let token = match self.misbehaves(Misbehaviour::IgnoresTokens) {
            true => String::new(),
            false => text("continuation-token"),
        };
        let (prefix, after) = (text("prefix"), text("start-after").max(token));
        let objects = lock(&self.objects);
        let mut rest = objects
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix) && key.as_str() > after.as_str());
        let mut xml = String::from("<ListBucketResult>");
        let mut last = String::new();
        for (key, object) in rest.by_ref().take(PAGE) {
            let (size, modified) = (object.bytes.len(), object.modified);
            let _ = write!(
                xml,
                "<Contents><Key>{key}</Key><LastModified>{modified}</LastModified>\
                 <ETag>{}</ETag><Size>{size}</Size></Contents>",
                etag(&object.bytes)
            );
            last.clone_from(key);
        }
        let more = rest.next().is_some();
        if more {
            let _ = write!(xml, "<NextContinuationToken>{last}</NextContinuationToken>");
        }
        let _ = write!(xml, "<IsTruncated>{more}</IsTruncated></ListBucketResult>");
        reply(StatusCode::OK, &[("content-type", "application/xml".to_owned())], xml.into())
    }

    fn misbehaves(&self, misbehaviour: Misbehaviour) -> bool {
        lock(&self.misbehaviours).contains(&misbehaviour)
    }
}

/// Bucket and key of a path.
fn split(path: &str) -> (&str, &str) {
    let path = path.trim_start_matches('/');
    path.split_once('/').unwrap_or((path, ""))
}

/// The bytes of `bytes=1-2`, `bytes=1-` or `bytes=-2`, where the object has any of them.
fn window(range: &str, length: usize) -> Option<(usize, usize)> {
    let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (start.parse::<usize>(), end.parse::<usize>()) {
        (Ok(start), Ok(last)) => (start, last.saturating_add(1).min(length)),
        (Ok(start), Err(_)) => (start, length),
        (Err(_), Ok(tail)) => (length.saturating_sub(tail), length),
        (Err(_), Err(_)) => return None,
    };
    (start < end).then_some((start, end))
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", hex::encode(digest(&SHA256, bytes).as_ref().get(..16).unwrap_or_default()))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

pub(super) fn refuse(status: StatusCode, code: &str) -> Response<Body> {
    let body = format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>");
    reply(status, &[("content-type", "application/xml".to_owned())], body.into())
}

fn reply(status: StatusCode, headers: &[(&str, String)], body: Bytes) -> Response<Body> {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, value);
    }
    // HEAD needs the length although hyper sends no body then.
    builder = builder.header("content-length", body.len());
    builder.body(whole(body)).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
