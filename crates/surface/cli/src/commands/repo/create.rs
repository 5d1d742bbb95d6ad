//! `lifeboat repo create`: every region's missing repository, and this host's writer key.

use lifeboat_objects::Blocking;
use lifeboat_repository::access::Access;
use lifeboat_repository::catch_up::catch_up;
use lifeboat_repository::create::{self, RegionOutcome, RegionReport};
use lifeboat_telemetry::{Code, Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use crate::commands::key::enroll::{self, Enrolled};
use crate::context::Context;
use crate::output::{Mark, Report, strong};
use crate::record::record;
use crate::site::Site;

/// Make the repository of every region that has none yet
///
/// Makes one vault for all regions with the slots of the spec, and shows its recovery key once.
/// Enrols this host, so that it can write without the passphrase. May be run again: it makes what
/// is missing and changes nothing that is there.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat repo create
  lifeboat repo create --spec /etc/lifeboat/lifeboat.yaml --here east")]
pub struct Args {}

/// What was made and what was there.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Created {
    /// The vault, the same in all regions; null if no region answers any more.
    vault: Option<String>,
    /// Every region of the spec.
    regions: Vec<Region>,
    /// The recovery key of a new vault: shown once, stored nowhere.
    recovery_key: Option<String>,
    /// This host's writer key; null if this host had one, or if it could not be made (see `error`).
    enrolled: Option<Enrolled>,
    #[serde(skip)]
    failure: Option<Failure>,
}

/// One region.
#[derive(Debug, Serialize, JsonSchema)]
struct Region {
    /// Its name.
    region: String,
    /// Where its repository lies.
    place: String,
    /// `created`, `existed` or `failed`.
    outcome: &'static str,
    /// Why it failed.
    why: Option<String>,
}

impl Region {
    fn new(report: RegionReport) -> Self {
        let (outcome, why) = match &report.outcome {
            RegionOutcome::Created => ("created", None),
            RegionOutcome::Existed => ("existed", None),
            RegionOutcome::Failed(failure) => ("failed", Some(failure.full_message())),
        };
        Self { region: report.region, place: report.place, outcome, why }
    }
}

impl Report for Created {
    const COMMAND: &'static str = "repo create";

    fn text(&self) -> String {
        let mut text = String::new();
        for region in &self.regions {
            let (mark, what) = match region.outcome {
                "created" => (Mark::Good, "created"),
                "existed" => (Mark::Good, "is there already"),
                _ => (Mark::Bad, "failed"),
            };
            let what = mark.paint(what);
            text.push_str(&format!("{}: {what}  {}\n", region.region, region.place));
        }
        if let Some(vault) = &self.vault {
            text.push_str(&format!("Vault {vault}\n"));
        }
        if let Some(key) = &self.recovery_key {
            text.push_str(&format!(
                "\nThe recovery key opens this vault. It is shown this once and stored nowhere: \
                 print it,\nwrite the vault's name on it, keep it in another building.\n\n    {}\n",
                strong(key)
            ));
        }
        if let Some(enrolled) = &self.enrolled {
            text.push_str(&format!("\n{}", enrolled.text()));
        }
        text
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Makes what is missing.
pub fn run(context: &Context) -> Outcome<Created> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let report = create::create(&access)?;
    let is_new = |region: &RegionReport| matches!(region.outcome, RegionOutcome::Created);
    let is_failed = |region: &RegionReport| matches!(region.outcome, RegionOutcome::Failed(_));
    let any_new = report.regions.iter().any(is_new);
    let any_failed = report.regions.iter().any(is_failed);
    let mut created = Created {
        vault: None,
        recovery_key: report.recovery_key.map(|key| key.to_string()),
        regions: report.regions.into_iter().map(Region::new).collect(),
        enrolled: None,
        failure: None,
    };
    // From here on nothing may return early: the recovery key cannot be shown again.
    let enrolled = created.enroll_host(&site, &access, any_new);
    created.failure = match enrolled {
        _ if any_failed => Some(partial(&created.regions)),
        Err(failure) if any_new => Some(failure.within("this host is not enrolled")),
        Err(failure) => {
            context.reporter.warn(format!("this host is not enrolled: {failure}"));
            None
        }
        Ok(skipped) => skipped,
    };
    Ok(created)
}

impl Created {
    /// Enrols this host, unless it can write already and nothing is new; a region that went away
    /// meanwhile.
    fn enroll_host(
        &mut self,
        site: &Site<'_>,
        access: &Access<'_>,
        any_new: bool,
    ) -> Outcome<Option<Failure>> {
        let mut regions = access.regions()?;
        self.vault = Some(regions.vault().id.to_string());
        access.blocking.run(catch_up(&mut regions))?;
        if any_new || access.writer(&regions).is_err() {
            let secrets = access.secrets(&regions)?;
            self.enrolled = Some(enroll::enroll(site, access, &mut regions, &secrets, false)?);
        }
        let skipped = regions.partial();
        if any_new {
            let made = self.regions.iter().filter(|region| region.outcome == "created");
            let made: Vec<&str> = made.map(|region| region.region.as_str()).collect();
            let act = ("repo create", regions.vault().id.to_string());
            record(site.context(), access, &mut regions, act, [("regions", made.join(" "))]);
        }
        Ok(skipped)
    }
}

fn partial(regions: &[Region]) -> Failure {
    let lines = regions
        .iter()
        .filter_map(|region| Some(format!("{}: {}", region.region, region.why.as_ref()?)));
    Failure::new(Code::RegionSkipped, "not every region has its repository")
        .details(lines)
        .hint("Mend the region and run the command again.")
}
