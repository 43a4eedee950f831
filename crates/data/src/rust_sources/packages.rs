//! Which packages the project depends on, and where their sources are.
//!
//! `cargo tree` is asked and not `cargo metadata`: the latter wants the sources of development dependencies
//! too, and fails without network on a machine that built the programs but never the tests.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use tritforge_support::counted;

/// The sources of one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    /// Name and version, e.g. `serde-1.0.229`.
    pub(super) name: String,
    /// The directory with its `Cargo.toml`.
    pub(super) dir: PathBuf,
}

/// Packages of crates.io, sorted by name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packages {
    pub(super) present: Vec<Package>,
    /// Packages that are listed but whose sources are not on this machine.
    pub(super) absent: Vec<String>,
}

/// Packages of this workspace that are passed over with all that only they need: the readers of tables and
/// the client of the hub. The corpus is what it was before they came, and they are most of the packages.
const PRUNED: [&str; 4] = ["csv", "glob", "hf-hub", "parquet"];

/// Finds the dependencies of a manifest, and of this workspace by default.
pub(super) fn find(manifest: Option<&Path>) -> Result<Packages, String> {
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    let manifest = match manifest {
        Some(path) if !path.is_file() => return Err(format!("{}: no such file", path.display())),
        Some(path) => Some(path),
        None => Some(built_from.as_path()).filter(|path| path.is_file()),
    };
    // cargo refuses to prune what is not there, so another workspace is taken whole.
    let own = manifest == Some(built_from.as_path());
    let listing = cargo_tree(manifest, if own { &PRUNED } else { &[] })?;
    let versions = newest(&listing);
    if versions.is_empty() {
        return Err("cargo tree lists no packages from crates.io".to_string());
    }
    locate(&versions, &registries()?)
}

/// The packages that the default members need on this platform, one a line.
fn cargo_tree(manifest: Option<&Path>, pruned: &[&str]) -> Result<String, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command.args(["tree", "--locked", "--offline", "--edges", "normal,build", "--prefix", "none"]);
    command.args(["--format", "{p}", "--color", "never"]);
    for name in pruned {
        command.args(["--prune", name]);
    }
    if let Some(path) = manifest {
        command.arg("--manifest-path").arg(path);
    }
    let output = command.output().map_err(|e| format!("cannot run {}: {e}", cargo.display()))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo tree failed: {}", message.trim()));
    }
    String::from_utf8(output.stdout).map_err(|_| "cargo tree printed text that is not UTF-8".to_string())
}

/// Names with the newest version of each, from lines such as `serde_derive v1.0.229 (proc-macro) (*)`. Lines
/// with another note are packages from a path, a git repository or another registry.
fn newest(listing: &str) -> BTreeMap<String, String> {
    let mut versions: BTreeMap<String, String> = BTreeMap::new();
    for line in listing.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(version)) = (words.next(), words.next().and_then(|v| v.strip_prefix('v')))
        else {
            continue;
        };
        if words.any(|note| note != "(proc-macro)" && note != "(*)") {
            continue;
        }
        let known = versions.entry(name.to_string()).or_insert_with(|| version.to_string());
        if precedence(version) > precedence(known) {
            *known = version.to_string();
        }
    }
    versions
}

/// The numbers of a version, and whether it is a release: enough to tell which of two is newer.
fn precedence(version: &str) -> (Vec<u64>, bool, &str) {
    let version = version.split('+').next().unwrap_or(version);
    let (numbers, pre) = version.split_once('-').unwrap_or((version, ""));
    (numbers.split('.').map(|n| n.parse().unwrap_or(0)).collect(), pre.is_empty(), pre)
}

/// Directories into which cargo unpacked registries.
fn registries() -> Result<Vec<PathBuf>, String> {
    let home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => env::home_dir().ok_or("neither CARGO_HOME nor a home directory is set")?.join(".cargo"),
    };
    let src = home.join("registry/src");
    let entries = std::fs::read_dir(&src).map_err(|e| format!("{}: {e}", src.display()))?;
    let mut dirs: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    dirs.sort();
    Ok(dirs)
}

fn locate(versions: &BTreeMap<String, String>, registries: &[PathBuf]) -> Result<Packages, String> {
    let (mut present, mut absent) = (Vec::new(), Vec::new());
    for (name, version) in versions {
        let name = format!("{name}-{version}");
        match registries.iter().map(|r| r.join(&name)).find(|dir| dir.join("src").is_dir()) {
            Some(dir) => present.push(Package { name, dir }),
            None => absent.push(name),
        }
    }
    if present.is_empty() {
        let searched: Vec<_> = registries.iter().map(|r| r.display().to_string()).collect();
        return Err(format!(
            "none of {} unpacked in {}",
            counted(absent.len(), "package"),
            searched.join(", ")
        ));
    }
    Ok(Packages { present, absent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crates_io_packages_count_and_the_newest_of_each() {
        let listing = "\
tritforge-cli v0.1.0 (/home/someone/tritforge/crates/cli)
serde_derive v1.0.229 (proc-macro) (*)
rand v0.9.5
rand v0.10.3 (*)
rand v0.10.3-rc.1
toml v1.2.1+spec-1.1.0

other v1.0.0 (https://example.org/other.git#12345678)
private v1.0.0 (registry `private`)
";
        let expected = [("rand", "0.10.3"), ("serde_derive", "1.0.229"), ("toml", "1.2.1+spec-1.1.0")];
        let expected = expected.map(|(n, v)| (n.to_string(), v.to_string()));
        assert_eq!(newest(listing), BTreeMap::from(expected));
    }

    #[test]
    fn sources_are_found_where_cargo_unpacks_them() {
        let dir = tempfile::tempdir().unwrap();
        let registry = dir.path().join("index.crates.io-0");
        std::fs::create_dir_all(registry.join("a-1.0.0/src")).unwrap();
        let versions = |names: &[&str]| names.iter().map(|n| (n.to_string(), "1.0.0".to_string())).collect();
        let found = locate(&versions(&["a", "b"]), std::slice::from_ref(&registry)).unwrap();
        assert_eq!(found.present, [Package { name: "a-1.0.0".into(), dir: registry.join("a-1.0.0") }]);
        assert_eq!(found.absent, ["b-1.0.0"]);
        assert!(locate(&versions(&["b"]), &[registry]).unwrap_err().contains("none of 1 package unpacked"));
    }

    #[test]
    fn a_missing_manifest_is_named() {
        let error = find(Some(Path::new("absent/Cargo.toml"))).unwrap_err();
        assert!(error.contains("absent/Cargo.toml: no such file"), "{error}");
    }
}
