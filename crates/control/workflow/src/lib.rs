//! Runs: journalled steps that any controller can resume.
