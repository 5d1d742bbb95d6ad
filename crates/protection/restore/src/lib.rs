//! Restore: plan, fetch, materialise, recovery settings
