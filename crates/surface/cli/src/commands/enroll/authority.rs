//! `lifeboat enroll authority`: the first step, once.

use std::path::PathBuf;

use lifeboat_quorum::{Authority, EtcdAdmin, Keys};
use lifeboat_telemetry::{Code, Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Office, PATIENCE};
use crate::context::Context;
use crate::output::Report;

/// Make the authority that certifies daemons, or let it take over etcd
///
/// Without --etcd it makes the secret file `authority.json` in the state directory, and beside it
/// `authority.pem`, the certificate for `quorum.etcd.ca`. Certify the members of etcd next. With
/// --etcd it gives etcd its users: authentication is enabled, and orders that stand there already
/// are signed. After that nobody gets in who was not enrolled. Run it on one machine of an
/// administrator, and keep a copy of the file where secrets are kept.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat enroll authority
  lifeboat enroll server etcd-east 10.1.0.5 --to /etc/etcd
  lifeboat enroll authority --etcd")]
pub struct Args {
    /// Enable authentication in etcd and sign what stands there
    #[arg(long)]
    etcd: bool,
}

/// The authority.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Founded {
    /// Its secret file.
    file: PathBuf,
    /// Its certificate, for `quorum.etcd.ca`.
    certificate: PathBuf,
    /// Whether it is new.
    new: bool,
    /// Whether etcd has users now.
    etcd: bool,
    /// How many orders were signed.
    signed: usize,
}

impl Report for Founded {
    const COMMAND: &'static str = "enroll authority";

    fn text(&self) -> String {
        let what = if self.new { "The authority was made" } else { "The authority is there" };
        let mut text = format!("{what}: {}\n", self.file.display());
        text.push_str(&format!("  Certificate: {}\n", self.certificate.display()));
        if self.etcd {
            text.push_str(&format!("  etcd has users now; {} orders were signed.\n", self.signed));
        }
        text
    }
}

/// Makes it where there is none.
pub fn run(args: &Args, context: &Context) -> Outcome<Founded> {
    let site = crate::site::Site::open_anywhere(context)?;
    let file = site.state.join(Authority::FILE);
    let certificate = site.state.join("authority.pem");
    let new = !file.exists();
    let authority = match new {
        true => {
            let authority = Authority::create(&context.environment)?;
            authority.save(&file)?;
            authority
        }
        false => Authority::load(&file)?,
    };
    std::fs::write(&certificate, &authority.tls_certificate).map_err(|error| {
        let message = format!("cannot write {}", certificate.display());
        Failure::new(Code::LocalFile, message).because(error)
    })?;
    let signed = if args.etcd { take_over(context, &authority)? } else { 0 };
    Ok(Founded { file, certificate, new, etcd: args.etcd, signed })
}

/// Can be repeated: whoever is etcd's root already stays it.
fn take_over(context: &Context, authority: &Authority) -> Outcome<usize> {
    let office = Office::open(context)?;
    let admin = office.admin(authority)?;
    let known = office.runtime.block_on(admin.is_enabled());
    if !known? {
        let _inside = office.runtime.enter();
        let nobody = EtcdAdmin::new(&office.access, PATIENCE)?;
        office.runtime.block_on(nobody.enable(authority.etcd_password()))?;
    }
    let store = office.store(authority)?;
    let signing = authority.sign(Box::new(store), Keys::default())?;
    Ok(office.runtime.block_on(signing.sign_all())?)
}
