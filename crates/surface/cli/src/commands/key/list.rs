//! `lifeboat key list`: slots and enrolled hosts.

use jiff::Timestamp;
use lifeboat_objects::Blocking;
use lifeboat_repository::keys::SlotKind;
use lifeboat_repository::repository::Repository;
use lifeboat_telemetry::{Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::output::{Report, moment, strong, table};
use crate::site::Site;

/// List what opens the vault, and which hosts can write
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat key list")]
pub struct Args {}

/// Slots and hosts of the vault.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Keys {
    /// The vault.
    vault: String,
    /// What opens it.
    slots: Vec<Slot>,
    /// Hosts that can write.
    hosts: Vec<Host>,
    #[serde(skip)]
    failure: Option<Failure>,
}

/// One way to open the vault.
#[derive(Debug, Serialize, JsonSchema)]
struct Slot {
    /// Its number, for `key remove`.
    slot: u32,
    /// `passphrase`, `recovery-key`, `key-file` or `open`.
    kind: &'static str,
    /// What people call it.
    label: String,
    /// When it was made.
    created_at: Timestamp,
}

/// An enrolled host.
#[derive(Debug, Serialize, JsonSchema)]
struct Host {
    /// Region and host, as it called itself.
    label: String,
    /// When it was enrolled.
    enrolled_at: Timestamp,
    /// Its public key.
    public_key: String,
}

impl Report for Keys {
    const COMMAND: &'static str = "key list";

    fn text(&self) -> String {
        let slots = self.slots.iter().map(|slot| {
            let number = slot.slot.to_string();
            [number, slot.kind.to_owned(), slot.label.clone(), moment(slot.created_at)]
        });
        let hosts = self.hosts.iter().map(|host| {
            let short: String = host.public_key.chars().take(16).collect();
            [host.label.clone(), moment(host.enrolled_at), short]
        });
        format!(
            "{} {}\n\n{}\n{}",
            strong("Vault"),
            self.vault,
            table([">Slot", "Kind", "Label", "Created"], slots.collect()),
            table(["Host", "Enrolled", "Public key"], hosts.collect()),
        )
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Reads them from the nearest repository.
pub fn run(context: &Context) -> Outcome<Keys> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let regions = access.regions()?;
    let (slots, hosts) = blocking.run(read(regions.nearest()))?;
    let vault = regions.vault().id.to_string();
    Ok(Keys { vault, slots, hosts, failure: regions.partial() })
}

async fn read(repository: &Repository) -> Outcome<(Vec<Slot>, Vec<Host>)> {
    let slots = repository.slots().await?.into_iter().map(|slot| Slot {
        slot: slot.number,
        kind: match slot.body.kind {
            SlotKind::Passphrase => "passphrase",
            SlotKind::RecoveryKey => "recovery-key",
            SlotKind::KeyFile => "key-file",
            SlotKind::Open => "open",
        },
        label: slot.body.label,
        created_at: slot.body.created_at,
    });
    let certificates = repository.certificates().await?;
    let hosts = certificates.into_iter().map(|certificate| Host {
        label: certificate.label,
        enrolled_at: certificate.issued_at,
        public_key: hex::encode(certificate.public_key.0),
    });
    Ok((slots.collect(), hosts.collect()))
}
