//! The authority: who certifies daemons. A secret file on one machine of an administrator.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use lifeboat_environment::Environment;
use lifeboat_model::RegionName;
use lifeboat_repository::crypt::{self, SigningKey};
use lifeboat_repository::ids::VerifyingKey;
use lifeboat_repository::keys::write_secret_file;
use lifeboat_telemetry::{Code, Failure, Outcome};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Certificate, Identity, Role, decode_key, read_secret, unusable};
use crate::{EtcdAccess, Keys, Login, SignedStore, Store};

/// How long certificates of TLS hold; they are issued anew by enrolling again.
const YEARS: i64 = 3;
const AUTHORITY_YEARS: i64 = 20;

/// What certifies daemons.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    lifeboat_authority: u32,
    seed: Zeroizing<String>,
    tls_key: Zeroizing<String>,
    /// The authority of TLS certificates, PEM: `quorum.etcd.ca`.
    pub tls_certificate: String,
    /// Of etcd's user `root`.
    etcd_password: Zeroizing<String>,
    /// Whom it certified: what their rights are when the spec has changed.
    pub issued: Vec<Issued>,
}

/// Somebody whom an authority certified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// The name, which is also a user of etcd.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where it is.
    pub region: RegionName,
    /// `SERVICE/DATABASE/NODE` of an agent's nodes; all of its region if there is none.
    pub nodes: Vec<String>,
}

/// A certificate of a server and its key, both PEM.
pub struct ServerCertificate {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: Zeroizing<String>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ServerCertificate").finish_non_exhaustive()
    }
}

impl Authority {
    /// The name of its file.
    pub const FILE: &str = "authority.json";

    /// A new one.
    pub fn create(environment: &Environment) -> Outcome<Self> {
        let key = new_key()?;
        let now = environment.clock().now();
        let certificate = parameters(now)?.self_signed(&key).map_err(|error| internal(&error))?;
        let secret = || Zeroizing::new(STANDARD.encode(crypt::random_key(environment).as_slice()));
        Ok(Self {
            lifeboat_authority: 1,
            seed: secret(),
            tls_key: Zeroizing::new(key.serialize_pem()),
            tls_certificate: certificate.pem(),
            etcd_password: secret(),
            issued: Vec::new(),
        })
    }

    /// Reads its file; refuses one that others can read.
    pub fn load(path: &Path) -> Outcome<Self> {
        let text = read_secret(path)?;
        let authority: Self = serde_json::from_slice(&text).map_err(|error| {
            // The cause may quote a secret.
            let place = format!("line {}, column {}", error.line(), error.column());
            unusable(&format!("{} is not well formed at {place}", path.display()))
        })?;
        match authority.lifeboat_authority {
            1 => Ok(authority),
            _ => Err(unusable(&format!("{} is of a later version", path.display()))),
        }
    }

    /// Writes its file, durable when this returns.
    pub fn save(&self, path: &Path) -> Outcome<()> {
        let text = serde_json::to_vec_pretty(self).map(Zeroizing::new).map_err(|error| {
            Failure::new(Code::Internal, "no JSON of an authority").because(error)
        })?;
        write_secret_file(path, &text)
    }

    /// The public key that everybody checks orders with.
    pub fn root(&self) -> Outcome<VerifyingKey> {
        Ok(VerifyingKey(self.signing()?.public()))
    }

    fn signing(&self) -> Outcome<SigningKey> {
        let seed = decode_key(&self.seed).ok_or_else(|| unusable("the authority has no key"))?;
        SigningKey::from_seed(&seed)
    }

    /// The password of etcd's user `root`.
    pub fn etcd_password(&self) -> &str {
        &self.etcd_password
    }

    /// The way to etcd as its root.
    #[must_use]
    pub fn enter(&self, access: EtcdAccess) -> EtcdAccess {
        let login = Login { user: "root".to_owned(), password: self.etcd_password.clone() };
        let ca = access.ca.or_else(|| Some(self.tls_certificate.clone().into_bytes()));
        EtcdAccess { ca, login: Some(login), ..access }
    }

    /// A store that signs as the authority.
    pub fn sign(&self, inner: Box<dyn Store>, keys: Keys) -> Outcome<SignedStore> {
        Ok(SignedStore::of_authority(inner, keys, self.signing()?))
    }

    /// A new identity. Its password of etcd is for the caller to set there.
    pub fn identity(
        &self,
        environment: &Environment,
        name: &str,
        role: Role,
        region: &RegionName,
    ) -> Outcome<Identity> {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(unusable("a name must be one word of letters, digits and signs"));
        }
        let now = environment.clock().now();
        let seed = crypt::random_key(environment);
        let certificate = Certificate {
            name: name.to_owned(),
            role,
            region: region.clone(),
            key: VerifyingKey(SigningKey::from_seed(&seed)?.public()),
            issued_at: now,
            signature: String::new(),
        };
        let tls = self.issue(now, name, &[])?;
        let password = crypt::random_key(environment);
        Ok(Identity {
            lifeboat_identity: 1,
            certificate: certificate.issue(&self.signing()?),
            seed: Zeroizing::new(STANDARD.encode(seed.as_slice())),
            root: self.root()?,
            tls_authority: self.tls_certificate.clone(),
            tls_certificate: tls.certificate,
            tls_key: tls.key,
            password: Zeroizing::new(STANDARD.encode(password.as_slice())),
        })
    }

    /// A certificate of a server, as of a member of etcd, for these names and addresses.
    pub fn server(
        &self,
        environment: &Environment,
        name: &str,
        names: &[String],
    ) -> Outcome<ServerCertificate> {
        self.issue(environment.clock().now(), name, names)
    }

    /// For servers and clients alike: a member of etcd is both.
    fn issue(&self, now: Timestamp, name: &str, names: &[String]) -> Outcome<ServerCertificate> {
        let signer = KeyPair::from_pem(&self.tls_key);
        let signer = signer.map_err(|_| unusable("the authority's key of TLS is none"))?;
        let issuer = Issuer::new(parameters(now)?, signer);
        let mut wanted =
            CertificateParams::new(names.to_vec()).map_err(|error| internal(&error))?;
        wanted.distinguished_name.push(DnType::CommonName, name);
        wanted.use_authority_key_identifier_extension = true;
        wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        wanted.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (wanted.not_before, wanted.not_after) = validity(now, YEARS);
        let key = new_key()?;
        let issued = wanted.signed_by(&key, &issuer).map_err(|error| internal(&error))?;
        let key = Zeroizing::new(key.serialize_pem());
        Ok(ServerCertificate { certificate: issued.pem(), key })
    }
}

/// The authority's own certificate; only its name and key matter to those that it issues.
fn parameters(now: Timestamp) -> Outcome<CertificateParams> {
    let mut own = CertificateParams::new(Vec::<String>::new()).map_err(|error| internal(&error))?;
    own.distinguished_name.push(DnType::CommonName, "lifeboat authority");
    own.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    own.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (own.not_before, own.not_after) = validity(now, AUTHORITY_YEARS);
    Ok(own)
}

fn new_key() -> Outcome<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| internal(&error))
}

/// From yesterday on, for clocks that are behind.
fn validity(now: Timestamp, years: i64) -> (time::OffsetDateTime, time::OffsetDateTime) {
    let today = now.to_zoned(TimeZone::UTC).date();
    let day = |date: jiff::civil::Date| {
        let month = u8::try_from(date.month()).unwrap_or(1);
        let day = u8::try_from(date.day()).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(date.year()), month, day)
    };
    let end = today.saturating_add(Span::new().years(years));
    (day(today.yesterday().unwrap_or(today)), day(end))
}

fn internal(error: &rcgen::Error) -> Failure {
    Failure::new(Code::Internal, "a certificate cannot be made").because(error.to_string())
}
