//! A reverse proxy before an object store that makes calls fail: by profile, or one by one.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{
    CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue, LOCATION, TRANSFER_ENCODING,
};
use hyper::{Method, Request, Response, StatusCode, Uri};

use super::profile::{Fault, Profile};
use super::server::refuse;
use super::serving::{Answer, Body, HangUp, Serving, whole};

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An object is written.
    Put,
    /// An object is read.
    Get,
    /// An object is looked at.
    Head,
    /// A page of a listing.
    List,
    /// An object is deleted.
    Delete,
    /// Anything else.
    Other,
}

/// One call that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What it does.
    pub kind: Kind,
    /// To what.
    pub path: String,
    /// What happened to it.
    pub fault: Option<Fault>,
}

/// The proxy; it ends with the value.
#[derive(Debug)]
pub struct FaultProxy {
    relay: Arc<Relay>,
    serving: Serving,
}

#[derive(Debug)]
struct Relay {
    upstream: String,
    client: reqwest::Client,
    seed: u64,
    plan: Mutex<Plan>,
}

#[derive(Debug)]
struct Plan {
    profile: Profile,
    spans: Vec<(RangeInclusive<usize>, Fault)>,
    kinds: Vec<(Kind, Fault)>,
    calls: Vec<Call>,
}

impl FaultProxy {
    /// Stands before `upstream`, as in `http://127.0.0.1:9000`. The n-th call meets the same fate
    /// in every run with the same seed.
    pub fn start(upstream: &str, profile: Profile, seed: u64) -> Result<Self> {
        let plan = Plan { profile, spans: Vec::new(), kinds: Vec::new(), calls: Vec::new() };
        let relay = Arc::new(Relay {
            upstream: upstream.to_owned(),
            client: reqwest::Client::builder().no_proxy().build()?,
            seed,
            plan: Mutex::new(plan),
        });
        let serving = Serving::start(Arc::clone(&relay))?;
        Ok(Self { relay, serving })
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> &str {
        self.serving.endpoint()
    }

    /// Another profile from now on.
    pub fn set_profile(&self, profile: Profile) {
        self.relay.plan().profile = profile;
    }

    /// Call number `call`, counted from 0 since the last [`Self::reset`], meets `fault`. Several calls may.
    pub fn fail_call(&self, call: usize, fault: Fault) {
        self.fail_calls(call..=call, fault);
    }

    /// As [`Self::fail_call`], for all calls with a number in the range.
    pub fn fail_calls(&self, calls: RangeInclusive<usize>, fault: Fault) {
        self.relay.plan().spans.push((calls, fault));
    }

    /// Every call of this kind meets `fault`.
    pub fn fail_kind(&self, kind: Kind, fault: Fault) {
        self.relay.plan().kinds.push((kind, fault));
    }

    /// Forgets all calls and whatever was to fail; the profile becomes calm.
    pub fn reset(&self) {
        let mut plan = self.relay.plan();
        *plan = Plan {
            profile: Profile::CALM,
            spans: Vec::new(),
            kinds: Vec::new(),
            calls: Vec::new(),
        };
    }

    /// The calls that arrived since the last [`Self::reset`].
    pub fn calls(&self) -> Vec<Call> {
        self.relay.plan().calls.clone()
    }

    /// How many calls of one kind arrived since the last [`Self::reset`].
    pub fn count(&self, kind: Kind) -> usize {
        self.relay.plan().calls.iter().filter(|call| call.kind == kind).count()
    }
}

impl Answer for Relay {
    async fn answer(&self, mut request: Request<Bytes>) -> Result<Response<Body>, HangUp> {
        let kind = kind(&request);
        let fault = self.fate(kind, request.uri().path());
        match fault {
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Reset) => return Err(HangUp),
            Some(Fault::Error) => return Ok(refuse(StatusCode::INTERNAL_SERVER_ERROR, "Error")),
            Some(Fault::Throttle) => {
                return Ok(refuse(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"));
            }
            Some(Fault::Deny) => return Ok(refuse(StatusCode::FORBIDDEN, "AccessDenied")),
            Some(Fault::FalseNotFound) => return Ok(refuse(StatusCode::NOT_FOUND, "NoSuchKey")),
            Some(Fault::Redirect) => return Ok(self.redirect(request.uri())),
            Some(Fault::AcknowledgeOnly) => return Ok(acknowledgement()),
            Some(Fault::Delay(pause)) => tokio::time::sleep(pause).await,
            Some(Fault::Corrupt) if kind == Kind::Put => {
                *request.body_mut() = flipped(request.body());
            }
            Some(Fault::Halve) if kind == Kind::Put => halve(&mut request),
            Some(Fault::IgnoreCondition) => drop(request.headers_mut().remove("if-none-match")),
            _ => {}
        }
        let (status, headers, body) = self.forward(request).await.map_err(|_| HangUp)?;
        let length = headers.get(CONTENT_LENGTH).cloned();
        let body = match fault {
            Some(Fault::LostReply) => return Err(HangUp),
            Some(Fault::ErrorAfterwards) => {
                return Ok(refuse(StatusCode::INTERNAL_SERVER_ERROR, "Error"));
            }
            Some(Fault::BrokenReply) if body.is_empty() => return Err(HangUp),
            Some(Fault::BrokenReply) => broken(&body),
            Some(Fault::Corrupt) if kind != Kind::Put => whole(flipped(&body)),
            Some(Fault::Halve) if kind != Kind::Put => {
                return Ok(reply(status, &headers, None, whole(body.slice(..body.len() / 2))));
            }
            _ => whole(body),
        };
        Ok(reply(status, &headers, length, body))
    }
}

impl Relay {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self, kind: Kind, path: &str) -> Option<Fault> {
        let mut plan = self.plan();
        let number = plan.calls.len();
        let hit = plan.spans.iter().find(|(calls, _)| calls.contains(&number));
        let by_number = hit.map(|(_, fault)| *fault);
        let by_kind = || plan.kinds.iter().find(|(hit, _)| *hit == kind).map(|(_, fault)| *fault);
        let by_chance = || plan.profile.draw(self.seed, number as u64, kind);
        let fault = by_number.or_else(by_kind).or_else(by_chance);
        plan.calls.push(Call { kind, path: path.to_owned(), fault });
        fault
    }

    fn redirect(&self, uri: &Uri) -> Response<Body> {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        let elsewhere = HeaderValue::try_from(format!("{}{uri}", self.upstream));
        response.headers_mut().extend(elsewhere.ok().map(|value| (LOCATION, value)));
        response
    }

    async fn forward(
        &self,
        request: Request<Bytes>,
    ) -> reqwest::Result<(StatusCode, HeaderMap, Bytes)> {
        let (head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        // The client's Host stays, for it is signed; the length follows the body.
        let mut headers = head.headers;
        headers.remove(CONTENT_LENGTH);
        headers.remove(TRANSFER_ENCODING);
        let sent = self.client.request(head.method, format!("{}{path}", self.upstream));
        let answer = sent.headers(headers).body(body).send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok((status, headers, answer.bytes().await?))
    }
}

fn kind(request: &Request<Bytes>) -> Kind {
    let query = request.uri().query().unwrap_or_default();
    match *request.method() {
        Method::GET if query.contains("list-type") || query.contains("comp=list") => Kind::List,
        Method::GET => Kind::Get,
        Method::HEAD => Kind::Head,
        Method::PUT => Kind::Put,
        Method::DELETE => Kind::Delete,
        _ => Kind::Other,
    }
}

fn reply(
    status: StatusCode,
    headers: &HeaderMap,
    length: Option<HeaderValue>,
    body: Body,
) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers.clone();
    for hop in [CONTENT_LENGTH, TRANSFER_ENCODING, HeaderName::from_static("connection")] {
        response.headers_mut().remove(hop);
    }
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length);
    }
    response
}

/// What a store says that has stored an object.
fn acknowledgement() -> Response<Body> {
    let mut response = Response::default();
    response.headers_mut().insert(ETAG, HeaderValue::from_static("\"stored\""));
    response
}

/// Half of the request's body, and nothing that could tell the store.
fn halve(request: &mut Request<Bytes>) {
    let half = request.body().slice(..request.body().len() / 2);
    *request.body_mut() = half;
    request.headers_mut().remove("x-amz-checksum-sha256");
    request
        .headers_mut()
        .insert("x-amz-content-sha256", HeaderValue::from_static("UNSIGNED-PAYLOAD"));
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x10;
    }
    bytes.into()
}

/// Half of the body, then the connection breaks.
fn broken(bytes: &Bytes) -> Body {
    let half = bytes.slice(..bytes.len() / 2);
    let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    StreamBody::new(stream::iter([Ok(Frame::data(half)), Err(reset)])).boxed_unsync()
}
