use std::collections::BTreeMap;
use std::fs;

use anyhow::{Result, ensure};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_repository::keys::{Encryption, OpenWith, VaultSecrets, make_slot};
use lifeboat_repository::object::ObjectType;
use lifeboat_repository::regions::Regions;
use lifeboat_repository::repository::{ExclusiveCreate, FormatBody, encode_body};
use lifeboat_repository::{enroll, layout};
use lifeboat_testkit::store::{Fault, FaultProxy, Profile, S3Server};

use super::*;
use crate::epochs::tests::{record, suite};

/// East in a directory, west in a store that can fail; two writers, and one of nobody.
struct Site {
    folder: tempfile::TempDir,
    _server: S3Server,
    west: FaultProxy,
    environment: Environment,
    places: Vec<(RegionName, Location)>,
}

impl Site {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let server = S3Server::start()?;
        let west = FaultProxy::start(server.endpoint(), Profile::CALM, 1)?;
        let variables = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"];
        let variables = variables.map(|name| (name.to_owned(), "east-1".to_owned()));
        let environment = Environment::system().with_variables(BTreeMap::from(variables));
        let east = Location::new(&format!("file://{}/east", folder.path().display()))?;
        let bucket = Location::new(&format!("s3://{}/west", S3Server::BUCKET))?;
        let bucket = bucket.with_endpoint(Some(west.endpoint().to_owned()));
        let places = vec![("east".parse()?, east), ("west".parse()?, bucket)];
        let secrets = VaultSecrets::create(&environment, Encryption::None)?;
        let mut repositories = Vec::new();
        for (region, location) in &places {
            repositories.push(make(&environment, region, location, &secrets).await?);
        }
        let mut regions = Regions::new(repositories, Vec::new())?;
        for label in ["controller-0", "controller-1"] {
            let writer = enroll::enroll(&environment, &mut regions, &secrets, label).await?;
            writer.save(&folder.path().join(label))?;
        }
        let nobody = WriterKey::create(&environment, secrets.vault(), "nobody");
        nobody.save(&folder.path().join("controller-2"))?;
        Ok(Self { folder, _server: server, west, environment, places })
    }

    fn archive(&self, writer: usize) -> Result<RepositoryEpochs> {
        let writer = WriterKey::load(&self.folder.path().join(format!("controller-{writer}")))?;
        Ok(RepositoryEpochs::at(&self.places, &self.environment, writer)?)
    }

    fn lose_west(&self, fault: Fault) {
        self.west.fail_calls(0..=usize::MAX, fault);
    }

    fn object(&self, epoch: u32) -> std::path::PathBuf {
        self.folder.path().join(format!("east/epochs/payments/{epoch:08x}"))
    }
}

async fn make(
    environment: &Environment,
    region: &RegionName,
    location: &Location,
    secrets: &VaultSecrets,
) -> Result<Repository> {
    let store = Store::open(location, environment, Options::default())?;
    store.create_root().await?;
    let slot = make_slot(environment, secrets, &OpenWith::Open, "open")?;
    let key = layout::slot(1)?;
    let bytes = encode_body(secrets.vault(), &key, ObjectType::Slot, &slot, None)?;
    store.create(&key, bytes).await?;
    let format = FormatBody {
        lifeboat_repository: 1,
        vault: secrets.vault().clone(),
        region: region.to_string(),
        created_at: environment.clock().now(),
        exclusive_create: ExclusiveCreate::Proven,
    };
    Ok(Repository::create(store, format, &secrets.root()?).await?)
}

fn names(regions: &[RegionName]) -> Vec<&str> {
    regions.iter().map(RegionName::as_str).collect()
}

#[tokio::test]
async fn repositories_behave_as_an_archive() -> Result<()> {
    let site = Site::start().await?;
    suite(&site.archive(0)?, &site.archive(1)?).await
}

#[tokio::test]
async fn who_creates_the_same_with_the_same_key_creates_the_same_bytes() -> Result<()> {
    let site = Site::start().await?;
    let service: ServiceName = "payments".parse()?;
    site.archive(0)?.record(&service, &record(1, "east", 1)?).await?;
    let first = fs::read(site.object(1))?;
    fs::remove_file(site.object(1))?;
    site.archive(0)?.record(&service, &record(1, "east", 1)?).await?;
    ensure!(fs::read(site.object(1))? == first);
    Ok(())
}

#[tokio::test]
async fn an_epoch_lies_in_every_region_and_is_given_once() -> Result<()> {
    let site = Site::start().await?;
    let service: ServiceName = "payments".parse()?;
    let (one, other) = (site.archive(0)?, site.archive(1)?);
    ensure!(one.highest(&service).await? == None);
    let first = record(4, "west", 7)?;
    ensure!(names(&one.record(&service, &first).await?) == ["east", "west"]);
    let known = other.highest(&service).await?.expect("an epoch");
    ensure!(known.epoch == 4 && known.region == Some("west".parse()?), "{known:?}");
    ensure!(names(&known.repositories) == ["east", "west"] && other.away().is_empty());

    // The same move, carried on by another controller with its own key and clock.
    let mut again = first.clone();
    again.began = SystemClock.now();
    ensure!(names(&other.record(&service, &again).await?) == ["east", "west"]);
    for another in [record(4, "east", 7)?, record(4, "west", 8)?] {
        let refused = other.record(&service, &another).await.expect_err("given twice");
        ensure!(refused.code() == Code::EpochTaken, "{refused:?}");
        ensure!(refused.to_string().contains("west, run 7"), "{refused}");
    }
    // Numbers grow, and each service has its own.
    other.record(&service, &record(9, "east", 8)?).await?;
    ensure!(one.highest(&service).await?.map(|known| known.epoch) == Some(9));
    ensure!(one.highest(&"books".parse()?).await? == None);
    Ok(())
}

#[tokio::test]
async fn a_dead_region_is_named_and_catches_up_when_it_is_back() -> Result<()> {
    let site = Site::start().await?;
    let service: ServiceName = "payments".parse()?;
    let archive = site.archive(0)?;
    archive.record(&service, &record(1, "east", 1)?).await?;
    for (epoch, fault) in [(2, Fault::Silence), (3, Fault::Error), (4, Fault::Reset)] {
        site.lose_west(fault);
        let start = SystemClock.elapsed();
        let known = archive.highest(&service).await?.expect("an epoch");
        ensure!(known.epoch == epoch - 1 && names(&known.repositories) == ["east"], "{known:?}");
        let having = archive.record(&service, &record(epoch, "west", epoch)?).await?;
        let took = SystemClock.elapsed().saturating_sub(start);
        ensure!(names(&having) == ["east"], "{having:?}");
        // Not a matter of speed: without the limits, a silent store is waited for without end.
        ensure!(took < Duration::from_secs(3), "a dead region delayed a move by {took:?}");
        let away = archive.away();
        ensure!(away.len() == 1 && away.iter().all(|one| one.region.as_str() == "west"));

        site.west.reset();
        let back = site.archive(1)?;
        let known = back.highest(&service).await?.expect("an epoch");
        ensure!(known.epoch == epoch && names(&known.repositories) == ["east", "west"]);
        // West has it by itself now.
        fs::rename(site.folder.path().join("east"), site.folder.path().join("gone"))?;
        let alone = site.archive(1)?;
        let known = alone.highest(&service).await?.expect("an epoch");
        ensure!(known.epoch == epoch && names(&known.repositories) == ["west"], "{known:?}");
        fs::rename(site.folder.path().join("gone"), site.folder.path().join("east"))?;
    }
    Ok(())
}

#[tokio::test]
async fn without_any_repository_it_is_not_known() -> Result<()> {
    let site = Site::start().await?;
    let service: ServiceName = "payments".parse()?;
    let archive = site.archive(0)?;
    site.lose_west(Fault::Reset);
    fs::rename(site.folder.path().join("east"), site.folder.path().join("gone"))?;
    let failure = archive.highest(&service).await.expect_err("nobody answers");
    ensure!(failure.code() == Code::StoreUnavailable, "{failure:?}");
    ensure!(archive.away().len() == 2);
    ensure!(archive.record(&service, &record(1, "east", 1)?).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_number_that_was_used_counts_whatever_lies_below_it() -> Result<()> {
    let site = Site::start().await?;
    let service: ServiceName = "payments".parse()?;
    let archive = site.archive(0)?;
    archive.record(&service, &record(1, "east", 1)?).await?;
    // Damaged in one region: the other one says whose it is.
    let good = fs::read(site.object(1))?;
    fs::write(site.object(1), good.get(1..).unwrap_or_default())?;
    let known = archive.highest(&service).await?.expect("an epoch");
    ensure!(known.epoch == 1 && known.region == Some("east".parse()?), "{known:?}");
    // Signed by nobody whom the root certified: used, and nobody's.
    site.archive(2)?.record(&service, &record(2, "west", 2)?).await?;
    let known = archive.highest(&service).await?.expect("an epoch");
    ensure!(known.epoch == 2 && known.region.is_none(), "{known:?}");
    // Two regions that say something else.
    fs::remove_file(site.object(2))?;
    site.lose_west(Fault::Reset);
    archive.record(&service, &record(3, "east", 3)?).await?;
    site.west.reset();
    fs::rename(site.folder.path().join("east"), site.folder.path().join("gone"))?;
    let other = site.archive(1)?;
    other.record(&service, &record(3, "west", 4)?).await?;
    fs::rename(site.folder.path().join("gone"), site.folder.path().join("east"))?;
    let known = site.archive(0)?.highest(&service).await?.expect("an epoch");
    ensure!(known.epoch == 3 && known.region.is_none(), "{known:?}");
    Ok(())
}
