//! Who a daemon is: a key that signs orders, a certificate for TLS, a user of etcd (F17).
//!
//! The authority ([`Authority`]) is a folder on one machine of an administrator. It certifies the
//! signing key of each daemon; whoever reads an order knows the authority's public key and needs
//! nothing else to check it ([`SignedStore`]). What etcd lets a daemon write is another, independent
//! line ([`rights`]).

mod authority;
mod invitation;
mod rights;
mod signed;

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use lifeboat_model::RegionName;
use lifeboat_repository::crypt::{SecretKey, SigningKey, signature_holds};
use lifeboat_repository::ids::VerifyingKey;
use lifeboat_repository::keys::write_secret_file;
use lifeboat_telemetry::{Code, Failure, Outcome};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use authority::{Authority, Issued, ServerCertificate};
pub use invitation::{Invitation, Sealed};
pub use rights::{Right, Rights};
pub use signed::SignedStore;

use crate::etcd::{EtcdAccess, Login};

const CERTIFICATE: &[u8] = b"lifeboat/1/identity\0";

/// What a daemon may order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Decides: epochs, orders, runs.
    Controller,
    /// A person's commands: starts and ends runs.
    Operator,
    /// Carries orders out, and gives none.
    Agent,
}

impl Role {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Operator => "operator",
            Self::Agent => "agent",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Controller, Self::Operator, Self::Agent]
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| "neither controller nor operator nor agent".to_owned())
    }
}

/// The authority's word on whose a signing key is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The daemon's name, which is also its user of etcd.
    pub name: String,
    /// What it may order.
    pub role: Role,
    /// The region that it is in.
    pub region: RegionName,
    /// Its public key.
    pub key: VerifyingKey,
    /// When it was issued; for display.
    pub issued_at: Timestamp,
    /// The authority's signature over all of that, base64.
    signature: String,
}

impl Certificate {
    fn issue(mut self, root: &SigningKey) -> Self {
        self.signature = STANDARD.encode(root.sign(&self.message()));
        self
    }

    /// Whether this authority issued it.
    pub fn holds(&self, root: &VerifyingKey) -> bool {
        let signature = STANDARD.decode(&self.signature).unwrap_or_default();
        signature_holds(&root.0, &self.message(), &signature)
    }

    /// No name contains a zero byte, so that no two certificates have one message.
    fn message(&self) -> Vec<u8> {
        let Self { name, role, region, key, issued_at, .. } = self;
        let words = format!("{name}\0{}\0{region}\0{issued_at}\0", role.name());
        [CERTIFICATE, words.as_bytes(), &key.0].concat()
    }
}

/// Everything that a daemon has of its own. A secret file of its host.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    lifeboat_identity: u32,
    /// Who it is.
    pub certificate: Certificate,
    seed: Zeroizing<String>,
    /// The authority's public key.
    pub root: VerifyingKey,
    /// The authority of TLS certificates, PEM.
    pub tls_authority: String,
    /// Its certificate, PEM.
    pub tls_certificate: String,
    tls_key: Zeroizing<String>,
    password: Zeroizing<String>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = &self.certificate;
        formatter.debug_struct("Identity").field("certificate", certificate).finish_non_exhaustive()
    }
}

impl Identity {
    /// The name of its file in a state directory.
    pub const FILE: &str = "identity.json";

    /// Reads the file; nothing if there is none, as where nobody was enrolled.
    pub fn find(path: &Path) -> Outcome<Option<Self>> {
        match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            _ => Self::load(path).map(Some),
        }
    }

    /// Reads the file; refuses one that others can read.
    pub fn load(path: &Path) -> Outcome<Self> {
        let text = read_secret(path)?;
        let identity: Self = serde_json::from_slice(&text).map_err(|error| {
            // The cause may quote a secret.
            let place = format!("line {}, column {}", error.line(), error.column());
            unusable(&format!("{} is not well formed at {place}", path.display()))
        })?;
        if identity.lifeboat_identity != 1 {
            return Err(unusable(&format!("{} is of a later version", path.display())));
        }
        if !identity.certificate.holds(&identity.root) {
            let why =
                format!("{} has a certificate that its authority did not issue", path.display());
            return Err(unusable(&why));
        }
        Ok(identity)
    }

    /// Writes the file, durable when this returns.
    pub fn save(&self, path: &Path) -> Outcome<()> {
        write_secret_file(path, &Zeroizing::new(self.encode()?))
    }

    fn encode(&self) -> Outcome<Vec<u8>> {
        serde_json::to_vec_pretty(self)
            .map_err(|error| Failure::new(Code::Internal, "no JSON of an identity").because(error))
    }

    /// The key that signs orders.
    pub fn signing(&self) -> Outcome<SigningKey> {
        let seed = decode_key(&self.seed).ok_or_else(|| unusable("its signing key is none"))?;
        SigningKey::from_seed(&seed)
    }

    /// Its user of etcd.
    pub fn login(&self) -> Login {
        Login { user: self.certificate.name.clone(), password: self.password.clone() }
    }

    /// The way to etcd as this daemon; what the spec says of certificates comes first.
    #[must_use]
    pub fn enter(&self, access: EtcdAccess) -> EtcdAccess {
        let both = || {
            Zeroizing::new(
                [self.tls_certificate.as_bytes(), b"\n", self.tls_key.as_bytes()].concat(),
            )
        };
        EtcdAccess {
            ca: access.ca.or_else(|| Some(self.tls_authority.clone().into_bytes())),
            identity: access.identity.or_else(|| Some(both())),
            login: Some(self.login()),
            ..access
        }
    }
}

fn decode_key(text: &str) -> Option<SecretKey> {
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    Some(Zeroizing::new(bytes.as_slice().try_into().ok()?))
}

fn read_secret(path: &Path) -> Outcome<Zeroizing<Vec<u8>>> {
    let shown = path.display();
    let read = std::fs::read(path).map(Zeroizing::new);
    let text = read.map_err(|error| unusable(&format!("{shown} cannot be read")).because(error))?;
    let mode = std::fs::metadata(path).map(|found| found.mode()).unwrap_or(0o777);
    if mode & 0o077 != 0 {
        return Err(unusable(&format!("{shown} is readable by others"))
            .hint(format!("Run `chmod 600 {shown}`; enroll anew if it may have been read.")));
    }
    Ok(text)
}

fn unusable(why: &str) -> Failure {
    Failure::new(Code::IdentityUnusable, format!("this process cannot prove who it is: {why}"))
        .hint("Enroll it again: `lifeboat enroll host`.")
}
