//! `lifeboat enroll`: who daemons and commands are (ADR 0013).

pub mod authority;
pub mod host;
pub mod invite;
pub mod refresh;
pub mod server;

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use lifeboat_model::spec::Quorum;
use lifeboat_quorum::{Authority, EtcdAccess, EtcdAdmin, EtcdStore};
use lifeboat_telemetry::{Code, Failure, Outcome};
use tokio::runtime::{Builder, Runtime};

use crate::context::Context;
use crate::site::Site;

/// Passwords are checked slowly on purpose, and a person waits.
const PATIENCE: Duration = Duration::from_secs(15);

/// Give daemons and commands a key, a certificate and a user of etcd
#[derive(Debug, Subcommand)]
pub enum Enroll {
    Authority(authority::Args),
    Server(server::Args),
    Invite(invite::Args),
    Host(host::Args),
    Refresh(refresh::Args),
}

/// What every one of these commands needs.
struct Office<'a> {
    site: Site<'a>,
    runtime: Runtime,
    access: EtcdAccess,
}

impl<'a> Office<'a> {
    fn open(context: &'a Context) -> Outcome<Self> {
        let site = Site::open_anywhere(context)?;
        let etcd = site.spec.quorum.as_ref().and_then(|quorum: &Quorum| quorum.etcd.as_ref());
        let Some(etcd) = etcd else {
            return Err(Failure::new(Code::SpecInvalid, "the spec has no `quorum.etcd`")
                .hint("On one machine nobody needs to be enrolled."));
        };
        let access = EtcdAccess::of(etcd, &context.environment)?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| {
            Failure::new(Code::Internal, "cannot start a runtime").because(error)
        })?;
        Ok(Self { site, runtime, access })
    }

    /// The file of the authority.
    fn authority_file(&self) -> PathBuf {
        self.site.state.join(Authority::FILE)
    }

    fn authority(&self) -> Outcome<Authority> {
        Authority::load(&self.authority_file())
    }

    /// etcd's users, as its root.
    fn admin(&self, authority: &Authority) -> Outcome<EtcdAdmin> {
        let _inside = self.runtime.enter();
        EtcdAdmin::new(&authority.enter(self.access.clone()), PATIENCE)
    }

    /// etcd, as its root.
    fn store(&self, authority: &Authority) -> Outcome<EtcdStore> {
        let _inside = self.runtime.enter();
        EtcdStore::new(&authority.enter(self.access.clone()), PATIENCE)
    }
}
