//! Clients of the clouds' stores, with our limits and with credentials from our environment.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};
use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpClient, HttpConnector};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::list::PaginatedListStore;
use object_store::{ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};

use crate::location::{Cloud, Location};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than the time after which stores and firewalls forget a connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// One client, seen in two ways.
pub(crate) type Halves = (Arc<dyn ObjectStore>, Arc<dyn PaginatedListStore>);

fn halves<T: ObjectStore + PaginatedListStore>(store: T) -> Halves {
    let store = Arc::new(store);
    (Arc::clone(&store) as Arc<dyn ObjectStore>, store)
}

/// A client of `bucket`.
pub(crate) fn open(
    location: &Location,
    cloud: Cloud,
    bucket: &str,
    environment: &Environment,
) -> Outcome<Halves> {
    let opened = match cloud {
        Cloud::Aws => aws(location, bucket, environment).map(halves),
        Cloud::Google => google(location, bucket, environment).map(halves),
        Cloud::Azure => azure(location, bucket, environment).map(halves),
    };
    opened.map_err(|error| {
        Failure::new(Code::StoreDenied, format!("cannot open {}", location.display()))
            .because(error)
            .hint("Check region, endpoint and the credentials in the environment.")
    })
}

/// Timeouts and retries are ours: a retry that we do not see would hide what became of a write.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..RetryConfig::default() }
}

fn client(location: &Location, environment: &Environment) -> ClientOptions {
    let variables = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
    let elsewhere = || variables.into_iter().find_map(|name| environment.variable(name));
    let endpoint = location.endpoint.as_deref().or_else(elsewhere);
    ClientOptions::new().with_allow_http(endpoint.is_some_and(|url| url.starts_with("http://")))
}

/// An HTTP client that follows no redirect: a body must not go where nobody configured it to go.
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp);
        let client = reqwest::Client::builder()
            .user_agent(concat!("lifeboat/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .https_only(plain.as_deref() != Some("true"))
            .http1_only()
            .build();
        let client = client.map_err(|error| object_store::Error::Generic {
            store: "HTTP client",
            source: error.into(),
        })?;
        Ok(HttpClient::new(client))
    }
}

/// Variables that the clouds' own tools read; the crate would read all of the process.
fn configure<K: std::str::FromStr, B>(
    environment: &Environment,
    names: &[&str],
    builder: B,
    set: impl Fn(B, K, String) -> B,
) -> B {
    names.iter().fold(builder, |builder, name| {
        match (environment.variable(name), name.to_ascii_lowercase().parse()) {
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
    let mut builder =
        configure(environment, &NAMES, AmazonS3Builder::new(), |builder, key, value| {
            builder.with_config(key, value)
        });
    if let Some(region) = &location.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &location.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    builder
        .with_bucket_name(bucket)
        .with_client_options(client(location, environment))
        .with_http_connector(Connector)
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
        .with_http_connector(Connector)
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
        .with_http_connector(Connector)
        .with_retry(no_retries())
        .build()
}
