//! `lifeboat enroll invite`: a one-time token for a host.

use std::time::Duration;

use jiff::Timestamp;
use lifeboat_model::RegionName;
use lifeboat_quorum::{Commit, Invitation, Issued, Keys, Rights, Role, Store, Transaction};
use lifeboat_telemetry::{Code, Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;
use zeroize::Zeroizing;

use super::Office;
use crate::context::Context;
use crate::output::Report;

/// How long a token works.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Invite a host: prints a one-time token for `lifeboat enroll host`
///
/// Makes key, certificate and user of etcd, and seals them in the quorum store: who has the token
/// can take them out, once, within a day. A name that was invited before gets new ones, and the old
/// ones cannot write any more. The token is a secret: hand it over as one.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat enroll invite controller north
  lifeboat enroll invite agent east --node payments/ledger/east-1
  lifeboat enroll invite operator east --name alice")]
pub struct Args {
    /// What it is to be: controller, agent or operator
    role: Role,
    /// The region, or the witness, that it is in
    region: RegionName,
    /// What it is called [default: the role and the region, as in agent-east]
    #[arg(long)]
    name: Option<String>,
    /// A node that the agent looks after, again for each [default: all of the region]
    #[arg(long = "node", value_name = "SERVICE/DATABASE/NODE")]
    nodes: Vec<String>,
}

/// An invitation.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Invited {
    /// What it is called.
    name: String,
    /// Until when the token works.
    #[schemars(with = "String")]
    expires_at: Timestamp,
    /// The token.
    #[schemars(with = "String")]
    token: Zeroizing<String>,
}

impl Report for Invited {
    const COMMAND: &'static str = "enroll invite";

    /// The token alone, for a pipe.
    fn text(&self) -> String {
        format!("{}\n", self.token.as_str())
    }
}

/// Makes the identity and leaves it where the token opens it.
pub fn run(args: &Args, context: &Context) -> Outcome<Invited> {
    let office = Office::open(context)?;
    let (spec, keys) = (&office.site.spec, Keys::default());
    if spec.witness.as_ref() != Some(&args.region) {
        spec.region(&args.region)?;
    }
    let mut authority = office.authority()?;
    let name = args.name.clone();
    let name = name.unwrap_or_else(|| format!("{}-{}", args.role.name(), args.region));
    let (role, region, nodes) = (args.role, args.region.clone(), args.nodes.clone());
    let issued = Issued { name: name.clone(), role, region, nodes };
    let rights = Rights::of(&keys, spec, &issued)?;
    let identity = authority.identity(&context.environment, &name, role, &args.region)?;
    authority.issued.retain(|one| one.name != name);
    authority.issued.push(issued);
    authority.save(&office.authority_file())?;

    let (admin, store) = (office.admin(&authority)?, office.store(&authority)?);
    let invitation = Invitation::new(&context.environment);
    let expires_at = context.environment.clock().now() + DAY;
    let sealed = invitation.seal(&identity, expires_at)?;
    let (own, guest) = (identity.login(), invitation.login());
    office.runtime.block_on(async {
        admin.set_user(&own.user, &own.password, &rights).await?;
        admin.set_user(&guest.user, &guest.password, &invitation.rights(&keys)).await?;
        let seal = Transaction::new().create(invitation.key(&keys), &sealed);
        match store.commit(seal).await? {
            Commit::Done(_) => Outcome::Ok(()),
            Commit::Conflict => Err(Failure::new(Code::Internal, "a token was made twice")),
        }
    })?;
    Ok(Invited { name, expires_at, token: invitation.token() })
}
