//! Random search: points that are drawn from distributions and lists, the same ones for the same seed.

use tritforge_recipe::nearest;

use crate::experiment::{Axis, Setting};
use crate::random::SplitMix;

/// How many points are drawn, and from which seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trials {
    /// Points.
    pub count: usize,
    /// Seed of the draws; it has nothing to do with the seeds of runs.
    pub seed: u64,
}

/// Draws in a row that give points that are known already, after which no more are expected.
const PATIENCE: usize = 1000;

/// What a key, or keys that go together, may be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Space {
    /// The values of a list, each as likely as the others.
    Listed(Axis),
    /// A distribution of one key.
    Drawn(String, Law),
}

/// A distribution of numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Law {
    /// Every number between two as likely as the others.
    Uniform(f64, f64),
    /// The logarithm is uniform: as many draws from 1e-4 to 1e-3 as from 1e-3 to 1e-2.
    LogUniform(f64, f64),
    /// Every integer from one to another, both among them, as likely as the others.
    IntUniform(i64, i64),
}

impl Law {
    const NAMES: [&str; 3] = ["uniform", "log_uniform", "int_uniform"];

    /// Reads `uniform(0, 0.2)`, `log_uniform(1e-4, 1e-2)` or `int_uniform(1, 8)`; none for what has not the form of a
    /// distribution, as other values of recipes have not.
    pub(crate) fn of(text: &str) -> Option<Result<Self, String>> {
        let (name, bounds) = text.strip_suffix(')')?.split_once('(')?;
        (!name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
            .then(|| Self::read(name, bounds).map_err(|message| format!("\"{text}\": {message}")))
    }

    fn read(name: &str, bounds: &str) -> Result<Self, String> {
        let two = bounds.split_once(',').map(|(low, high)| (low.trim(), high.trim()));
        let (low, high) = two.ok_or_else(|| format!("expected two bounds, as in {name}(1, 2)"))?;
        if name == "int_uniform" {
            return match (low.parse::<i64>(), high.parse::<i64>()) {
                (Ok(low), Ok(high)) if low < high => Ok(Self::IntUniform(low, high)),
                _ => Err("expected two integers, the lower one first".to_string()),
            };
        }
        let read = |text: &str| text.parse::<f64>().ok().filter(|x| x.is_finite());
        let (low, high) = read(low)
            .zip(read(high))
            .filter(|(low, high)| low < high)
            .ok_or("expected two numbers, the lower one first")?;
        match name {
            "uniform" => Ok(Self::Uniform(low, high)),
            "log_uniform" if low > 0.0 => Ok(Self::LogUniform(low, high)),
            "log_uniform" => Err(format!("{low} has no logarithm: expected bounds above 0")),
            name => Err(match nearest(name, Self::NAMES.into_iter(), 0.7) {
                Some(near) => format!("no such distribution; did you mean {near}?"),
                None => format!("no such distribution; expected one of {}", Self::NAMES.join(", ")),
            }),
        }
    }

    /// A value as TOML writes it. Numbers have four significant digits, so that what is read in a table is what was
    /// trained.
    fn draw(self, random: &mut SplitMix) -> String {
        let (low, high, drawn) = match self {
            Self::IntUniform(low, high) => {
                // The width of all i64 is one more than a usize holds.
                let width = high.abs_diff(low).saturating_add(1) as usize;
                return low.wrapping_add_unsigned(random.below(width) as u64).to_string();
            }
            Self::Uniform(low, high) => {
                let at = random.unit();
                (low, high, low * (1.0 - at) + high * at)
            }
            Self::LogUniform(low, high) => {
                let at = random.unit();
                (low, high, (low.ln() * (1.0 - at) + high.ln() * at).exp())
            }
        };
        let rounded = format!("{drawn:.3e}").parse::<f64>().unwrap_or(drawn);
        format!("{:?}", rounded.clamp(low, high))
    }
}

/// The keys whose values differ between points: what has one value is the same in all of them.
pub(crate) fn varied(spaces: &[Space]) -> Vec<&str> {
    let keys = spaces.iter().flat_map(|space| match space {
        Space::Listed(axis) if axis.points.len() < 2 => Vec::new(),
        Space::Listed(axis) => axis.points[0].iter().map(|setting| setting.key.as_str()).collect(),
        Space::Drawn(key, _) => vec![key.as_str()],
    });
    keys.collect()
}

/// The name of a point: its values of these keys.
pub(crate) fn name(point: &[Setting], keys: &[&str]) -> String {
    let own = point.iter().filter(|setting| keys.contains(&setting.key.as_str()));
    own.map(Setting::short).collect::<Vec<_>>().join(", ")
}

/// Draws different points, each with a value of every space.
///
/// # Errors
/// If so many different points cannot be found.
pub(crate) fn draw(spaces: &[Space], trials: Trials) -> Result<Vec<Vec<Setting>>, String> {
    let mut random = SplitMix(trials.seed);
    let mut points: Vec<Vec<Setting>> = Vec::new();
    let mut known = 0;
    while points.len() < trials.count {
        let each = spaces.iter().map(|space| match space {
            Space::Listed(axis) => axis.points[random.below(axis.points.len())].clone(),
            Space::Drawn(key, law) => vec![Setting { key: key.clone(), value: law.draw(&mut random) }],
        });
        let point: Vec<Setting> = each.collect::<Vec<_>>().concat();
        if !points.contains(&point) {
            points.push(point);
            known = 0;
            continue;
        }
        known += 1;
        if known == PATIENCE {
            return Err(format!(
                "{}: only {} different points were found; give fewer (--trials, or trials in [random]), or run every combination of lists instead",
                tritforge_support::counted(trials.count, "trial"),
                points.len()
            ));
        }
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law(text: &str) -> Law {
        Law::of(text).unwrap().unwrap()
    }

    #[test]
    fn distributions_are_read_and_mistakes_are_named() {
        assert_eq!(law("uniform(0, 0.2)"), Law::Uniform(0.0, 0.2));
        assert_eq!(law("log_uniform(1e-4,1e-2)"), Law::LogUniform(1e-4, 1e-2));
        assert_eq!(law("int_uniform(-1, 8)"), Law::IntUniform(-1, 8));
        for value in ["1e-3", "absmean", "[0.9, 0.95]", "(1, 2)", "\"a(b)\""] {
            assert_eq!(Law::of(value), None, "{value}");
        }
        for (wrong, said) in [
            ("uniform(1)", "two bounds"),
            ("uniform(2, 1)", "lower one first"),
            ("uniform(a, b)", "two numbers"),
            ("uniform(0, inf)", "two numbers"),
            ("log_uniform(0, 1)", "above 0"),
            ("int_uniform(1, 2.5)", "two integers"),
            ("loguniform(1, 2)", "did you mean log_uniform?"),
            ("gauss(1, 2)", "expected one of uniform"),
        ] {
            let message = Law::of(wrong).unwrap().unwrap_err();
            assert!(message.contains(said), "{wrong}: {message}");
        }
    }

    /// Draws are inside of their bounds, and as many below each quantile as the distribution has there (the largest
    /// difference of Kolmogorov and Smirnov, whose 99.9 % quantile is 1.95/√n).
    #[test]
    fn draws_have_their_distribution() {
        type Cdf = fn(f64) -> f64;
        let cases: [(&str, Cdf); 2] = [
            ("uniform(-1, 3)", |x| (x + 1.0) / 4.0),
            ("log_uniform(1e-4, 1e-1)", |x| (x.log10() + 4.0) / 3.0),
        ];
        let n: i32 = 4000;
        for (text, cdf) in cases {
            let mut random = SplitMix(1);
            let mut drawn: Vec<f64> = (0..n).map(|_| law(text).draw(&mut random).parse().unwrap()).collect();
            drawn.sort_by(f64::total_cmp);
            let shares = drawn.iter().map(|x| cdf(*x));
            assert!(shares.clone().all(|share| (-1e-9..=1.0 + 1e-9).contains(&share)), "{text}");
            let far = shares.enumerate().map(|(i, share)| (share - i as f64 / f64::from(n)).abs());
            // Four digits leave a little.
            assert!(far.fold(0.0, f64::max) < 1.95 / f64::from(n).sqrt() + 1e-3, "{text}");
        }
        let mut random = SplitMix(2);
        let mut counts = [0i32; 4];
        for _ in 0..n {
            counts[law("int_uniform(3, 6)").draw(&mut random).parse::<usize>().unwrap() - 3] += 1;
        }
        // Six standard deviations.
        assert!(counts.iter().all(|count| (count - n / 4).abs() < 6 * 28), "{counts:?}");
        law(&format!("int_uniform({}, {})", i64::MIN, i64::MAX)).draw(&mut random);
    }

    #[test]
    fn a_seed_gives_the_same_points_and_no_point_twice() {
        let setting =
            |value: &str| vec![Setting { key: "quant.scale".to_string(), value: value.to_string() }];
        let list = Space::Listed(Axis { points: vec![setting("1"), setting("2")] });
        let spaces = [Space::Drawn("optim.lr".to_string(), law("log_uniform(1e-4, 1e-2)")), list.clone()];
        let of = |count, seed| draw(&spaces, Trials { count, seed }).unwrap();
        assert_eq!(of(6, 1), of(6, 1));
        assert_ne!(of(6, 1), of(6, 2));
        // More trials are the same ones and others.
        assert_eq!(of(6, 1)[..4], of(4, 1));
        assert!(of(6, 1).iter().all(|point| point.len() == 2));
        assert_eq!(draw(std::slice::from_ref(&list), Trials { count: 2, seed: 5 }).unwrap().len(), 2);
        let message = draw(&[list], Trials { count: 3, seed: 5 }).unwrap_err();
        assert!(message.contains("only 2 different points"), "{message}");
    }
}
