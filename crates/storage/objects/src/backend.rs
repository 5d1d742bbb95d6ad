//! The back ends, each reduced to the few calls that a store makes: one request each, no retries.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Outcome};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
};

use crate::directory::Directory;
use crate::fault::Fault;
use crate::location::{Location, Place};
use crate::{Key, MAX_OBJECT, Stat, clouds};

/// One page of a listing.
pub(crate) struct Page {
    pub(crate) objects: Vec<(Key, Stat)>,
    /// What to ask next, where there is more.
    pub(crate) next: Option<String>,
}

#[derive(Clone)]
pub(crate) enum Backend {
    Directory(Arc<Directory>),
    Memory(Arc<InMemory>),
    Bucket { objects: Arc<dyn ObjectStore>, pages: Arc<dyn PaginatedListStore>, prefix: String },
}

impl Backend {
    pub(crate) fn open(location: &Location, environment: &Environment) -> Outcome<Self> {
        location.check_endpoint()?;
        match &location.place {
            Place::Directory(root) => Ok(Self::Directory(Arc::new(Directory::new(root)))),
            Place::Memory(name) => Ok(Self::Memory(memory(name))),
            Place::Bucket { cloud, bucket, prefix } => {
                let (objects, pages) = clouds::open(location, *cloud, bucket, environment)?;
                Ok(Self::Bucket { objects, pages, prefix: prefix.clone() })
            }
        }
    }

    /// Creates the object, or says that the name is taken.
    pub(crate) async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), Fault> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        if let Self::Directory(directory) = self {
            let files = at(directory, key, Directory::prepare).await?;
            let put = files.put_opts(&self.path(key), bytes.into(), options).await;
            put.map_err(Fault::from_directory)?;
            return at(directory, key, Directory::restrict).await;
        }
        let objects = self.objects().await?;
        let put = objects.put_opts(&self.path(key), bytes.into(), options).await;
        put.map(drop).map_err(Fault::from_store)
    }

    /// Size of the object and the wanted bytes, exactly as many as the store announced. The
    /// answer has to begin within `patience`, or a long body would hide a dead connection.
    pub(crate) async fn read(
        &self,
        key: &Key,
        range: Option<GetRange>,
        patience: Duration,
    ) -> Result<(u64, Bytes), Fault> {
        let options = GetOptions { range, ..GetOptions::default() };
        let objects = self.objects().await?;
        let path = self.path(key);
        let found = tokio::time::timeout(patience, objects.get_opts(&path, options)).await;
        let found = found.map_err(|_| Fault::silence(patience))?;
        let found = found.map_err(|error| self.fault(error))?;
        let (size, length) = (found.meta.size, found.range.end.saturating_sub(found.range.start));
        if length > MAX_OBJECT {
            return Err(Fault::Final {
                code: Code::ObjectTooLarge,
                error: format!("{length} bytes").into(),
                hint: "Lifeboat writes no such object: find out who else writes to {store}.",
            });
        }
        let bytes = found.bytes().await.map_err(|error| self.fault(error))?;
        if bytes.len() as u64 != length {
            let said = format!("{} bytes arrived instead of {length}", bytes.len());
            return Err(Fault::unknown(said));
        }
        Ok((size, bytes))
    }

    pub(crate) async fn stat(&self, key: &Key) -> Result<Stat, Fault> {
        let found = self.objects().await?.head(&self.path(key)).await;
        found.map(|meta| stat(&meta)).map_err(|error| self.fault(error))
    }

    pub(crate) async fn delete(&self, key: &Key) -> Result<(), Fault> {
        let deleted = self.objects().await?.delete(&self.path(key)).await;
        deleted.map_err(|error| self.fault(error))
    }

    /// The part of a listing that `token` stands for; a directory answers in one page.
    pub(crate) async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        token: Option<String>,
    ) -> Result<Page, Fault> {
        match self {
            Self::Directory(directory) => {
                let (directory, prefix) = (Arc::clone(directory), prefix.to_owned());
                let objects = on_thread(move || directory.list(&prefix)).await?;
                Ok(Page { objects, next: None })
            }
            Self::Memory(memory) => {
                let mut objects = Vec::new();
                let mut stream = memory.list(None);
                while let Some(meta) = stream.next().await {
                    let meta = meta.map_err(Fault::from_store)?;
                    objects.extend(self.listed(&meta).filter(|(key, _)| starts(key, prefix)));
                }
                Ok(Page { objects, next: None })
            }
            Self::Bucket { pages, .. } => {
                let full = self.full(prefix);
                let options = PaginatedListOptions {
                    offset: after.map(|key| self.full(key.as_str())),
                    page_token: token,
                    ..PaginatedListOptions::default()
                };
                let wanted = Some(full.as_str()).filter(|full| !full.is_empty());
                let page = pages.list_paginated(wanted, options).await;
                let page = page.map_err(Fault::from_store)?;
                let objects = page.result.objects.iter().filter_map(|meta| self.listed(meta));
                let objects = objects.filter(|(key, _)| starts(key, prefix)).collect();
                Ok(Page { objects, next: page.page_token })
            }
        }
    }

    /// Files that writers left half-written; only directories have any.
    pub(crate) async fn list_staging(&self) -> Result<Vec<(String, Stat)>, Fault> {
        match self {
            Self::Directory(directory) => {
                let directory = Arc::clone(directory);
                on_thread(move || directory.list_staging()).await
            }
            Self::Memory(_) | Self::Bucket { .. } => Ok(Vec::new()),
        }
    }

    /// Makes the root of a file repository; buckets are made by people.
    pub(crate) async fn create_root(&self) -> Result<(), Fault> {
        match self {
            Self::Directory(directory) => {
                let directory = Arc::clone(directory);
                on_thread(move || directory.create_root()).await
            }
            Self::Memory(_) | Self::Bucket { .. } => Ok(()),
        }
    }

    /// Makes sure that an object found in place is as durable as one that was put.
    pub(crate) async fn settle(&self, key: &Key) -> Result<(), Fault> {
        match self {
            Self::Directory(directory) => at(directory, key, Directory::settle).await,
            Self::Memory(_) | Self::Bucket { .. } => Ok(()),
        }
    }

    async fn objects(&self) -> Result<Arc<dyn ObjectStore>, Fault> {
        match self {
            Self::Directory(directory) => {
                let directory = Arc::clone(directory);
                Ok(Arc::new(on_thread(move || directory.files()).await?))
            }
            Self::Memory(memory) => Ok(Arc::clone(memory) as Arc<dyn ObjectStore>),
            Self::Bucket { objects, .. } => Ok(Arc::clone(objects)),
        }
    }

    fn fault(&self, error: object_store::Error) -> Fault {
        match self {
            Self::Directory(_) => Fault::from_directory(error),
            Self::Memory(_) | Self::Bucket { .. } => Fault::from_store(error),
        }
    }

    fn full(&self, key: &str) -> String {
        match self {
            Self::Bucket { prefix, .. } if !prefix.is_empty() => format!("{prefix}/{key}"),
            _ => key.to_owned(),
        }
    }

    fn path(&self, key: &Key) -> Path {
        Path::from(self.full(key.as_str()))
    }

    /// Objects whose names are no keys are not ours.
    fn listed(&self, meta: &ObjectMeta) -> Option<(Key, Stat)> {
        let path = meta.location.as_ref();
        let key = path.strip_prefix(self.full("").as_str())?;
        Some((Key::new(key).ok()?, stat(meta)))
    }
}

fn starts(key: &Key, prefix: &str) -> bool {
    key.as_str().starts_with(prefix)
}

fn stat(meta: &ObjectMeta) -> Stat {
    let (seconds, nanoseconds) =
        (meta.last_modified.timestamp(), meta.last_modified.timestamp_subsec_nanos());
    let nanoseconds = i32::try_from(nanoseconds).unwrap_or_default();
    Stat { size: meta.size, modified: Timestamp::new(seconds, nanoseconds).unwrap_or_default() }
}

/// A file system may hang: it never does so on a thread that serves other operations.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Fault::unknown(error)))
}

async fn at<T: Send + 'static>(
    directory: &Arc<Directory>,
    key: &Key,
    work: fn(&Directory, &Key) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let (directory, key) = (Arc::clone(directory), key.clone());
    on_thread(move || work(&directory, &key)).await
}

/// Stores of one name are one store, as long as the process lives.
fn memory(name: &str) -> Arc<InMemory> {
    static MEMORIES: Mutex<BTreeMap<String, Arc<InMemory>>> = Mutex::new(BTreeMap::new());
    let mut memories = MEMORIES.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(memories.entry(name.to_owned()).or_default())
}
