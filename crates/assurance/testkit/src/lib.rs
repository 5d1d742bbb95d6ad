//! Real PostgreSQL, a fault proxy for object stores, and conformance suites, for tests only
