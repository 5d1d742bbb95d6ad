//! TLS with libpq's rules for whom to believe.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::db::rfc5912;

use crate::Error;
use crate::config::{Identity, Tls, TlsMode};

/// Shakes hands. Gives the digest of the server's certificate for channel binding, if it has one.
pub(crate) async fn encrypt(
    tls: &Tls,
    host: &str,
    socket: TcpStream,
) -> Result<(TlsStream<TcpStream>, Option<Vec<u8>>), Error> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Error::Tls("the host's name cannot stand in a certificate".into()))?;
    let connector = TlsConnector::from(Arc::new(tls.client_config()?));
    let stream = connector.connect(name, socket).await.map_err(handshake_failed)?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let digest = certificate.and_then(|certificate| channel_binding_digest(certificate));
    Ok((stream, digest))
}

fn handshake_failed(source: io::Error) -> Error {
    match source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => Error::Tls(error.to_string().into()),
        None => Error::Io { step: "the TLS handshake failed", source },
    }
}

impl Tls {
    /// As rustls takes it: replication and SQL sessions believe the same servers.
    pub fn client_config(&self) -> Result<ClientConfig, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Verifier::new(self, &provider)?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        match &self.identity {
            Some(identity) => {
                let (chain, key) = read_identity(identity)?;
                config.with_client_auth_cert(chain, key).map_err(unusable)
            }
            None => Ok(config.with_no_client_auth()),
        }
    }
}

fn unusable(error: rustls::Error) -> Error {
    Error::Tls(format!("TLS cannot be set up: {error}").into())
}

type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read_identity(identity: &Identity) -> Result<Chain, Error> {
    let Identity { certificate, key } = identity;
    let mode = std::fs::metadata(key).map_err(|error| unreadable(key, &error))?.mode();
    // As libpq: root's key may be readable for its group, and nobody's for others.
    if mode & 0o037 != 0 {
        let key = key.display();
        return Err(Error::Tls(format!("{key} can be read by others: make it 0600").into()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
    Ok((read_certificates(certificate)?, private))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(path, &error))?;
    match certificates.is_empty() {
        false => Ok(certificates),
        true => Err(Error::Tls(format!("{} holds no certificate", path.display()).into())),
    }
}

fn unreadable(path: &Path, error: &dyn std::error::Error) -> Error {
    Error::Tls(format!("cannot read {}: {error}", path.display()).into())
}

/// Checks as much as was asked for. The handshake's own signature is always checked.
#[derive(Debug)]
struct Verifier {
    chain: bool,
    name: bool,
    roots: RootCertStore,
    /// The roots as they are. A self-signed server certificate among them is trusted as such, also
    /// where it says that it is an authority, as `openssl req -x509` makes them.
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(tls: &Tls, provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let chain = match tls.mode {
            TlsMode::Disable | TlsMode::Prefer => false,
            // As libpq: whoever names roots wants them used.
            TlsMode::Require => tls.roots.is_some(),
            TlsMode::VerifyCa | TlsMode::VerifyFull => true,
        };
        let pinned = match &tls.roots {
            _ if !chain => Vec::new(),
            Some(path) => read_certificates(path)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(pinned.iter().cloned());
        Ok(Self {
            chain,
            name: tls.mode == TlsMode::VerifyFull,
            roots,
            pinned: if tls.roots.is_some() { pinned } else { Vec::new() },
            provider: Arc::clone(provider),
        })
    }

    fn verify_chain(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        if self.pinned.iter().any(|pinned| pinned.as_ref() == end_entity.as_ref()) {
            return verify_period(end_entity, now);
        }
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let roots = &self.roots;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)
    }
}

fn verify_period(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let parsed = Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let validity = parsed.tbs_certificate.validity;
    let not_before = UnixTime::since_unix_epoch(validity.not_before.to_unix_duration());
    let not_after = UnixTime::since_unix_epoch(validity.not_after.to_unix_duration());
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    Ok(())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.chain {
            self.verify_chain(end_entity, intermediates, now)?;
        }
        if self.name {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// `tls-server-end-point` (RFC 5929): the certificate's digest by the hash of its signature, but
/// SHA-256 for the weak ones. Signatures without a hash of their own have none.
fn channel_binding_digest(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = Certificate::from_der(certificate).ok()?.signature_algorithm.oid;
    let hash = match algorithm {
        rfc5912::SHA_1_WITH_RSA_ENCRYPTION
        | rfc5912::SHA_256_WITH_RSA_ENCRYPTION
        | rfc5912::ECDSA_WITH_SHA_256 => &digest::SHA256,
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_384 => &digest::SHA384,
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_512 => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}
