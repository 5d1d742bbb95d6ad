//! A standby made from the repository, moves to it, and ways back.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lifeboat_drivers::{InstanceDriver, StartAs};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_model::{Lsn, Timeline};
use lifeboat_quorum::{Instance, Return};
use lifeboat_scenarios::moved::{Regions, on_one_thread, same};
use lifeboat_telemetry::Code;
use lifeboat_testkit::process::PATIENCE;

/// How many transactions pgbench says were committed.
fn processed(said: &str) -> Result<u64> {
    let line = said.lines().find(|line| line.contains("transactions actually processed"));
    let count = line.and_then(|line| line.rsplit_once(": ")).context("no count")?.1;
    let digits: String = count.chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

#[test]
fn a_standby_is_made_under_load_and_takes_over_without_loss() -> Result<()> {
    on_one_thread(async {
        let regions = Regions::start(15, |builder| builder).await?;
        let Regions { east, west, world } = &regions;
        east.pgbench(world, &["-i", "-q"])?.wait(PATIENCE)?.success()?;
        let load = east.pgbench(world, &["-c", "4", "-T", "300", "-n"])?;
        let made = regions.standby().await?;
        ensure!(made.stdout.contains("slot standby_west_1"), "{}", made.stdout);
        // Again, the directory is not empty: refused.
        let again = world.arguments("west", &["standby", "create", "shop/main"]);
        let again = world.lifeboat.run(again)?;
        ensure!(again.code == Some(4) && again.stderr.contains("LB6002"), "{again}");
        assert_eq!(west.driver.readiness().await?, Vec::<String>::new());

        tokio::time::sleep(Duration::from_secs(1)).await;
        let began = SystemClock.elapsed();
        let ended = east.driver.release().await?;
        // Repeated, it says the same and changes nothing.
        assert_eq!(east.driver.release().await?, ended);
        west.replays(ended.end).await?;
        west.takes_over().await?;
        let took = SystemClock.elapsed() - began;
        let told = processed(&load.wait(PATIENCE)?.stdout)?;
        let kept: u64 = west.psql(world, "SELECT count(*) FROM pgbench_history")?.parse()?;
        println!("{took:?} from release to the first write, {told} told, {kept} kept");
        ensure!(told > 0 && kept >= told, "{told} were told, {kept} are there");
        let Instance::Primary { timeline, .. } = west.instance().await? else {
            bail!("no primary")
        };
        assert_eq!(timeline, Timeline(2));
        assert_eq!(west.driver.fork().await?, Some(ended.end));

        // The old one follows as it is, and the way back is the same.
        let said = east.driver.come_back("west-1".parse()?, Return::AsItIs).await?;
        ensure!(said.contains("has all of it"), "{said}");
        east.follow("west-1").await?;
        east.streams().await?;
        west.psql(world, "INSERT INTO pgbench_history (tid) VALUES (-1)")?;
        let Instance::Primary { flushed, .. } = west.instance().await? else { bail!("no primary") };
        east.replays(flushed).await?;
        same(&regions, "SELECT count(*), min(tid) FROM pgbench_history")?;
        archives(&regions, "00000002.history").await?;

        let ended = west.driver.release().await?;
        east.replays(ended.end).await?;
        east.takes_over().await?;
        let said = west.driver.come_back("east-1".parse()?, Return::AsItIs).await?;
        ensure!(said.contains("has all of it"), "{said}");
        west.follow("east-1").await?;
        west.streams().await?;
        archives(&regions, "00000003.history").await
    })
}

/// WAL of the node that writes now reaches the repositories, by the command of its own region.
async fn archives(regions: &Regions, name: &str) -> Result<()> {
    let to = regions.world.scratch.join("fetched");
    let to = to.display().to_string();
    let end = SystemClock.elapsed() + PATIENCE;
    loop {
        let words = ["wal", "fetch", name, &to, "--db", "shop/main"];
        let fetched = regions.world.archiver()?.run(regions.world.arguments("east", &words))?;
        if fetched.code == Some(0) {
            return Ok(());
        }
        let logs = (regions.log("east-1"), regions.log("west-1"));
        ensure!(SystemClock.elapsed() < end, "{name}: {fetched} {logs:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[test]
fn a_release_goes_back_to_the_old_primary() -> Result<()> {
    on_one_thread(async {
        let regions = Regions::start(15, |builder| builder).await?;
        regions.standby().await?;
        let Regions { east, west, world } = &regions;
        east.psql(world, "CREATE TABLE t AS SELECT 1 n")?;
        east.driver.release().await?;
        let deadline = east.far();
        east.driver.start(StartAs::Primary { deadline }).await?;
        east.writes().await?;
        east.driver.probe().await?;
        east.psql(world, "INSERT INTO t VALUES (2)")?;
        let Instance::Primary { timeline, .. } = east.instance().await? else {
            bail!("no primary")
        };
        assert_eq!(timeline, Timeline::FIRST);
        west.replays(regions.position()?).await?;
        same(&regions, "SELECT sum(n) FROM t").map(drop)
    })
}

/// V6b with an archive: what streaming lacks, restore_command supplies.
#[test]
fn the_repository_completes_a_standby_that_streams_nothing() -> Result<()> {
    on_one_thread(async {
        let regions = Regions::start(15, |builder| builder).await?;
        regions.standby().await?;
        let Regions { east, west, world } = &regions;
        west.driver.follow(None).await?;
        let before = west.instance().await?.furthest();
        east.psql(world, "CREATE TABLE t AS SELECT generate_series(1, 100000) n")?;
        let wanted = regions.position()?;
        ensure!(before < Some(wanted));
        east.psql(world, "SELECT pg_switch_wal()")?;
        let Instance::Standby { streaming, .. } = west.replays(wanted).await? else {
            bail!("no standby");
        };
        ensure!(!streaming);
        let killed = east.driver.fence().await?;
        ensure!(killed.processes > 0);
        west.takes_over().await?;
        assert_eq!(west.psql(world, "SELECT count(*) FROM t")?, "100000");
        Ok(())
    })
}

/// Writes that only the east has, and a west that was promoted without them.
async fn part(regions: &Regions) -> Result<Lsn> {
    let Regions { east, west, world } = regions;
    east.psql(world, "CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1)")?;
    west.replays(regions.position()?).await?;
    west.driver.follow(None).await?;
    east.psql(world, "INSERT INTO t SELECT generate_series(2, 1000)")?;
    east.driver.fence().await?;
    west.takes_over().await?;
    west.psql(world, "INSERT INTO t VALUES (-1)")?;
    let refused = east.driver.come_back("west-1".parse()?, Return::AsItIs).await;
    assert_eq!(refused.expect_err("it diverged").code(), Code::Diverged);
    west.driver.fork().await?.context("no fork")
}

async fn follows_again(regions: &Regions) -> Result<()> {
    let Regions { east, west, world } = regions;
    east.follow("west-1").await?;
    east.streams().await?;
    let Instance::Primary { flushed, .. } = west.instance().await? else { bail!("no primary") };
    east.replays(flushed).await?;
    assert_eq!(same(regions, "SELECT count(*), min(n) FROM t")?, "2|-1");
    let said = east.psql(world, "SELECT count(*) FROM pg_stat_wal_receiver")?;
    assert_eq!(said, "1");
    Ok(())
}

#[test]
fn what_diverged_is_rewound_and_follows() -> Result<()> {
    on_one_thread(async {
        let regions = Regions::start(15, |builder| builder).await?;
        regions.standby().await?;
        part(&regions).await?;
        let said = regions.east.driver.come_back("west-1".parse()?, Return::Rewind).await?;
        ensure!(said.contains("diverged at"), "{said}");
        follows_again(&regions).await
    })
}

/// R20: before anything changes, what only the old primary has is set apart.
#[test]
fn rows_that_only_the_old_primary_has_are_set_apart() -> Result<()> {
    on_one_thread(async {
        let regions = Regions::start(15, |builder| builder).await?;
        regions.standby().await?;
        let Regions { east, west, world } = &regions;
        east.psql(
            world,
            "CREATE TABLE \"Odd, name\" (id int, part text, note text, PRIMARY KEY (part, id));
             INSERT INTO \"Odd, name\" SELECT n, 'p' || n % 3, 'old' FROM generate_series(1, 3000) n;
             CREATE TABLE loose (n int); INSERT INTO loose VALUES (1);
             CREATE TABLE still (n int PRIMARY KEY); INSERT INTO still VALUES (1)",
        )?;
        west.replays(regions.position()?).await?;
        west.driver.follow(None).await?;
        east.psql(
            world,
            "INSERT INTO \"Odd, name\" VALUES (-1, 'a,b', NULL), (-2, 'a', '');
             UPDATE \"Odd, name\" SET note = 'a \"new\" one' WHERE id = 7;
             DELETE FROM \"Odd, name\" WHERE id IN (8, 9, 10);
             INSERT INTO loose VALUES (2);
             CREATE TABLE made (n int PRIMARY KEY); INSERT INTO made VALUES (1), (2)",
        )?;
        let end = regions.position()?;
        east.driver.fence().await?;
        west.takes_over().await?;
        west.psql(world, "DELETE FROM \"Odd, name\" WHERE id > 100; SELECT pg_switch_wal()")?;
        let fork = west.driver.fork().await?.context("no fork")?;
        archives(&regions, "00000002.history").await?;
        let before = fs::read(world.source.data().join("global/pg_control"))?;
        let said = east.driver.salvage(fork).await?;
        ensure!(said.contains("2 rows inserted, 1 updated, 3 deleted"), "{said}");
        ensure!(said.contains("public.loose: differs, and has no primary key"), "{said}");
        ensure!(said.contains("public.made: 2 rows inserted"), "{said}");
        ensure!(!said.contains("public.still"), "{said}");
        assert_eq!(east.driver.salvage(fork).await?, said, "it says the same again");
        assert_eq!(fs::read(world.source.data().join("global/pg_control"))?, before);

        let mut folder = world.source.data().to_owned();
        folder.set_extension("lifeboat");
        let folder = folder.join(format!("salvaged-{:016X}", fork.0));
        let file = |what: &str| {
            fs::read_to_string(folder.join(format!("postgres.public.Odd, name.{what}.csv")))
        };
        assert_eq!(file("inserted")?, "id,part,note\n-2,a,\"\"\n-1,\"a,b\",\n");
        assert_eq!(file("updated")?, "id,part,note\n7,p1,\"a \"\"new\"\" one\"\n");
        assert_eq!(file("deleted")?, "id,part,note\n9,p0,old\n10,p1,old\n8,p2,old\n");
        let left: Vec<_> = fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).collect();
        ensure!(left.iter().all(|path| path.is_file()), "sandboxes are left: {left:?}");
        // All that it wrote can be fetched along its own timeline.
        held(&regions, fork, end)
    })
}

/// The repositories hold the old timeline up to there.
fn held(regions: &Regions, fork: Lsn, end: Lsn) -> Result<()> {
    ensure!(fork < end);
    for region in ["east", "west"] {
        let streams = regions.world.repository(region).join("streams");
        let mut held = Lsn::ZERO;
        for stream in fs::read_dir(&streams)?.flatten() {
            let fragments = stream.path().join("fragments/00000001");
            for name in fs::read_dir(&fragments)?.flatten() {
                let name = name.file_name().to_string_lossy().into_owned();
                let last = name.split('-').nth(1).context("no name of a fragment")?;
                held = held.max(Lsn(u64::from_str_radix(last, 16)?));
            }
        }
        ensure!(held >= end, "{region} holds it up to {held}, not {end}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_rewound_is_copied_and_the_old_directory_stays() -> Result<()> {
    on_one_thread(async {
        let regions =
            Regions::start(15, |builder| builder.checksums(false).setting("wal_log_hints = off"))
                .await?;
        regions.standby().await?;
        part(&regions).await?;
        let east = &regions.east;
        let refused = east.driver.come_back("west-1".parse()?, Return::Rewind).await.unwrap_err();
        assert_eq!(refused.code(), Code::RewindFailed);
        let said = east.driver.come_back("west-1".parse()?, Return::Clone).await?;
        ensure!(said.contains("new copy"), "{said}");
        let data = regions.world.source.data();
        let around = fs::read_dir(data.parent().context("no folder")?)?;
        let old = around
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().contains("data.old-primary-"));
        ensure!(old.context("no old directory")?.path().join("PG_VERSION").exists());
        follows_again(&regions).await
    })
}
