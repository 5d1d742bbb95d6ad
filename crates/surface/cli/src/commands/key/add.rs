//! `lifeboat key add`: one more way to open the vault.

use std::path::PathBuf;

use lifeboat_model::Secret;
use lifeboat_objects::Blocking;
use lifeboat_repository::catch_up::catch_up;
use lifeboat_repository::keys::{OpenWith, RecoveryKey, VaultSecrets, make_slot};
use lifeboat_repository::layout;
use lifeboat_repository::object::ObjectType;
use lifeboat_repository::regions::Regions;
use lifeboat_repository::repository::encode_body;
use lifeboat_telemetry::{Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::output::{Report, strong};
use crate::record::record;
use crate::site::Site;

/// Add a slot: a passphrase, a key file or a recovery key that opens the vault
///
/// Nothing is written anew: a slot is one small object in each region. A slot that exists has to
/// be opened for it: by the spec, or by the recovery key in LIFEBOAT_RECOVERY_KEY. Name the new
/// secret in the spec as well, so that later commands find it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat key add --passphrase /etc/lifeboat/passphrase.new --label 2026
  lifeboat key add --recovery-key --label 'safe in building B'")]
pub struct Args {
    #[command(flatten)]
    kind: Kind,
    /// What people call it
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Kind {
    /// The passphrase that this file holds
    #[arg(long, value_name = "FILE")]
    passphrase: Option<PathBuf>,
    /// The bytes of this file
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// A new recovery key, shown once
    #[arg(long)]
    recovery_key: bool,
}

/// The new slot.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Added {
    /// Its number.
    slot: u32,
    /// What people call it.
    label: String,
    /// The new recovery key: shown once, stored nowhere.
    recovery_key: Option<String>,
    #[serde(skip)]
    failure: Option<Failure>,
}

impl Report for Added {
    const COMMAND: &'static str = "key add";

    fn text(&self) -> String {
        let mut text = format!("Slot {} ({}) opens the vault now.\n", self.slot, self.label);
        if let Some(key) = &self.recovery_key {
            text.push_str(&format!(
                "It is shown this once and stored nowhere: print it.\n\n    {}\n",
                strong(key)
            ));
        }
        text
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Adds the slot in every region that answers.
pub fn run(args: &Args, context: &Context) -> Outcome<Added> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let mut regions = access.regions()?;
    let secrets = access.secrets(&regions)?;
    blocking.run(catch_up(&mut regions))?;
    let (opener, kind, recovery_key) = opener(args, context)?;
    let label = args.label.clone().unwrap_or_else(|| kind.to_owned());
    let body = make_slot(&context.environment, &secrets, &opener, &label)?;
    let slot = blocking.run(store(&mut regions, &secrets, &body))?;
    let failure = regions.partial();
    let facts = [("kind", kind.to_owned()), ("label", label.clone())];
    record(context, &access, &mut regions, ("key add", format!("slot {slot}")), facts);
    Ok(Added { slot, label, recovery_key, failure })
}

fn opener(args: &Args, context: &Context) -> Outcome<(OpenWith, &'static str, Option<String>)> {
    let resolve = |path: &PathBuf| Secret::File(path.clone()).resolve(&context.environment);
    if let Some(path) = &args.kind.passphrase {
        return Ok((OpenWith::Passphrase(resolve(path)?), "passphrase", None));
    }
    if let Some(path) = &args.kind.key_file {
        return Ok((OpenWith::KeyFile(resolve(path)?), "key file", None));
    }
    let key = RecoveryKey::create(&context.environment);
    let shown = key.print().to_string();
    Ok((OpenWith::RecoveryKey(key), "recovery key", Some(shown)))
}

async fn store(
    regions: &mut Regions,
    secrets: &VaultSecrets,
    body: &lifeboat_repository::keys::SlotBody,
) -> Outcome<u32> {
    let mut number = 1;
    for repository in regions.all() {
        number = repository.next_key_number("slot-").await?.max(number);
    }
    let key = layout::slot(number)?;
    let bytes = encode_body(secrets.vault(), &key, ObjectType::Slot, body, None)?;
    regions.create_verified(&key, &bytes).await?;
    Ok(number)
}
