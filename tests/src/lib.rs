//! End-to-end scenarios over real processes
