//! `lifeboat explain-decision`: why a service would move now, or would not.

use std::time::Duration;

use lifeboat_failover::{Evidence, Verdict, judge};
use lifeboat_model::ServiceName;
use lifeboat_telemetry::Outcome;
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::control::{Control, Sight};
use crate::output::{Report, strong};
use crate::site::Site;

/// Say in plain words why a service would move now, or would not
///
/// Asks the same judge as the controllers, with today's inputs. Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat explain-decision payments")]
pub struct Args {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: ServiceName,
}

/// A judgement.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Explained {
    /// The service.
    service: String,
    /// `stay`, `watch`, `ask`, `move` or `stuck`.
    verdict: &'static str,
    /// The region that it would move to.
    to: Option<String>,
    /// Why, in the order in which it was asked.
    reasons: Vec<String>,
}

impl Report for Explained {
    const COMMAND: &'static str = "explain-decision";

    fn text(&self) -> String {
        let to = self.to.as_deref().unwrap_or_default();
        let verdict = match self.verdict {
            "stay" => "stays where it is".to_owned(),
            "watch" => format!("is being watched; it may move to {to} soon"),
            "ask" => format!("should move to {to}, and a person has to say so"),
            "move" => format!("moves to {to} now"),
            _ => "fails, and cannot be moved".to_owned(),
        };
        let reasons: String = self.reasons.iter().map(|line| format!("  {line}\n")).collect();
        format!("{}\n{reasons}", strong(&format!("{} {verdict}.", self.service)))
    }
}

/// Judges.
pub fn run(args: &Args, context: &Context) -> Outcome<Explained> {
    let site = Site::open_anywhere(context)?;
    let control = Control::open(&site)?;
    let service = control.service(&args.service)?;
    let (sight, elsewhere) = control.read_all(&site)?;
    if let Some(failure) = elsewhere
        .get(&service.name)
        .map(|elsewhere| sight.refusal(&control, service, elsewhere))
        .transpose()?
        .flatten()
    {
        let hint = failure.hint_text().unwrap_or_default();
        let reasons = vec![format!("{}: {failure}.", failure.code().text()), hint.to_owned()];
        let service = service.name.to_string();
        return Ok(Explained { service, verdict: "stuck", to: None, reasons });
    }
    let view = sight.view(&control, service)?;
    let voices = sight.voices(&control, &service.name)?;
    let began = view.record.as_ref().map(|seen| seen.value.began);
    let at = context.environment.clock().now();
    let since_move = began.and_then(|began| Duration::try_from(at.duration_since(began)).ok());
    let judgement = judge(&Evidence {
        service,
        view: &view,
        voices: &voices,
        since_move: since_move.unwrap_or_default(),
        now: Sight::now(),
    });
    let (verdict, to) = match judgement.verdict {
        Verdict::Stay => ("stay", None),
        Verdict::Watch => ("watch", service.standby.clone()),
        Verdict::Ask { to } => ("ask", Some(to)),
        Verdict::Move { to } => ("move", Some(to)),
        Verdict::Stuck => ("stuck", None),
    };
    let to = to.map(|to| to.to_string());
    let reasons = judgement.reasons;
    Ok(Explained { service: service.name.to_string(), verdict, to, reasons })
}
