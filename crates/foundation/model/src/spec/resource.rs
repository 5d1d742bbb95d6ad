//! What a service has besides databases: buckets, tables, workloads, traffic.

use std::collections::BTreeMap;

use super::Location;
use crate::reader::{choices, one_key, section};
use crate::{Reference, RegionName, Secret, TimeSpan};

section! {
    /// Objects in a bucket a region.
    pub struct Bucket {
        /// The buckets: s3://BUCKET/PREFIX and the like.
        locations: BTreeMap<RegionName, Reference>,
        /// Whether old versions are kept. Default: false.
        versioned: bool = false,
    }
}

section! {
    /// A table outside a database.
    pub struct Table {
        /// What holds it.
        engine: TableEngine,
        /// What it is called, a region.
        locations: BTreeMap<RegionName, Location>,
        /// Whether any moment can be restored. Default: false.
        point_in_time: bool = false,
        /// Whether the regions replicate to each other. Default: false.
        global: bool = false,
    }
}

choices! {
    /// What holds a table.
    pub enum TableEngine {
        /// Amazon DynamoDB.
        DynamoDb = "dynamodb",
    }
}

section! {
    /// A program that serves.
    pub struct Workload {
        /// What runs it.
        driver: WorkloadDriver,
        /// What ecs or kubernetes calls it, a region.
        locations: BTreeMap<RegionName, WorkloadLocation>,
        /// process and command: how it is started.
        start: Option<String>,
        /// process and command: how it is stopped.
        stop: Option<String>,
        /// How many instances.
        scale: Option<Scale>,
        /// How to see that it serves.
        health: Option<Health>,
        /// kubernetes: the Velero backups of its namespaces.
        velero: Option<Velero>,
    }
}

choices! {
    /// What runs a workload.
    pub enum WorkloadDriver {
        /// Processes of this machine.
        Process = "process",
        /// Commands of the user.
        Command = "command",
        /// Amazon ECS.
        Ecs = "ecs",
        /// Kubernetes.
        Kubernetes = "kubernetes",
    }
}

section! {
    /// Where a workload runs in one region.
    pub struct WorkloadLocation {
        /// The ECS cluster.
        cluster: Option<Reference>,
        /// The ECS service.
        service: Option<Reference>,
        /// The kubeconfig context.
        context: Option<Reference>,
        /// The Kubernetes namespaces.
        namespaces: Vec<String>,
    }
}

section! {
    /// How many instances.
    pub struct Scale {
        /// While another region serves. Default: 0.
        standby: u16 = 0,
        /// While this region serves.
        active: u16,
        /// The fewest that count as serving. Default: 1.
        minimum: u16 = 1,
    }
}

one_key! {
    /// How to see that a workload serves.
    pub enum Health {
        /// A URL that answers 2xx.
        Http(Reference) = "http",
        /// HOST:PORT that accepts.
        Tcp(Reference) = "tcp",
        /// A command that exits 0.
        Command(String) = "command",
    }
}

section! {
    /// Velero backups.
    pub struct Velero {
        /// The Velero schedule whose backups are restored.
        schedule: String,
        /// The namespace of Velero. Default: velero.
        namespace: String = "velero".to_owned(),
    }
}

section! {
    /// A name by which clients reach a service.
    pub struct TrafficRecord {
        /// The DNS name, with its last dot; for haproxy the backend.
        record: String,
        /// What is told to change it.
        driver: TrafficDriver,
        /// The server to tell: HOST:PORT; for haproxy also the path of its admin socket.
        server: Option<Reference>,
        /// Further servers to tell, each on its own.
        servers: Vec<Reference>,
        /// rfc2136: a caching resolver, HOST:PORT, that is asked what clients get.
        resolver: Option<Reference>,
        /// The zone, where it is not the record's parent.
        zone: Option<Reference>,
        /// rfc2136: the key that signs updates.
        tsig: Option<Tsig>,
        /// cloudflare: the API token.
        token: Option<Secret>,
        /// How long resolvers may remember. Default: 60s.
        ttl: TimeSpan = TimeSpan::from_secs(60),
        /// The addresses, a region; for haproxy the servers of the backend.
        targets: BTreeMap<RegionName, Vec<String>>,
    }
}

choices! {
    /// What is told to move traffic.
    pub enum TrafficDriver {
        /// DNS UPDATE, as BIND, Knot and PowerDNS speak it.
        Rfc2136 = "rfc2136",
        /// Amazon Route 53.
        Route53 = "route53",
        /// Cloudflare.
        Cloudflare = "cloudflare",
        /// HAProxy's runtime API.
        Haproxy = "haproxy",
    }
}

section! {
    /// A key that signs DNS updates.
    pub struct Tsig {
        /// Its name.
        name: String,
        /// Its algorithm: hmac-sha256, hmac-sha384 or hmac-sha512. Default: hmac-sha256.
        algorithm: String = "hmac-sha256".to_owned(),
        /// The key, in base64.
        secret: Secret,
    }
}
