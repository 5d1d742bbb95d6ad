//! A stopped directory comes to where it can follow the new primary (R20).

use lifeboat_cluster::control;
use lifeboat_model::NodeName;
use lifeboat_quorum::Return;
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::life::{self, Life};
use super::lineage::{self, Lineage, Upstream};
use super::settings::Settings;
use super::{blocking, copy, rewind, stopped};

/// Does what is allowed; what it did, in words.
pub(crate) async fn come_back(
    settings: &Settings,
    upstream: &NodeName,
    by: Return,
) -> Outcome<String> {
    let own = settings.clone();
    let (there, broken) = blocking(move || {
        if !matches!(life::look(&own)?, Life::None) {
            let message = format!("node {} still runs", own.node);
            return Err(Failure::new(Code::InstanceRole, message)
                .hint("It is stopped or fenced before its directory is touched."));
        }
        Ok((stopped::is_there(own.data()?), rewind::is_unfinished(&own)?))
    })
    .await?;
    if !there {
        return on_thread(settings, copy::make).await;
    }
    let asked = lineage::ask(settings, upstream).await?;
    // What can follow already is left alone, whatever is allowed: an order is carried out again
    // after each restart.
    let other = asked.clone();
    let trouble = match broken {
        true => unfinished(settings),
        false => match on_thread(settings, move |own| judge(own, &other)).await {
            Ok(said) => return Ok(said),
            Err(failure) => failure,
        },
    };
    match by {
        Return::AsItIs => Err(trouble),
        // It says nothing of the directory that another cluster was asked, or none could be.
        Return::Rewind | Return::Clone if trouble.code() == Code::ClusterMismatch => Err(trouble),
        Return::Rewind => {
            rewind::prepare_source(settings, upstream).await?;
            let name = upstream.clone();
            on_thread(settings, move |own| rewind::rewind(own, &name)).await
        }
        Return::Clone => on_thread(settings, copy::replace).await,
    }
}

fn unfinished(settings: &Settings) -> Failure {
    let message = format!("the directory of node {} was rewound half-way", settings.node);
    Failure::new(Code::Diverged, message)
        .hint("The rewind is finished by itself where that is allowed.")
}

/// Whether it can follow as it is; what lies in the way is the error.
fn judge(own: &Settings, upstream: &Upstream) -> Outcome<String> {
    let data = own.data()?;
    let control = control::read(data, &own.environment)?;
    let (name, shown) = (&upstream.name, data.display());
    match lineage::compare(data, &control, upstream)? {
        Lineage::Follows { timeline, end, beyond } => {
            let mut said =
                format!("ends at {end} of timeline {timeline}, and {name} has all of it");
            if beyond {
                let folder = lineage::set_beyond_aside(own, &control, upstream)?;
                said.push_str(&format!(
                    "; WAL behind that, which it had received, lies in {}",
                    folder.display()
                ));
            }
            Ok(said)
        }
        Lineage::Diverged { timeline, end, fork } => {
            let left = match fork {
                Some(fork) => format!("which {name} left at {fork}"),
                None => format!("which {name} was never on"),
            };
            let message = format!("{shown} goes to {end} of timeline {timeline}, {left}");
            Err(Failure::new(Code::Diverged, message)
                .hint("Set apart what only it has, then rewind it or take a new copy."))
        }
    }
}

async fn on_thread<T: Send + 'static>(
    settings: &Settings,
    work: impl FnOnce(&Settings) -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    let own = settings.clone();
    blocking(move || work(&own)).await
}
