//! Who may write what: users of a real etcd over TLS, and orders that are signed.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lifeboat_environment::{Environment, SeededRandom};
use lifeboat_model::Spec;
use lifeboat_quorum::{
    Authority, EtcdAdmin, EtcdStore, Identity, Invitation, Keys, Login, MemoryStore, Rights, Role,
    SignedStore, Store, StoreError, Transaction, decode,
};
use lifeboat_testkit::etcd::Cluster;
use lifeboat_testkit::quorum::{conformance, done, one_of_many, random_transactions};
use serde_json::json;

const WAIT: Duration = Duration::from_secs(10);

fn spec() -> Result<Spec> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../examples/two-regions.yaml");
    Ok(Spec::open(Path::new(path))?.accept()?)
}

/// A cluster with users: a controller and an agent in the east.
struct Site {
    cluster: Cluster,
    admin: EtcdAdmin,
    controller: Identity,
    agent: Identity,
}

impl Site {
    async fn start() -> Result<Self> {
        let cluster = Cluster::secure()?;
        let (environment, keys, spec) = (Environment::system(), Keys::default(), spec()?);
        let authority = cluster.authority()?;
        EtcdAdmin::new(&cluster.access(), WAIT)?.enable(authority.etcd_password()).await?;
        let admin = EtcdAdmin::new(&authority.enter(cluster.access()), WAIT)?;
        let east = "east".parse()?;
        let make = |name, role| authority.identity(&environment, name, role, &east);
        let controller = make("controller-east", Role::Controller)?;
        let agent = make("agent-east-1", Role::Agent)?;
        let rights = Rights::of_controller(&keys, &spec, &east);
        enroll(&admin, &controller, &rights).await?;
        let nodes = [("payments/ledger".parse()?, "east-1".parse()?)];
        enroll(&admin, &agent, &Rights::of_agent(&keys, &east, &nodes)).await?;
        Ok(Self { cluster, admin, controller, agent })
    }

    /// etcd as a user, without any signing: what a thief has.
    fn as_user(&self, identity: &Identity) -> Result<EtcdStore> {
        Ok(EtcdStore::new(&identity.enter(self.cluster.access()), WAIT)?)
    }

    fn signed(&self, identity: &Identity) -> Result<SignedStore> {
        let inner = Box::new(self.as_user(identity)?);
        Ok(SignedStore::new(inner, Keys::default(), identity)?)
    }
}

async fn enroll(admin: &EtcdAdmin, identity: &Identity, rights: &Rights) -> Result<()> {
    let login = identity.login();
    admin.set_user(&login.user, &login.password, rights).await?;
    Ok(())
}

#[tokio::test]
async fn a_stolen_agent_can_do_nothing_but_lie_about_itself() -> Result<()> {
    let site = Site::start().await?;
    let controller = site.as_user(&site.controller)?;
    let thief = site.as_user(&site.agent)?;
    let all = |name: &str| format!("lifeboat/services/payments/{name}");
    let own = ["status/ledger/east-1", "lease/ledger", "receivers/ledger/east/status"];
    for name in own {
        let at = done(&thief, Transaction::new().create(all(name), &1)).await?;
        done(&thief, Transaction::new().when(all(name), at).put(all(name), &2)).await?;
    }
    let theirs = ["epoch", "desired/ledger/east-1", "runs/0000000001/plan"];
    for name in theirs {
        done(&controller, Transaction::new().create(all(name), &1)).await?;
    }
    let before = controller.read("lifeboat/", 0).await?.entries;
    let forbidden = [
        Transaction::new().put(all("epoch"), &"mine"),
        Transaction::new().put(all("desired/ledger/east-1"), &"be the primary"),
        Transaction::new().create(all("desired/ledger/west-1"), &"stop"),
        Transaction::new().create(all("status/ledger/west-1"), &"I am fenced"),
        Transaction::new().create(all("lease/other"), &"mine"),
        Transaction::new().create(all("receivers/ledger/east/desired"), &"do not seal"),
        Transaction::new().create(all("receivers/ledger/west/status"), &"sealed"),
        Transaction::new().create(all("runs/0000000001/journal/000001"), &"done"),
        Transaction::new().create("lifeboat/observers/east/0000", &"all is well"),
        Transaction::new().create("lifeboat/services/books/lease/ledger", &"mine"),
        Transaction::new().delete(all("epoch")),
        Transaction::new().create("elsewhere", &"anything"),
        // What is allowed does not carry along what is not.
        Transaction::new().put(all("lease/ledger"), &3).put(all("epoch"), &"mine"),
    ];
    for transaction in forbidden {
        let commit = thief.commit(transaction.clone()).await;
        ensure!(matches!(commit, Err(StoreError::Denied(_))), "{transaction:?}: {commit:?}");
    }
    let after = controller.read("lifeboat/", 0).await?.entries;
    ensure!(before == after, "something was written");
    let outside = thief.read("", 0).await;
    ensure!(matches!(outside, Err(StoreError::Denied(_))), "{outside:?}");
    // Nor does it get itself more rights, or takes others theirs.
    let ladder = EtcdAdmin::new(&site.agent.enter(site.cluster.access()), WAIT)?;
    let more = Rights::of_operator(&Keys::default(), &spec()?);
    let granted = ladder.set_rights("agent-east-1", &more).await;
    ensure!(matches!(granted, Err(StoreError::Denied(_))), "{granted:?}");
    let removed = ladder.remove_user("controller-east").await;
    ensure!(matches!(removed, Err(StoreError::Denied(_))), "{removed:?}");
    Ok(())
}

#[tokio::test]
async fn a_controller_writes_no_lease_and_no_status_and_strangers_nothing() -> Result<()> {
    let site = Site::start().await?;
    let controller = site.as_user(&site.controller)?;
    let all = |name: &str| format!("lifeboat/services/payments/{name}");
    done(&controller, Transaction::new().create("lifeboat/observers/east/0000", &1)).await?;
    done(&controller, Transaction::new().create(all("receivers/ledger/west/desired"), &1)).await?;
    for key in
        [all("lease/ledger"), all("status/ledger/east-1"), "lifeboat/observers/west/0000".into()]
    {
        let commit = controller.commit(Transaction::new().put(key, &1)).await;
        ensure!(matches!(commit, Err(StoreError::Denied(_))), "{commit:?}");
    }
    let nobody = EtcdStore::new(&site.cluster.access(), WAIT)?;
    let read = nobody.read("lifeboat/", 0).await;
    ensure!(matches!(read, Err(StoreError::Denied(_))), "{read:?}");
    let login = Login { password: "wrong".to_owned().into(), ..site.agent.login() };
    let liar = EtcdStore::new(&site.cluster.access().with_login(login), WAIT)?;
    let read = liar.read("lifeboat/", 0).await;
    ensure!(matches!(read, Err(StoreError::Denied(_))), "{read:?}");

    // A new password ends the old one; a store that is open goes on with a new token only.
    let thief = site.as_user(&site.agent)?;
    thief.read("lifeboat/", 0).await?;
    let rights = Rights::of_agent(&Keys::default(), &"east".parse()?, &[]);
    site.admin.set_user("agent-east-1", "another", &rights).await?;
    let read = thief.read("lifeboat/", 0).await;
    ensure!(matches!(read, Err(StoreError::Denied(_))), "{read:?}");
    // Rights were taken away with it.
    let login = Login { password: "another".to_owned().into(), ..site.agent.login() };
    let agent = EtcdStore::new(&site.cluster.access().with_login(login), WAIT)?;
    let commit = agent.commit(Transaction::new().put(all("lease/ledger"), &1)).await;
    ensure!(matches!(commit, Err(StoreError::Denied(_))), "{commit:?}");
    // A change of any user makes every token old; nobody notices.
    done(&controller, Transaction::new().put("lifeboat/observers/east/0000", &2)).await?;
    Ok(())
}

#[tokio::test]
async fn orders_are_believed_from_controllers_alone() -> Result<()> {
    let site = Site::start().await?;
    let (controller, agent) = (site.signed(&site.controller)?, site.signed(&site.agent)?);
    let order = "lifeboat/services/payments/desired/ledger/east-1".to_owned();
    let other = "lifeboat/services/payments/desired/ledger/west-1".to_owned();
    let lease = "lifeboat/services/payments/lease/ledger".to_owned();
    let at =
        done(&controller, Transaction::new().create(&order, &json!({"goal": "serve"}))).await?;
    let found = agent.read("lifeboat/", 0).await?;
    ensure!(found.get(&order).map(decode) == Some(Ok(json!({"goal": "serve"}))), "{found:?}");
    done(&agent, Transaction::new().create(&lease, &1)).await?;
    let commit = agent.commit(Transaction::new().when(&order, at).put(&order, &"x")).await;
    ensure!(matches!(commit, Err(StoreError::Denied(_))), "{commit:?}");

    // Whoever got hold of etcd itself can write anything, and is not believed.
    let root = site.cluster.authority()?.enter(site.cluster.access());
    let owner = EtcdStore::new(&root, WAIT)?;
    let good = owner.read(&order, 0).await?.entries.first().cloned().context("no order")?;
    let text = String::from_utf8(good.value.clone())?;
    let stranger = Authority::create(&Environment::system())?;
    let east = "east".parse()?;
    let stranger =
        stranger.identity(&Environment::system(), "controller-east", Role::Controller, &east)?;
    let memory = MemoryStore::new();
    for identity in [&stranger, &site.agent] {
        let forger = SignedStore::new(Box::new(memory.clone()), Keys::default(), identity)?;
        // An agent's own store refuses to sign; a thief changes the program.
        let _ = forger.commit(Transaction::new().put(&order, &"forged")).await;
    }
    let forged = memory.look(&order, 0).entries.first().cloned().context("no forgery")?;
    let bad = [
        (order.clone(), br#"{"goal":"serve"}"#.to_vec()),
        (order.clone(), text.replace("serve", "sever").into_bytes()),
        (order.clone(), text.replace("controller-east", "controller-west").into_bytes()),
        (order.clone(), forged.value),
        (other.clone(), good.value.clone()),
        (order.clone(), b"nothing".to_vec()),
    ];
    for (key, value) in bad {
        put(&owner, &key, Some(value.clone())).await?;
        let read = agent.read("lifeboat/", 0).await;
        let named = matches!(&read, Err(StoreError::Damaged { key: named, .. }) if *named == key);
        ensure!(named, "{}: {read:?}", String::from_utf8_lossy(&value));
        put(&owner, &key, if key == order { Some(good.value.clone()) } else { None }).await?;
        agent.read("lifeboat/", 0).await?;
    }

    // The authority signs what stood there before it did.
    put(&owner, &order, Some(b"\"from before\"".to_vec())).await?;
    let signing = site.cluster.authority()?.sign(Box::new(owner), Keys::default())?;
    ensure!(signing.sign_all().await? == 1 && signing.sign_all().await? == 0);
    let found = agent.read("lifeboat/", 0).await?;
    ensure!(found.get(&order).map(decode) == Some(Ok("from before".to_owned())), "{found:?}");
    Ok(())
}

async fn put(store: &EtcdStore, key: &str, value: Option<Vec<u8>>) -> Result<()> {
    let mut transaction = Transaction::new();
    transaction.puts.push(lifeboat_quorum::Put { key: key.to_owned(), value });
    done(store, transaction).await.map(drop)
}

#[tokio::test]
async fn a_store_with_signed_orders_does_what_every_store_does() -> Result<()> {
    let environment = Environment::system();
    let authority = Authority::create(&environment)?;
    let memory = MemoryStore::new();
    let store = |name: &str| -> Result<SignedStore> {
        let west = "west".parse()?;
        let identity = authority.identity(&environment, name, Role::Controller, &west)?;
        Ok(SignedStore::new(Box::new(memory.clone()), Keys::default(), &identity)?)
    };
    let (one, other) = (store("one")?, store("other")?);
    conformance(&one, &other, "lifeboat/").await?;
    let runs = "lifeboat/services/payments/runs/";
    one_of_many(&[&one, &other], &format!("{runs}race/")).await?;
    let random = SeededRandom::new(5);
    random_transactions(&[&one, &other], &format!("{runs}random/"), &random, 80).await?;
    ensure!(
        memory.look(runs, 0).entries.iter().all(|entry| entry.value.starts_with(b"{\"value\""))
    );
    Ok(())
}

#[tokio::test]
async fn an_invitation_is_taken_once_and_only_with_its_token() -> Result<()> {
    let site = Site::start().await?;
    let environment = Environment::system();
    let keys = Keys::default();
    let now = environment.clock().now();
    let later = now + Duration::from_secs(3600);
    let invitation = Invitation::new(&environment);
    let login = invitation.login();
    site.admin.set_user(&login.user, &login.password, &invitation.rights(&keys)).await?;
    let authority = EtcdStore::new(&site.cluster.authority()?.enter(site.cluster.access()), WAIT)?;
    let sealed = invitation.seal(&site.agent, later)?;
    done(&authority, Transaction::new().create(invitation.key(&keys), &sealed)).await?;

    let token = invitation.token();
    let told: Invitation = token.parse()?;
    let guest = EtcdStore::new(&site.cluster.access().with_login(told.login()), WAIT)?;
    let read = guest.read("lifeboat/", 0).await;
    ensure!(matches!(read, Err(StoreError::Denied(_))), "{read:?}");
    let written = guest.commit(Transaction::new().put("lifeboat/services/a/epoch", &1)).await;
    ensure!(matches!(written, Err(StoreError::Denied(_))), "{written:?}");
    let taken = told.take(&guest, &keys, now).await?;
    ensure!(taken.certificate == site.agent.certificate);
    done(&site.as_user(&taken)?, Transaction::new()).await?;
    let again = told.take(&guest, &keys, now).await;
    ensure!(again.is_err_and(|failure| failure.to_string().contains("used before")));

    ensure!(told.open(&sealed, later + Duration::from_secs(1)).is_err(), "it has expired");
    ensure!(Invitation::new(&environment).open(&sealed, now).is_err(), "another token");
    let whole = token.as_str();
    for broken in [whole.get(1..), whole.get(..whole.len() - 1), Some("lifeboat-"), Some("")] {
        ensure!(broken.is_some_and(|broken| broken.parse::<Invitation>().is_err()), "{broken:?}");
    }
    Ok(())
}

#[tokio::test]
async fn secrets_are_in_files_of_their_owner_and_in_no_message() -> Result<()> {
    let environment = Environment::system();
    let authority = Authority::create(&environment)?;
    let east = "east".parse()?;
    let identity = authority.identity(&environment, "agent-east-1", Role::Agent, &east)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(Identity::FILE);
    ensure!(Identity::find(&path)?.is_none());
    identity.save(&path)?;
    let read = Identity::load(&path)?;
    ensure!(read.certificate == identity.certificate);
    let password = identity.login().password;
    let shown = format!("{identity:?} {authority:?} {:?}", identity.login());
    ensure!(!shown.contains(password.as_str()) && !shown.contains(authority.etcd_password()));

    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640))?;
    let Err(failure) = Identity::load(&path) else {
        bail!("a file that others can read was taken");
    };
    ensure!(failure.to_string().contains("readable by others"), "{failure}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    // An identity that was given more than its authority said is none.
    let more = std::fs::read_to_string(&path)?.replace("\"agent\"", "\"controller\"");
    std::fs::write(&path, more)?;
    ensure!(Identity::load(&path).is_err());
    let file = folder.path().join(Authority::FILE);
    authority.save(&file)?;
    ensure!(Authority::load(&file)?.root()? == authority.root()?);
    Ok(())
}
