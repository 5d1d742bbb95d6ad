//! Real PostgreSQL, BIND, HAProxy, a fault proxy for object stores, and conformance suites, for tests only

pub mod bind;
pub mod etcd;
pub mod haproxy;
pub mod oracle;
pub mod postgres;
pub mod process;
pub mod quorum;
pub mod run;
pub mod scratch;
pub mod store;
