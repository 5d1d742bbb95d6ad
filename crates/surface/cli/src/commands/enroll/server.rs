//! `lifeboat enroll server`: a certificate for a member of etcd.

use std::path::PathBuf;

use lifeboat_quorum::Authority;
use lifeboat_repository::keys::write_secret_file;
use lifeboat_telemetry::Outcome;
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::output::Report;
use crate::site::Site;

/// Make a certificate for a server, as for a member of etcd
///
/// Writes NAME.pem and NAME.key, for clients and among members. Members compare a certificate with
/// the address that a connection comes from: give every address that a member has.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat enroll server etcd-east etcd-east.example.com 10.1.0.5 --to /etc/etcd")]
pub struct Args {
    /// What the server is called
    name: String,
    /// Its names and addresses
    #[arg(required = true)]
    addresses: Vec<String>,
    /// The folder to write to
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// A server's certificate.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Certified {
    /// The certificate.
    certificate: PathBuf,
    /// Its key, with mode 0600.
    key: PathBuf,
}

impl Report for Certified {
    const COMMAND: &'static str = "enroll server";

    fn text(&self) -> String {
        let Self { certificate, key } = self;
        format!("Certificate: {}\nKey: {}\n", certificate.display(), key.display())
    }
}

/// Issues it.
pub fn run(args: &Args, context: &Context) -> Outcome<Certified> {
    let site = Site::open_anywhere(context)?;
    let authority = Authority::load(&site.state.join(Authority::FILE))?;
    let made = authority.server(&context.environment, &args.name, &args.addresses)?;
    let certificate = args.to.join(format!("{}.pem", args.name));
    let key = args.to.join(format!("{}.key", args.name));
    write_secret_file(&key, made.key.as_bytes())?;
    write_secret_file(&certificate, made.certificate.as_bytes())?;
    Ok(Certified { certificate, key })
}
