use std::fs;
use std::process::{Child, Command};

use proptest::prelude::*;

use super::*;

/// As a real server of version 15 wrote it.
const PID_FILE: &str =
    "22686\n/srv/data\n1795222424\n54315\n/run/postgresql\n\n 10067969        30\nready   \n";

#[test]
fn the_pid_file_of_a_server_is_read() {
    let postmaster = Postmaster::parse(PID_FILE).unwrap();
    assert_eq!(
        postmaster,
        Postmaster {
            pid: 22686,
            data_directory: PathBuf::from("/srv/data"),
            port: Some(54315),
            socket_directory: Some(PathBuf::from("/run/postgresql")),
            ready: true,
        }
    );
    let starting = Postmaster::parse("-17\n/srv/data\n1795222424\n").unwrap();
    assert_eq!((starting.pid, starting.port, starting.ready), (17, None, false));
    for broken in ["", "x\n/d\n", "0\n/d\n", "12\n", "-2147483648\n/d\n"] {
        assert_eq!(Postmaster::parse(broken), None, "{broken:?}");
    }
}

/// Ends with the test.
struct Process(Child);

impl Process {
    /// A process that works in `directory` under the name `program`.
    fn start(directory: &Path, program: &str) -> Self {
        let path = directory.join(program);
        fs::copy("/bin/sleep", &path).unwrap();
        Self(Command::new(path).arg("600").current_dir(directory).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn write_pid(directory: &Path, pid: i32) {
    let content = format!("{pid}\n{}\n1\n5432\n/tmp\n", directory.display());
    fs::write(directory.join("postmaster.pid"), content).unwrap();
}

#[test]
fn a_server_is_running_while_its_process_works_in_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(running(directory.path()).unwrap(), Running::No);
    let process = Process::start(directory.path(), "postgres");
    write_pid(directory.path(), process.pid());
    let found = running(directory.path()).unwrap();
    assert!(matches!(found, Running::Server(it) if it.pid == process.pid()));
    let mut process = process;
    process.0.kill().unwrap();
    // A zombie still has its number.
    while fs::read_link(format!("/proc/{}/cwd", process.pid())).is_ok() {}
    assert_eq!(running(directory.path()).unwrap(), Running::No);
    drop(process);
    assert_eq!(running(directory.path()).unwrap(), Running::No);
}

#[test]
fn a_number_that_now_belongs_to_another_process_is_stale() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let process = Process::start(elsewhere.path(), "other");
    write_pid(directory.path(), process.pid());
    assert_eq!(running(directory.path()).unwrap(), Running::No);
}

#[test]
fn backends_that_outlive_their_server_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path(), "postgres");
    assert_eq!(running(directory.path()).unwrap(), Running::Orphans(vec![process.pid()]));
}

#[test]
fn the_configuration_of_the_last_start_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let options = |content: &str| {
        fs::write(directory.path().join("postmaster.opts"), content).unwrap();
        started_with(directory.path())
    };
    let debian = "/usr/lib/postgresql/15/bin/postgres \"-D\" \"/var/lib/postgresql/15/main\" \
                  \"-c\" \"config_file=/etc/postgresql/15/main/postgresql.conf\"\n";
    let config = PathBuf::from("/etc/postgresql/15/main/postgresql.conf");
    assert_eq!(options(debian), Some(config));
    assert_eq!(options("/bin/postgres \"--config-file=/x y.conf\"\n"), Some("/x y.conf".into()));
    assert_eq!(options("/bin/postgres \"-D\" \"/data\"\n"), None);
}

#[test]
fn debians_clusters_are_listed_with_their_data_directories() {
    let root = tempfile::tempdir().unwrap();
    for (version, name) in [("15", "main"), ("13", "old"), ("15", "archive"), ("9.6", "gone")] {
        let folder = root.path().join(version).join(name);
        fs::create_dir_all(&folder).unwrap();
        let content = format!("data_directory = '/var/lib/postgresql/{version}/{name}'\n");
        fs::write(folder.join("postgresql.conf"), content).unwrap();
    }
    fs::create_dir_all(root.path().join("15/empty")).unwrap();
    let clusters = debian_clusters(root.path());
    let names: Vec<_> = clusters.iter().map(|it| (it.release.major, it.name.as_str())).collect();
    assert_eq!(names, [(13, "old"), (15, "archive"), (15, "main")]);
    let data = clusters[2].data_directory.as_deref();
    assert_eq!(data, Some(Path::new("/var/lib/postgresql/15/main")));
    assert_eq!(debian_clusters(Path::new("/nonexistent")), []);
}

#[test]
fn versions_and_programs_are_found_or_named_as_missing() {
    let directory = tempfile::tempdir().unwrap();
    let version = |content: &str| {
        fs::write(directory.path().join("PG_VERSION"), content).unwrap();
        data_version(directory.path())
    };
    assert_eq!(version("16\n").unwrap().major, 16);
    assert_eq!(version("9.6\n").unwrap_err().code(), Code::ClusterUnsupported);
    assert_eq!(version("12\n").unwrap_err().code(), Code::ClusterUnsupported);
    fs::remove_file(directory.path().join("PG_VERSION")).unwrap();
    let failure = data_version(directory.path()).unwrap_err();
    assert_eq!(failure.code(), Code::DataDirectoryInvalid);

    let release = Release::of_major(15).unwrap();
    assert!(programs(release, Some(directory.path())).is_err());
    fs::write(directory.path().join("postgres"), "").unwrap();
    assert_eq!(programs(release, Some(directory.path())).unwrap(), directory.path());
}

proptest! {
    #[test]
    fn random_pid_files_never_panic(content in ".{0,200}") {
        prop_assert!(Postmaster::parse(&content).is_none_or(|it| it.pid > 0));
    }
}
