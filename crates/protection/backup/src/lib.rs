//! Base backup of a running cluster into one or several repositories
