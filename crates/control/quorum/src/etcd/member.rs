//! One request to one member, and what its failure says about what the member did.

use bytes::Bytes;
use reqwest::{Client, Response, StatusCode, header};

use super::wire::{Authenticated, Refusal};
use super::{EtcdStore, body, wire};

/// What an answer may be long: a page of large values.
const MAX_ANSWER_BYTES: usize = 96 << 20;

#[derive(Debug)]
pub(super) struct Member {
    /// Host and port, for people.
    pub name: String,
    base: String,
    client: Client,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The member did nothing, for certain.
    Undone(String),
    /// It may have done what it was asked, or may do it yet.
    Unknown(String),
    /// It refuses, and asking again changes nothing.
    Refused(String),
    /// It does not know who asks (any more).
    Stranger(String),
}

impl Member {
    pub fn new(name: String, base: String, client: Client) -> Self {
        Self { name, base, client }
    }

    async fn post(&self, path: &str, body: Bytes, token: Option<&str>) -> Result<Bytes, Trouble> {
        let mut request = self.client.post(format!("{}{path}", self.base));
        request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let response = request.send().await.map_err(|error| {
            // Before there is a connection nothing was said.
            match error.is_connect() || error.is_builder() {
                true => Trouble::Undone(innermost(&error)),
                false => Trouble::Unknown(innermost(&error)),
            }
        })?;
        let status = response.status();
        let answer = collect(response).await?;
        match status {
            StatusCode::OK => Ok(answer),
            _ => Err(refusal(status, &answer)),
        }
    }
}

impl EtcdStore {
    /// Asks one member, as the user that this store is.
    pub(super) async fn ask(
        &self,
        member: usize,
        path: &str,
        request: Bytes,
    ) -> Result<Bytes, Trouble> {
        let Some(member) = self.members.get(member) else {
            return Err(Trouble::Undone("there is no such member".to_owned()));
        };
        if self.login.is_none() {
            return member.post(path, request, None).await;
        }
        let known = self.token.borrow().clone();
        if let Some(token) = known {
            match member.post(path, request.clone(), Some(&token)).await {
                Err(Trouble::Stranger(_)) => {}
                answer => return answer,
            }
            // Members forget tokens, and a change of any user makes all of them old.
            let mut kept = self.token.borrow_mut();
            if kept.as_ref() == Some(&token) {
                *kept = None;
            }
        }
        let newer = self.token.borrow().clone();
        let token = match newer {
            Some(token) => token,
            None => self.authenticate(member).await?,
        };
        member.post(path, request, Some(&token)).await
    }

    async fn authenticate(&self, member: &Member) -> Result<String, Trouble> {
        let Some(login) = &self.login else { return Ok(String::new()) };
        let request = body(&wire::authenticate(&login.user, &login.password));
        let answer = member.post("/v3/auth/authenticate", request, None).await;
        let answer = answer.map_err(|trouble| match trouble {
            // Whatever became of it: what was to be asked was not asked yet.
            Trouble::Unknown(why) => Trouble::Undone(why),
            Trouble::Stranger(why) => Trouble::Refused(why),
            trouble => trouble,
        })?;
        let answer: Authenticated = serde_json::from_slice(&answer)
            .map_err(|_| Trouble::Undone("an answer that is no token".to_owned()))?;
        *self.token.borrow_mut() = Some(answer.token.clone());
        Ok(answer.token)
    }
}

/// The whole answer; a limit, for whatever answers here need not be etcd.
async fn collect(mut response: Response) -> Result<Bytes, Trouble> {
    let unknown = |error: reqwest::Error| Trouble::Unknown(innermost(&error));
    let mut whole = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unknown)? {
        if whole.len().saturating_add(chunk.len()) > MAX_ANSWER_BYTES {
            return Err(Trouble::Unknown("an answer without end".to_owned()));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(Bytes::from(whole))
}

/// Sorts what a member says instead of an answer. What is not known counts as unknown.
fn refusal(status: StatusCode, answer: &[u8]) -> Trouble {
    const INVALID_ARGUMENT: u32 = 3;
    const PERMISSION_DENIED: u32 = 7;
    const FAILED_PRECONDITION: u32 = 9;
    const UNAUTHENTICATED: u32 = 16;
    let Ok(refusal) = serde_json::from_slice::<Refusal>(answer) else {
        return Trouble::Unknown(format!("HTTP status {}", status.as_u16()));
    };
    let Refusal { code, message } = refusal;
    let says = |text: &str| message.contains(text);
    match code {
        UNAUTHENTICATED => Trouble::Stranger(message),
        INVALID_ARGUMENT if says("user name is empty") || says("auth store is old") => {
            Trouble::Stranger(message)
        }
        _ if says("too many requests") || says("authentication is not enabled") => {
            Trouble::Undone(message)
        }
        INVALID_ARGUMENT | PERMISSION_DENIED | FAILED_PRECONDITION => Trouble::Refused(message),
        _ => Trouble::Unknown(message),
    }
}

/// The cause at the bottom: what lies above it repeats the URL.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
