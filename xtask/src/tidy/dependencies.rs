//! Who may use whom (DESIGN section 2).

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde::Deserialize;

use super::Finding;

/// Every crate below `crates/`, in reading order: each may use only those before it.
const ORDER: [&str; 25] = [
    "foundation/environment",
    "foundation/telemetry",
    "foundation/model",
    "storage/objects",
    "storage/repository",
    "storage/audit",
    "postgres/wire",
    "postgres/cluster",
    "protection/wal",
    "protection/backup",
    "protection/restore",
    "protection/verification",
    "protection/replication",
    "control/quorum",
    "control/workflow",
    "control/drivers",
    "control/failover",
    "control/drill",
    "control/daemons",
    "surface/api",
    "surface/dashboard",
    "surface/lab",
    "surface/cli",
    // Never shipped; these may use everything.
    "assurance/testkit",
    "assurance/simulator",
];

/// A workspace member as `cargo metadata` tells it.
#[derive(Debug, Deserialize)]
pub struct Package {
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// Nothing for a normal dependency, else `dev` or `build`.
    kind: Option<String>,
    /// Where it lies, for crates of this workspace.
    path: Option<String>,
}

/// The members of the workspace at `root`.
pub fn packages(root: &Path) -> Result<Vec<Package>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let mut command = Command::new("cargo");
    command.args(["metadata", "--no-deps", "--offline", "--format-version=1"]).current_dir(root);
    let output = lifeboat_testkit::process::run(&mut command)?.success()?.stdout;
    Ok(serde_json::from_str::<Metadata>(&output)?.packages)
}

pub(super) fn check(packages: &[Package]) -> Vec<Finding> {
    packages.iter().flat_map(check_package).collect()
}

fn check_package(package: &Package) -> Vec<Finding> {
    // `tests` and `xtask` stand outside of `crates/` and may use everything.
    let Some(user) = folder_of(&package.manifest_path) else {
        return Vec::new();
    };
    let manifest = format!("crates/{user}/Cargo.toml");
    let Some(rank) = ORDER.iter().position(|known| *known == user) else {
        return vec![Finding::new(manifest, 0, "the crate has no place in tidy's ORDER")];
    };
    let mut findings = Vec::new();
    for dependency in &package.dependencies {
        if dependency.name == "object_store" && user != "storage/objects" {
            findings.push("only storage/objects may use object_store".to_owned());
        }
        let Some(used) = dependency.path.as_deref().and_then(|path| folder_of_crate(path)) else {
            continue;
        };
        let assurance = used.starts_with("assurance/");
        if assurance && dependency.kind.as_deref() == Some("dev") {
            continue;
        }
        if assurance && !user.starts_with("assurance/") {
            findings.push(format!("{used} is never shipped: only a dev-dependency may name it"));
        } else if ORDER.iter().position(|known| *known == used).is_none_or(|used| used >= rank) {
            findings.push(format!("{used} comes after {user} and must not be used by it"));
        }
    }
    findings.into_iter().map(|message| Finding::new(manifest.clone(), 0, message)).collect()
}

/// `foundation/model` of `/somewhere/crates/foundation/model/Cargo.toml`.
fn folder_of(manifest: &str) -> Option<&str> {
    folder_of_crate(manifest.strip_suffix("/Cargo.toml")?)
}

fn folder_of_crate(path: &str) -> Option<&str> {
    let (_, folder) = path.rsplit_once("/crates/")?;
    (folder.split('/').count() == 2).then_some(folder)
}

#[cfg(test)]
mod tests;
