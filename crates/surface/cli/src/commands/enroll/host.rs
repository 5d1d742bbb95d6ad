//! `lifeboat enroll host`: this host gets its identity.

use std::io::Read;
use std::path::PathBuf;

use lifeboat_quorum::{EtcdStore, Identity, Invitation, Keys};
use lifeboat_telemetry::{Code, Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Office, PATIENCE};
use crate::context::Context;
use crate::output::Report;

/// No token is longer.
const MAX_TOKEN_BYTES: u64 = 1024;

/// Make this host's identity from a one-time token on standard input
///
/// Writes `identity.json` into the state directory, for its owner alone: run it as the user that the
/// daemons run as. From then on daemons and commands here enter etcd as that user, sign what they
/// order, and believe only orders that are signed.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat enroll host < token
  runuser -u postgres -- lifeboat enroll host")]
pub struct Args {}

/// This host's identity.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Taken {
    /// Its file.
    file: PathBuf,
    /// What this host is called.
    name: String,
    /// What it may do.
    role: String,
}

impl Report for Taken {
    const COMMAND: &'static str = "enroll host";

    fn text(&self) -> String {
        let Self { file, name, role } = self;
        format!("This host is {name}, and may do what a {role} may: {}\n", file.display())
    }
}

/// Takes the identity out of the quorum store and keeps it.
pub fn run(context: &Context) -> Outcome<Taken> {
    let office = Office::open(context)?;
    let mut text = Zeroizing::new(String::new());
    let read = std::io::stdin().lock().take(MAX_TOKEN_BYTES).read_to_string(&mut text);
    read.map_err(|error| {
        Failure::new(Code::LocalFile, "cannot read the token from standard input").because(error)
    })?;
    let invitation: Invitation = text.parse()?;
    // The token is spent before the identity is kept: what could not be kept must be seen now.
    let file = office.site.state.join(Identity::FILE);
    let probe = file.with_extension("probe");
    std::fs::create_dir_all(&office.site.state)
        .and_then(|()| std::fs::write(&probe, b"probe"))
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|error| {
            let message = format!("cannot write into {}", office.site.state.display());
            Failure::new(Code::LocalFile, message).because(error)
        })?;
    let store = {
        let _inside = office.runtime.enter();
        EtcdStore::new(&office.access.clone().with_login(invitation.login()), PATIENCE)?
    };
    let now = context.environment.clock().now();
    let identity = office.runtime.block_on(invitation.take(&store, &Keys::default(), now))?;
    identity.save(&file)?;
    let certificate = &identity.certificate;
    let (name, role) = (certificate.name.clone(), certificate.role.name().to_owned());
    Ok(Taken { file, name, role })
}
