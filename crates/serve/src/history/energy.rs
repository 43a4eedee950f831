//! What the machine takes: measured by the processor (RAPL), or estimated from a power that the operator gives.
//!
//! Intel's and AMD's processors count the energy of each package; Linux shows the counters as
//! `/sys/class/powercap/intel-rapl:N/energy_uj`, which count microjoules up to `max_energy_range_uj` and begin anew. Most
//! systems let only root read them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Where Linux shows the counters.
pub(super) const POWERCAP: &str = "/sys/class/powercap";

/// Where the numbers come from.
#[derive(Debug)]
pub(super) enum Energy {
    /// Counters of all packages.
    Measured(Mutex<Counters>),
    /// Watts, since an instant.
    Estimated(f64, Instant),
}

#[derive(Debug)]
pub(super) struct Counters {
    packages: Vec<Package>,
    /// Of all packages since the first reading.
    microjoules: u64,
}

#[derive(Debug)]
struct Package {
    path: PathBuf,
    last: u64,
    range: u64,
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

impl Energy {
    /// The counters below a directory; without any that can be read, an estimate if there is a power for it.
    pub(super) fn find(powercap: &Path, watts: Option<f64>) -> Option<Self> {
        let entries = fs::read_dir(powercap).into_iter().flatten().filter_map(Result::ok);
        let mut packages: Vec<Package> = entries.filter_map(|entry| Package::open(&entry.path())).collect();
        packages.sort_by(|a, b| a.path.cmp(&b.path));
        if packages.is_empty() {
            return watts.map(|watts| Self::Estimated(watts, Instant::now()));
        }
        Some(Self::Measured(Mutex::new(Counters { packages, microjoules: 0 })))
    }

    /// Joules since it was found; none if a counter cannot be read any more.
    pub(super) fn joules(&self) -> Option<f64> {
        match self {
            Self::Measured(counters) => counters.lock().unwrap_or_else(PoisonError::into_inner).read(),
            Self::Estimated(watts, since) => Some(watts * since.elapsed().as_secs_f64()),
        }
    }

    /// How the numbers are to be called.
    pub(super) fn source(&self) -> &'static str {
        match self {
            Self::Measured(_) => "measured",
            Self::Estimated(..) => "estimate",
        }
    }
}

impl Package {
    /// A counter of a whole package: not one of its parts (`intel-rapl:0:1`), which it includes, and not `psys`, which
    /// includes it.
    fn open(dir: &Path) -> Option<Self> {
        let name = dir.file_name()?.to_str()?;
        let number_of = name.strip_prefix("intel-rapl:")?;
        if number_of.contains(':') || !fs::read_to_string(dir.join("name")).ok()?.starts_with("package") {
            return None;
        }
        let path = dir.join("energy_uj");
        let range = number(&dir.join("max_energy_range_uj"))?;
        Some(Self { last: number(&path)?, path, range })
    }
}

impl Counters {
    fn read(&mut self) -> Option<f64> {
        for Package { path, last, range } in &mut self.packages {
            let now = number(path)?;
            // It has begun anew once at most: a package would need thousands of watts to do so twice in a minute.
            self.microjoules += if now >= *last { now - *last } else { range.saturating_sub(*last) + now };
            *last = now;
        }
        Some(self.microjoules as f64 * 1e-6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(root: &Path, dir: &str, name: &str, energy: u64) {
        let dir = root.join(dir);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("name"), format!("{name}\n")).unwrap();
        fs::write(dir.join("max_energy_range_uj"), "1000000\n").unwrap();
        fs::write(dir.join("energy_uj"), format!("{energy}\n")).unwrap();
    }

    #[test]
    fn packages_are_summed_and_counters_begin_anew() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        domain(root, "intel-rapl:0", "package-0", 900_000);
        domain(root, "intel-rapl:1", "package-1", 100);
        domain(root, "intel-rapl:0:0", "core", 5);
        domain(root, "intel-rapl:2", "psys", 5);
        domain(root, "dtpm", "package-0", 5);
        let energy = Energy::find(root, Some(100.0)).unwrap();
        assert_eq!((energy.source(), energy.joules()), ("measured", Some(0.0)));
        domain(root, "intel-rapl:0", "package-0", 50_000);
        domain(root, "intel-rapl:1", "package-1", 200_100);
        domain(root, "intel-rapl:0:0", "core", 900_000);
        domain(root, "intel-rapl:2", "psys", 900_000);
        // From 900,000 to the end and on to 50,000, and 200,000 more.
        assert_eq!(energy.joules(), Some(0.35));
        assert_eq!(energy.joules(), Some(0.35));
        fs::remove_dir_all(root.join("intel-rapl:1")).unwrap();
        assert_eq!(energy.joules(), None);
    }

    #[test]
    fn without_counters_there_is_an_estimate_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for root in [dir.path().to_path_buf(), dir.path().join("absent")] {
            assert!(Energy::find(&root, None).is_none());
            let energy = Energy::find(&root, Some(50.0)).unwrap();
            assert_eq!(energy.source(), "estimate");
            let (a, b) = (energy.joules().unwrap(), energy.joules().unwrap());
            assert!(a >= 0.0 && b >= a);
        }
    }
}
