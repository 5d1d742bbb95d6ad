//! `regions`: failure domains, each with a repository.

use crate::Reference;
use crate::reader::section;

section! {
    /// A failure domain with a repository.
    pub struct Region {
        /// The region's repository.
        repository: RepositorySettings,
    }
}

section! {
    /// Where a repository lies and how its store is spoken to.
    pub struct RepositorySettings {
        /// file:///PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX.
        url: Reference,
        /// The store's address where it is not the cloud's own.
        endpoint: Option<Reference>,
        /// The cloud's name of its region.
        region: Option<Reference>,
        /// Bucket in the path instead of the host name, for stores that need it. Default: false.
        path_style: bool = false,
        /// Accept a store that cannot create exclusively; then only one host may ever write.
        /// Default: false.
        single_writer: bool = false,
        /// Storage classes for older data.
        classes: Option<StorageClasses>,
    }
}

section! {
    /// The store's names of its storage classes.
    pub struct StorageClasses {
        /// For new data.
        hot: Option<String>,
        /// For data that is rarely read.
        warm: Option<String>,
        /// For data that is hardly ever read.
        cold: Option<String>,
    }
}
