//! What a backup consists of: runs of pages, leaves of maps, tables of files and of objects.

mod file_table;
mod map;
mod object_table;

pub use file_table::{Content, FileEntry, FileKind, FileTablePage, LeafRef, Root};
pub use map::{LEAF_PAGES, Leaf, MapObject, Run};
pub use object_table::{ObjectEntry, ObjectTable};
