//! Whether the runs of two arms with the same seed are pairs.

use tritforge_train::Beginning;

/// How the runs of an arm relate to those of the baseline with the same seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pairing {
    /// Same data, same order, and the same initial weights wherever both have a tensor of the same name and shape.
    Paired {
        /// Tensors that both have.
        shared: usize,
        /// Tensors of the arm.
        of: usize,
    },
    /// Same data in the same order; no tensor of drawn weights is shared, or some differ.
    Data(String),
    /// Not even that, and why.
    Unpaired(String),
}

impl Pairing {
    /// Compares what runs begin with, for each seed both of them.
    pub fn of<'a>(seeds: impl Iterator<Item = (&'a Beginning, &'a Beginning)>) -> Self {
        let mut worst = None;
        for (arm, baseline) in seeds {
            let found = Self::of_seed(arm, baseline);
            match (&found, &worst) {
                (Self::Unpaired(_), _) => return found,
                (Self::Paired { .. }, Some(_)) => {}
                _ => worst = Some(found),
            }
        }
        worst.unwrap_or_else(|| Self::Unpaired("there are no seeds".to_string()))
    }

    fn of_seed(arm: &Beginning, baseline: &Beginning) -> Self {
        if arm.data != baseline.data {
            return Self::Unpaired("training or held-out tokens differ".to_string());
        }
        if arm.samples != baseline.samples {
            return Self::Unpaired("the order or the length of the samples differs".to_string());
        }
        let same_shape = arm.weights.iter().filter_map(|(name, print)| {
            let other = baseline.weights.get(name)?;
            (other.shape == print.shape).then_some((print, other))
        });
        let matrices = same_shape.filter(|(print, _)| print.shape.len() > 1);
        let (same, differ): (Vec<_>, Vec<_>) = matrices.partition(|(print, other)| print == other);
        let of = arm.weights.values().filter(|print| print.shape.len() > 1).count();
        match (same.len(), differ.len()) {
            (0, 0) => Self::Data("no weight has the same shape".to_string()),
            (shared, 0) => Self::Paired { shared, of },
            (_, differ) => {
                Self::Data(format!("{differ} of {of} matrices of the same shape begin with other values"))
            }
        }
    }

    /// Whether differences are taken pair by pair.
    pub(crate) fn is_paired(&self) -> bool {
        !matches!(self, Self::Unpaired(_))
    }
}

impl std::fmt::Display for Pairing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Paired { shared, of } if shared == of => {
                write!(f, "paired: initial weights, data and its order are identical")
            }
            Self::Paired { shared, of } => {
                write!(f, "paired: data, its order and {shared} of {of} initial matrices are identical")
            }
            Self::Data(why) => write!(f, "paired in the data and its order only: {why}"),
            Self::Unpaired(why) => write!(f, "unpaired: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tritforge_train::TensorPrint;

    use super::*;

    fn beginning(samples: &str, data: &str, weights: &[(&str, &[usize], &str)]) -> Beginning {
        let print =
            |shape: &[usize], digest: &str| TensorPrint { shape: shape.to_vec(), digest: digest.to_string() };
        Beginning {
            weights: weights.iter().map(|(name, shape, d)| (name.to_string(), print(shape, d))).collect(),
            samples: samples.to_string(),
            data: data.to_string(),
        }
    }

    #[test]
    fn pairs_are_found_and_the_worst_seed_counts() {
        let base = beginning("s", "d", &[("a", &[2, 2], "x"), ("norm", &[2], "1"), ("b", &[2, 4], "y")]);
        let without_norm = beginning("s", "d", &[("a", &[2, 2], "x"), ("b", &[2, 4], "y")]);
        let wider = beginning("s", "d", &[("a", &[2, 2], "x"), ("b", &[2, 8], "z")]);
        let other = beginning("s", "d", &[("a", &[2, 2], "q"), ("b", &[2, 4], "y")]);
        let alien = beginning("s", "d", &[("c", &[2, 2], "x")]);
        let one = |arm: &Beginning| Pairing::of([(arm, &base)].into_iter());
        assert_eq!(one(&base), Pairing::Paired { shared: 2, of: 2 });
        assert_eq!(one(&without_norm), Pairing::Paired { shared: 2, of: 2 });
        assert_eq!(one(&wider), Pairing::Paired { shared: 1, of: 2 });
        assert!(matches!(one(&other), Pairing::Data(why) if why.contains("1 of 2")));
        assert!(matches!(one(&alien), Pairing::Data(_)));
        assert!(!one(&beginning("t", "d", &[])).is_paired());
        let two = Pairing::of([(&base, &base), (&other, &base)].into_iter());
        assert!(two.is_paired() && two != Pairing::Paired { shared: 2, of: 2 });
        assert!(!Pairing::of([(&base, &base), (&beginning("s", "e", &[]), &base)].into_iter()).is_paired());
        assert!(!Pairing::of(std::iter::empty()).is_paired());
        assert!(one(&wider).to_string().contains("1 of 2 initial matrices"));
    }
}
