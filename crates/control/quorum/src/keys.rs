//! Where things lie in a quorum store.

use lifeboat_model::{DatabaseName, NodeName, RegionName, ServiceName};

use crate::RunId;

/// The keys below one prefix; one prefix a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

impl Default for Keys {
    fn default() -> Self {
        Self::new("lifeboat/")
    }
}

impl Keys {
    /// Keys below `prefix`, which ends in a slash.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// Everything.
    pub fn all(&self) -> &str {
        &self.prefix
    }

    /// Everything of every service.
    pub fn services(&self) -> String {
        format!("{}services/", self.prefix)
    }

    /// Everything of a service.
    pub fn service(&self, service: &ServiceName) -> String {
        format!("{}services/{service}/", self.prefix)
    }

    /// Its epoch's record. Written by controllers.
    pub fn epoch(&self, service: &ServiceName) -> String {
        format!("{}epoch", self.service(service))
    }

    /// The lease of a database. Written by the agent of its holder.
    pub fn lease(&self, service: &ServiceName, database: &DatabaseName) -> String {
        format!("{}lease/{database}", self.service(service))
    }

    /// What is wanted of a node. Written by controllers.
    pub fn desired(
        &self,
        service: &ServiceName,
        database: &DatabaseName,
        node: &NodeName,
    ) -> String {
        format!("{}desired/{database}/{node}", self.service(service))
    }

    /// What a node says. Written by its agent.
    pub fn status(
        &self,
        service: &ServiceName,
        database: &DatabaseName,
        node: &NodeName,
    ) -> String {
        format!("{}status/{database}/{node}", self.service(service))
    }

    /// What is wanted of a receiver. Written by controllers.
    pub fn receiver_desired(
        &self,
        service: &ServiceName,
        database: &DatabaseName,
        region: &RegionName,
    ) -> String {
        format!("{}receivers/{database}/{region}/desired", self.service(service))
    }

    /// What a receiver says. Written by the agent of its region.
    pub fn receiver_status(
        &self,
        service: &ServiceName,
        database: &DatabaseName,
        region: &RegionName,
    ) -> String {
        format!("{}receivers/{database}/{region}/status", self.service(service))
    }

    /// Everything of all runs of a service.
    pub fn runs(&self, service: &ServiceName) -> String {
        format!("{}runs/", self.service(service))
    }

    /// Everything of a run; ordered by its number.
    pub fn run(&self, service: &ServiceName, run: RunId) -> String {
        format!("{}{:010}/", self.runs(service), run.0)
    }

    /// What a run is to do. Written once.
    pub fn plan(&self, service: &ServiceName, run: RunId) -> String {
        format!("{}plan", self.run(service, run))
    }

    /// One transition of a step. Written once.
    pub fn transition(&self, service: &ServiceName, run: RunId, number: u32) -> String {
        format!("{}journal/{number:06}", self.run(service, run))
    }

    /// What observers see.
    pub fn observers(&self) -> String {
        format!("{}observers/", self.prefix)
    }

    /// Everything that one observer sees.
    pub fn observer(&self, domain: &RegionName) -> String {
        format!("{}{domain}/", self.observers())
    }

    /// What one observer sees of a share of the services. Written by it.
    pub fn observations(&self, domain: &RegionName, share: usize) -> String {
        format!("{}{share:04}", self.observer(domain))
    }
}
