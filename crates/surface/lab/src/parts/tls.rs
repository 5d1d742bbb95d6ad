//! A certificate for the servers, from an authority of the lab's own: between regions servers must
//! prove their names.

use std::path::{Path, PathBuf};

use lifeboat_telemetry::Outcome;

use crate::disk::{give, write};
use crate::layout::{Domain, ENDPOINT, Layout};
use crate::shell::tool;

/// What openssl needs to be told of certificates.
const SETTINGS: &str = "[req]
distinguished_name = name
prompt = no
[name]
CN = lifeboat-lab
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
";

/// An authority: its certificate lies in `ca.pem`, where the spec names it.
pub(super) struct Authority {
    certificate: PathBuf,
    key: PathBuf,
}

/// The certificate of the servers. A standby has its primary's settings, so they share one.
pub(super) fn certificate(layout: &Layout) -> PathBuf {
    layout.settings().join("server.pem")
}

/// Its key.
pub(super) fn key(layout: &Layout) -> PathBuf {
    layout.settings().join("server.key")
}

/// Makes the authority.
pub(super) fn authority(layout: &Layout) -> Outcome<Authority> {
    let etc = layout.settings();
    let authority = Authority { certificate: etc.join("ca.pem"), key: etc.join("ca.key") };
    let settings = etc.join("openssl.cnf");
    write(layout, &settings, SETTINGS)?;
    request(&settings, "authority", &authority.certificate, &authority.key, &[])?;
    give(layout, &authority.certificate)?;
    Ok(authority)
}

/// Makes the certificate of the servers, for their addresses and for the service's name.
pub(super) fn server(layout: &Layout, authority: &Authority) -> Outcome<()> {
    let mut names = vec![format!("DNS:{ENDPOINT}"), "DNS:localhost".to_owned()];
    names.extend(Domain::REGIONS.map(|region| format!("IP:{}", layout.host(region))));
    names.extend(layout.balanced().iter().map(|one| format!("IP:{}", layout.balancer(*one))));
    let settings = layout.settings().join("server.cnf");
    let text = format!(
        "{SETTINGS}[server]\nbasicConstraints = critical, CA:FALSE\n\
         keyUsage = critical, digitalSignature\nextendedKeyUsage = serverAuth\n\
         subjectAltName = {}\n",
        names.join(", ")
    );
    write(layout, &settings, &text)?;
    let (own, key) = (certificate(layout), key(layout));
    let signed = [
        "-CA".to_owned(),
        authority.certificate.to_string_lossy().into_owned(),
        "-CAkey".to_owned(),
        authority.key.to_string_lossy().into_owned(),
    ];
    request(&settings, "server", &own, &key, &signed)?;
    give(layout, &own)?;
    give(layout, &key)
}

fn request(
    settings: &Path,
    extensions: &str,
    certificate: &Path,
    key: &Path,
    more: &[String],
) -> Outcome<()> {
    let [settings, certificate, key] = [settings, certificate, key].map(Path::to_string_lossy);
    let words = ["req", "-x509", "-nodes", "-days", "30", "-newkey", "ec", "-pkeyopt"];
    let curve = ["ec_paramgen_curve:prime256v1", "-config", &settings, "-extensions", extensions];
    let place = ["-out", &certificate, "-keyout", &key];
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    tool("openssl", &[&words[..], &curve[..], &place[..], &more].concat()).map(drop)
}
