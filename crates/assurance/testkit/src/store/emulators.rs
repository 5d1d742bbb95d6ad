//! Emulators of the clouds' object stores: other people's reading of the same protocols.
//!
//! `ensure_*` installs one into the test cache; a test that needs an emulator calls it through
//! [`Emulator::start`] and fails where that is impossible. Google's has none: those that install
//! without a compiler lack the XML API, so [`super::S3Server`] speaks its dialect.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::fmt::rfc2822::DateTimePrinter;
use lifeboat_environment::{Clock, SystemClock};

use crate::postgres::cache_directory;
use crate::process::{Running, run, wait_until};

/// Debian's interpreter: another one on the PATH may lack venv.
const PYTHON: &str = "/usr/bin/python3";
/// An emulator that does not answer by then never will.
const START: Duration = Duration::from_secs(60);
const AZURITE: &str = "azurite@3.37.0";
/// The account that Azurite knows; the key is printed in its manual.
const AZURE_ACCOUNT: &str = "devstoreaccount1";
const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Which emulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// S3, the stricter one.
    MiniStack,
    /// S3, another one.
    Moto,
    /// Azure Blob Storage.
    Azurite,
}

/// A running emulator with one empty bucket. Dropping it kills it.
#[derive(Debug)]
pub struct Emulator {
    product: Product,
    port: u16,
    _process: Running,
}

impl Emulator {
    /// The bucket or container that every emulator has.
    pub const BUCKET: &str = "lifeboat-test";

    /// Installs the emulator if it is not there, starts it on a free loopback port and makes the
    /// bucket.
    pub fn start(product: Product) -> Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut command = command(product, port)?;
        let mut process = Running::spawn(&mut command, None)?;
        let url = format!("http://127.0.0.1:{port}/");
        let answers = || {
            if !process.is_running()? {
                bail!("the emulator ended at once");
            }
            Ok(request("GET", &url, &[]).is_ok())
        };
        if !wait_until(START, answers).with_context(|| format!("cannot start {product:?}"))? {
            bail!("{product:?} did not answer within {} s", START.as_secs());
        }
        let emulator = Self { product, port, _process: process };
        emulator.make_bucket().with_context(|| format!("cannot make a bucket in {product:?}"))?;
        Ok(emulator)
    }

    /// The endpoint to give beside the URL.
    pub fn endpoint(&self) -> String {
        match self.product {
            Product::Azurite => format!("http://127.0.0.1:{}/{AZURE_ACCOUNT}", self.port),
            Product::MiniStack | Product::Moto => format!("http://127.0.0.1:{}", self.port),
        }
    }

    /// The URL of the bucket.
    pub fn url(&self) -> String {
        match self.product {
            Product::Azurite => format!("az://{}", Self::BUCKET),
            Product::MiniStack | Product::Moto => format!("s3://{}", Self::BUCKET),
        }
    }

    /// Environment variables with credentials that it takes.
    pub fn variables(&self) -> Vec<(String, String)> {
        let pairs = match self.product {
            Product::Azurite => {
                vec![
                    ("AZURE_STORAGE_ACCOUNT_NAME", AZURE_ACCOUNT),
                    ("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY),
                ]
            }
            Product::MiniStack | Product::Moto => vec![
                ("AWS_ACCESS_KEY_ID", "test"),
                ("AWS_SECRET_ACCESS_KEY", "test"),
                ("AWS_REGION", "us-east-1"),
            ],
        };
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn make_bucket(&self) -> Result<()> {
        let bucket = Self::BUCKET;
        let (url, headers) = match self.product {
            Product::Azurite => {
                (format!("{}/{bucket}?restype=container", self.endpoint()), azure_signature()?)
            }
            Product::MiniStack | Product::Moto => {
                (format!("{}/{bucket}", self.endpoint()), Vec::new())
            }
        };
        let status = request("PUT", &url, &headers)?;
        if !(200..300).contains(&status) {
            bail!("HTTP status {status}");
        }
        Ok(())
    }
}

fn command(product: Product, port: u16) -> Result<Command> {
    let mut command;
    match product {
        Product::MiniStack => {
            command = Command::new(ensure_ministack()?);
            // Its own server would listen on every address of the machine.
            let address = format!("127.0.0.1:{port}");
            command.args(["-m", "hypercorn", "ministack.app:app", "--bind", &address]);
        }
        Product::Moto => {
            command = Command::new(ensure_moto()?);
            command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        }
        Product::Azurite => {
            command = Command::new(ensure_azurite()?);
            let port = port.to_string();
            command.args(["--blobHost", "127.0.0.1", "--blobPort", &port]);
            command.args(["--inMemoryPersistence", "--skipApiVersionCheck", "--silent"]);
        }
    }
    command.current_dir("/tmp");
    Ok(command)
}

/// Installs MiniStack; the interpreter that knows it.
pub fn ensure_ministack() -> Result<PathBuf> {
    ensure_python("ministack-1.5.33", &["ministack==1.5.33", "hypercorn==0.18.0"])
}

/// Installs moto; the interpreter that knows it.
pub fn ensure_moto() -> Result<PathBuf> {
    ensure_python("moto-5.2.5", &["moto[server]==5.2.5"])
}

/// Installs Azurite; its program.
pub fn ensure_azurite() -> Result<PathBuf> {
    let home = ensure("azurite-3.37.0", |draft| {
        let mut install = Command::new("npm");
        install.args(["install", "--no-fund", "--no-audit", "--prefix"]).arg(draft).arg(AZURITE);
        run(&mut install)?.success().map(drop)
    })?;
    Ok(home.join("node_modules/.bin/azurite-blob"))
}

fn ensure_python(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let home = ensure(name, |draft| {
        run(Command::new(PYTHON).args(["-m", "venv"]).arg(draft))?.success()?;
        let mut install = Command::new(draft.join("bin/python"));
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        run(install.args(packages))?.success().map(drop)
    })?;
    Ok(home.join("bin/python"))
}

/// A folder of the cache that is there whole or not at all: it is filled under another name.
fn ensure(name: &str, install: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let home = cache_directory().join(name);
    if home.is_dir() {
        return Ok(home);
    }
    let cache = cache_directory();
    fs::create_dir_all(&cache)
        .with_context(|| format!("cannot make {}; set LIFEBOAT_TEST_CACHE", cache.display()))?;
    let draft = tempfile::tempdir_in(&cache)?;
    install(draft.path()).with_context(|| format!("cannot install {name}"))?;
    match fs::rename(draft.path(), &home) {
        Ok(()) => drop(draft.keep()),
        // Another test was faster.
        Err(_) if home.is_dir() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(home)
}

/// One request, for tests are not asynchronous where they start an emulator.
fn request(method: &str, url: &str, headers: &[(&str, String)]) -> Result<u16> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
    let mut request = client.request(method.parse()?, url).header("content-length", 0);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    // Inside a test's own runtime no other may block; a thread has none.
    let sent = std::thread::spawn(move || runtime.block_on(async { request.send().await }));
    match sent.join() {
        Ok(answer) => Ok(answer?.status().as_u16()),
        Err(_) => bail!("the request's thread panicked"),
    }
}

/// Azure's shared key over the one request that makes the container.
fn azure_signature() -> Result<Vec<(&'static str, String)>> {
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&SystemClock.now())?;
    let version = "2021-12-02";
    let (account, bucket) = (AZURE_ACCOUNT, Emulator::BUCKET);
    let text = format!(
        "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{version}\n\
         /{account}/{account}/{bucket}\nrestype:container"
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(AZURE_KEY)?);
    let signature = STANDARD.encode(hmac::sign(&key, text.as_bytes()));
    Ok(vec![
        ("x-ms-date", date),
        ("x-ms-version", version.to_owned()),
        ("authorization", format!("SharedKey {account}:{signature}")),
    ])
}
