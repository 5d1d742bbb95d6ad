//! Users and rights of etcd: what an administrator does when daemons are enrolled.
//!
//! Everything here can be repeated: it says what is to be, and changes what is not.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lifeboat_telemetry::Outcome;
use serde::Deserialize;
use serde_json::{Value, json};

use super::race::{Answer, Care, Race};
use super::wire::{Header, end_of};
use super::{EtcdAccess, EtcdStore, body};
use crate::{Right, Rights, StoreError};

/// etcd's own administrator; authentication cannot be enabled without it.
const ROOT: &str = "root";

/// A cluster's users. Belongs to one thread with a tokio runtime.
#[derive(Debug)]
pub struct EtcdAdmin {
    store: EtcdStore,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    header: Header,
    perm: Vec<Permission>,
}

/// A right as etcd has it; reading is the kind that is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
struct Permission {
    #[serde(rename = "permType")]
    kind: String,
    key: String,
    range_end: String,
}

impl Answer for Told {
    fn header(&self) -> Header {
        self.header
    }
}

impl EtcdAdmin {
    /// As the user of `access`, who must be etcd's root once authentication is enabled.
    pub fn new(access: &EtcdAccess, timeout: Duration) -> Outcome<Self> {
        Ok(Self { store: EtcdStore::new(access, timeout)? })
    }

    /// Makes root with this password and enables authentication.
    pub async fn enable(&self, password: &str) -> Result<(), StoreError> {
        self.add_user(ROOT, password).await?;
        self.unless("/v3/auth/role/add", &json!({ "name": ROOT }), "already exists").await?;
        self.give(ROOT, ROOT).await?;
        self.tell("/v3/auth/enable", &json!({})).await.map(drop)
    }

    /// Whether authentication is enabled, and this administrator is let in.
    pub async fn is_enabled(&self) -> Result<bool, StoreError> {
        match self.tell("/v3/auth/role/get", &json!({ "role": ROOT })).await {
            Ok(_) => Ok(true),
            Err(StoreError::Unavailable(why)) if why.contains("is not enabled") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a user with exactly these rights; one that exists gets this password.
    pub async fn set_user(
        &self,
        user: &str,
        password: &str,
        rights: &Rights,
    ) -> Result<(), StoreError> {
        self.set_rights(user, rights).await?;
        self.add_user(user, password).await?;
        self.give(user, user).await
    }

    /// Gives a user's role exactly these rights.
    pub async fn set_rights(&self, user: &str, rights: &Rights) -> Result<(), StoreError> {
        self.unless("/v3/auth/role/add", &json!({ "name": user }), "already exists").await?;
        let known = self.tell("/v3/auth/role/get", &json!({ "role": user })).await?.perm;
        let known: BTreeSet<(String, String, bool)> =
            known.into_iter().map(|one| (one.key, one.range_end, one.kind == "WRITE")).collect();
        let wanted: BTreeSet<_> = rights.0.iter().map(bounds).collect();
        // One range has one kind of right in etcd: what changes its kind is taken away first.
        for (key, range_end, _) in known.difference(&wanted) {
            let range = json!({ "role": user, "key": key, "range_end": range_end });
            self.unless("/v3/auth/role/revoke", &range, "not granted").await?;
        }
        for (key, range_end, write) in wanted.difference(&known) {
            let kind = if *write { "WRITE" } else { "READ" };
            let right = json!({ "permType": kind, "key": key, "range_end": range_end });
            let grant = json!({ "name": user, "perm": right });
            self.tell("/v3/auth/role/grant", &grant).await?;
        }
        Ok(())
    }

    /// Takes a user and its rights away.
    pub async fn remove_user(&self, user: &str) -> Result<(), StoreError> {
        self.unless("/v3/auth/user/delete", &json!({ "name": user }), "not found").await?;
        self.unless("/v3/auth/role/delete", &json!({ "role": user }), "not found").await
    }

    async fn add_user(&self, user: &str, password: &str) -> Result<(), StoreError> {
        let whole = json!({ "name": user, "password": password });
        match self.tell("/v3/auth/user/add", &whole).await {
            Err(StoreError::Denied(why)) if why.contains("already exists") => {
                self.tell("/v3/auth/user/changepw", &whole).await.map(drop)
            }
            told => told.map(drop),
        }
    }

    async fn give(&self, user: &str, role: &str) -> Result<(), StoreError> {
        let grant = json!({ "user": user, "role": role });
        self.tell("/v3/auth/user/grant", &grant).await.map(drop)
    }

    /// As `tell`, where one refusal means that it is so already.
    async fn unless(&self, path: &'static str, what: &Value, so: &str) -> Result<(), StoreError> {
        match self.tell(path, what).await {
            Err(StoreError::Denied(why)) if why.contains(so) => Ok(()),
            told => told.map(drop),
        }
    }

    async fn tell(&self, path: &'static str, what: &Value) -> Result<Told, StoreError> {
        let deadline = self.store.deadline();
        Race::new(&self.store, path, body(what), Care::Once, deadline).next().await
    }
}

/// First key, end and kind of a right.
fn bounds(right: &Right) -> (String, String, bool) {
    let end = if right.below { end_of(&right.key) } else { Vec::new() };
    (STANDARD.encode(&right.key), STANDARD.encode(end), right.write)
}
