//! What fuzz targets and their seeds share.

pub mod objects;
pub mod session;
