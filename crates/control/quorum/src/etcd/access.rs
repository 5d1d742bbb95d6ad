//! How a cluster is reached: addresses, certificates, user.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use lifeboat_environment::Environment;
use lifeboat_model::spec::Etcd;
use lifeboat_telemetry::{Code, Failure, Outcome};
use reqwest::{Certificate, Client, Identity, Url};
use zeroize::Zeroizing;

use super::member::Member;

/// Everything needed to talk to a cluster.
#[derive(Clone, Default)]
pub struct EtcdAccess {
    /// URLs of its members, each a different one.
    pub endpoints: Vec<String>,
    /// The authority that signed its certificates, as PEM.
    pub ca: Option<Vec<u8>>,
    /// This client's certificate and its key, as PEM one after the other.
    pub identity: Option<Zeroizing<Vec<u8>>>,
    /// The user, where the cluster asks for one.
    pub login: Option<Login>,
}

/// A user of the cluster.
#[derive(Clone)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// The user's password.
    pub password: Zeroizing<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl fmt::Debug for EtcdAccess {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EtcdAccess")
            .field("endpoints", &self.endpoints)
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}

impl EtcdAccess {
    /// As the spec says; reads the certificates.
    pub fn of(spec: &Etcd, environment: &Environment) -> Outcome<Self> {
        let endpoints = spec.endpoints.iter().map(|endpoint| endpoint.resolve(environment));
        let mut identity = None;
        if let (Some(certificate), Some(key)) = (&spec.cert, &spec.key) {
            let mut both = Zeroizing::new(read(certificate)?);
            both.push(b'\n');
            both.extend_from_slice(&key.resolve(environment)?);
            both.push(b'\n');
            identity = Some(both);
        }
        Ok(Self {
            endpoints: endpoints.collect::<Outcome<_>>()?,
            ca: spec.ca.as_deref().map(read).transpose()?,
            identity,
            login: None,
        })
    }

    /// The same, as a user.
    #[must_use]
    pub fn with_login(self, login: Login) -> Self {
        Self { login: Some(login), ..self }
    }

    pub(super) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// One client a member, so that connections of a dead one are nobody else's.
    pub(super) fn members(&self, timeout: Duration) -> Outcome<Vec<Member>> {
        if self.endpoints.is_empty() {
            return Err(unusable("no endpoint is given"));
        }
        let member = |endpoint: &String| {
            let url = Url::parse(endpoint);
            let url = url.map_err(|error| unusable("an endpoint is no URL").because(error))?;
            let host = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https"));
            let host = host.ok_or_else(|| unusable("an endpoint is no http or https URL"))?;
            let name = match url.port_or_known_default() {
                Some(port) => format!("{host}:{port}"),
                None => host.to_owned(),
            };
            let base = url.as_str().trim_end_matches('/').to_owned();
            Ok(Member::new(name, base, self.client(timeout)?))
        };
        self.endpoints.iter().map(member).collect()
    }

    fn client(&self, timeout: Duration) -> Outcome<Client> {
        // HTTP/2 would put all calls onto one connection, and with a member that is cut off
        // silently, all of them would wait on it for minutes.
        let mut builder = Client::builder()
            .user_agent(concat!("lifeboat/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(timeout);
        if let Some(pem) = &self.ca {
            let authorities = Certificate::from_pem_bundle(pem);
            let authorities = authorities
                .map_err(|error| unusable("its authority is no PEM certificate").because(error))?;
            builder = builder.tls_certs_only(authorities);
        }
        if let Some(pem) = &self.identity {
            let identity = Identity::from_pem(pem);
            // The cause may quote the key.
            let identity = identity
                .map_err(|_| unusable("the client's certificate and key are no PEM texts"))?;
            builder = builder.identity(identity);
        }
        builder.build().map_err(|error| unusable("no client can be made").because(error))
    }
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    std::fs::read(path)
        .map_err(|error| unusable(&format!("{} cannot be read", path.display())).because(error))
}

fn unusable(why: &str) -> Failure {
    Failure::new(Code::QuorumUnusable, format!("the quorum store cannot be asked: {why}"))
        .hint("Correct `quorum.etcd` in the spec: endpoints, ca, cert and key.")
}
