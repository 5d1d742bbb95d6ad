//! The back ends, each reduced to the few calls that a store makes: one request each, no retries.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};
use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions, RetryConfig,
};

use crate::directory::Directory;
use crate::fault::Fault;
use crate::location::{Cloud, Location, Place};
use crate::{Key, MAX_OBJECT, Stat};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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
    Bucket {
        objects: Arc<dyn ObjectStore>,
        pages: Arc<dyn PaginatedListStore>,
        prefix: String,
    },
}

impl Backend {
    pub(crate) fn open(location: &Location, environment: &Environment) -> Outcome<Self> {
        location.check_endpoint()?;
        match &location.place {
            Place::Directory(root) => Ok(Self::Directory(Arc::new(Directory::new(root)))),
            Place::Memory(name) => Ok(Self::Memory(memory(name))),
            Place::Bucket {
                cloud,
                bucket,
                prefix,
            } => {
                let opened = match cloud {
                    Cloud::Aws => aws(location, bucket, environment).map(halves),
                    Cloud::Google => google(location, bucket, environment).map(halves),
                    Cloud::Azure => azure(location, bucket, environment).map(halves),
                };
                let (objects, pages) = opened.map_err(|error| {
                    let message = format!("cannot open {}", location.display());
                    Failure::new(Code::StoreDenied, message)
                        .because(error)
                        .hint("Check region, endpoint and the credentials in the environment.")
                })?;
                Ok(Self::Bucket {
                    objects,
                    pages,
                    prefix: prefix.clone(),
                })
            }
        }
    }

    /// Creates the object, or says that the name is taken.
    pub(crate) async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), Fault> {
        let options = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        if let Self::Directory(directory) = self {
            let files = at(directory, key, Directory::prepare).await?;
            let put = files.put_opts(&self.path(key), bytes.into(), options).await;
            put.map_err(Fault::from_directory)?;
            return at(directory, key, Directory::restrict).await;
        }
        let objects = self.objects().await?;
        let put = objects
            .put_opts(&self.path(key), bytes.into(), options)
            .await;
        put.map(drop).map_err(Fault::from_store)
    }

    /// Size of the object and the wanted bytes, exactly as many as the store announced.
    pub(crate) async fn read(
        &self,
        key: &Key,
        range: Option<GetRange>,
    ) -> Result<(u64, Bytes), Fault> {
        let options = GetOptions {
            range,
            ..GetOptions::default()
        };
        let objects = self.objects().await?;
        let found = objects.get_opts(&self.path(key), options).await;
        let found = found.map_err(|error| self.fault(error))?;
        let (size, length) = (
            found.meta.size,
            found.range.end.saturating_sub(found.range.start),
        );
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
        found
            .map(|meta| stat(&meta))
            .map_err(|error| self.fault(error))
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
                Ok(Page {
                    objects,
                    next: None,
                })
            }
            Self::Memory(memory) => {
                let mut objects = Vec::new();
                let mut stream = memory.list(None);
                while let Some(meta) = stream.next().await {
                    let meta = meta.map_err(Fault::from_store)?;
                    objects.extend(self.listed(&meta).filter(|(key, _)| starts(key, prefix)));
                }
                Ok(Page {
                    objects,
                    next: None,
                })
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
                let objects = page
                    .result
                    .objects
                    .iter()
                    .filter_map(|meta| self.listed(meta));
                let objects = objects.filter(|(key, _)| starts(key, prefix)).collect();
                Ok(Page {
                    objects,
                    next: page.page_token,
                })
            }
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

type Halves = (Arc<dyn ObjectStore>, Arc<dyn PaginatedListStore>);

fn halves<T: ObjectStore + PaginatedListStore>(store: T) -> Halves {
    let store = Arc::new(store);
    (Arc::clone(&store) as Arc<dyn ObjectStore>, store)
}

fn starts(key: &Key, prefix: &str) -> bool {
    key.as_str().starts_with(prefix)
}

fn stat(meta: &ObjectMeta) -> Stat {
    let (seconds, nanoseconds) = (
        meta.last_modified.timestamp(),
        meta.last_modified.timestamp_subsec_nanos(),
    );
    let nanoseconds = i32::try_from(nanoseconds).unwrap_or_default();
    Stat {
        size: meta.size,
        modified: Timestamp::new(seconds, nanoseconds).unwrap_or_default(),
    }
}

/// A file system may hang: it never does so on a thread that serves other operations.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Fault::unknown(error)))
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

/// Timeouts and retries are ours: a retry that we do not see would hide what became of a write.
fn no_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        retry_timeout: Duration::ZERO,
        ..RetryConfig::default()
    }
}

fn client(location: &Location, environment: &Environment) -> ClientOptions {
    let variables = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
    let elsewhere = || {
        variables
            .into_iter()
            .find_map(|name| environment.variable(name))
    };
    let endpoint = location.endpoint.as_deref().or_else(elsewhere);
    let plain = endpoint.is_some_and(|url| url.starts_with("http://"));
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_allow_http(plain)
}

/// Variables that the clouds' own tools read; the crate would read all of the process.
fn configure<K: std::str::FromStr, B>(
    environment: &Environment,
    names: &[&str],
    builder: B,
    set: impl Fn(B, K, String) -> B,
) -> B {
    names.iter().fold(builder, |builder, name| {
        match (
            environment.variable(name),
            name.to_ascii_lowercase().parse(),
        ) {
            (Some(value), Ok(key)) if !value.is_empty() => set(builder, key, value.to_owned()),
            _ => builder,
        }
    })
}

fn aws(
    location: &Location,
    bucket: &str,
    environment: &Environment,
) -> object_store::Result<object_store::aws::AmazonS3> {
    const NAMES: [&str; 14] = [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_DEFAULT_REGION",
        "AWS_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL_STS",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
    ];
    let mut builder = configure(
        environment,
        &NAMES,
        AmazonS3Builder::new(),
        |builder, key, value| builder.with_config(key, value),
    );
    if let Some(region) = &location.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &location.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    builder
        .with_bucket_name(bucket)
        .with_client_options(client(location, environment))
        .with_retry(no_retries())
        .with_checksum_algorithm(Checksum::SHA256)
        // One object a request: a batch answers 200 although deletes in it were refused.
        .with_disable_bulk_delete(true)
        .build()
}

fn google(
    location: &Location,
    bucket: &str,
    environment: &Environment,
) -> object_store::Result<object_store::gcp::GoogleCloudStorage> {
    const NAMES: [&str; 5] = [
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_BEARER_TOKEN",
        "GOOGLE_SKIP_SIGNATURE",
    ];
    let builder = GoogleCloudStorageBuilder::new();
    let mut builder = configure(environment, &NAMES, builder, |builder, key, value| {
        builder.with_config(key, value)
    });
    if let Some(endpoint) = &location.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    builder
        .with_bucket_name(bucket)
        .with_client_options(client(location, environment))
        .with_retry(no_retries())
        .build()
}

fn azure(
    location: &Location,
    bucket: &str,
    environment: &Environment,
) -> object_store::Result<object_store::azure::MicrosoftAzure> {
    const NAMES: [&str; 9] = [
        "AZURE_STORAGE_ACCOUNT_NAME",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_CLIENT_ID",
        "AZURE_CLIENT_SECRET",
        "AZURE_TENANT_ID",
        "AZURE_AUTHORITY_HOST",
        "AZURE_FEDERATED_TOKEN_FILE",
        "AZURE_STORAGE_TOKEN",
    ];
    let builder = MicrosoftAzureBuilder::new();
    let mut builder = configure(environment, &NAMES, builder, |builder, key, value| {
        builder.with_config(key, value)
    });
    if let Some(endpoint) = &location.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    builder
        .with_container_name(bucket)
        .with_client_options(client(location, environment))
        .with_retry(no_retries())
        .build()
}
