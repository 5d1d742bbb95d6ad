//! Project tasks in Rust instead of shell
fn main() {}
