//! Sparse activations: of every token only the codes of largest magnitude are kept.

/// The part of a token's activations that keep their codes; the others are 0 (Q-Sparse, arXiv 2407.10969, section 2.1; BitNet a4.8,
/// arXiv 2411.04965, section 2.1). The scale is that of all of them: the largest magnitude is always kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TopK(f32);

impl TopK {
    /// A part above 0 and below 1; none for other numbers.
    pub fn new(part: f32) -> Option<Self> {
        (part > 0.0 && part < 1.0).then_some(Self(part))
    }

    /// The part.
    pub fn part(self) -> f32 {
        self.0
    }

    /// How many of `cols` activations are kept: the part of them, rounded up.
    pub fn count(self, cols: usize) -> usize {
        ((f64::from(self.0) * cols as f64).ceil() as usize).min(cols)
    }

    /// Makes the codes of all but the largest activations of a token 0. Of equal magnitudes the earlier is kept.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn mask(self, row: &[f32], codes: &mut [i8]) {
        assert_eq!(row.len(), codes.len(), "one code for every activation");
        let kept = self.count(row.len());
        if kept == row.len() {
            return;
        }
        // Without the sign bit, floats order like their bits.
        let magnitude = |x: &f32| x.to_bits() & 0x7fff_ffff;
        let mut magnitudes: Vec<u32> = row.iter().map(magnitude).collect();
        let (_, least, _) = magnitudes.select_nth_unstable_by(kept - 1, |a, b| b.cmp(a));
        let least = *least;
        let above = row.iter().filter(|x| magnitude(x) > least).count();
        let mut equals = kept - above;
        for (x, code) in row.iter().zip(codes) {
            let keep = match magnitude(x).cmp(&least) {
                std::cmp::Ordering::Greater => true,
                std::cmp::Ordering::Equal if equals > 0 => {
                    equals -= 1;
                    true
                }
                _ => false,
            };
            if !keep {
                *code = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_kept_and_of_equals_the_earlier() {
        let half = TopK::new(0.5).unwrap();
        let row = [0.5f32, -2.0, 1.0, -1.0, 1.0, 0.0, -0.0];
        let mut codes = [32i8, -127, 64, -64, 64, 0, 0];
        half.mask(&row, &mut codes);
        assert_eq!(codes, [0, -127, 64, -64, 64, 0, 0]); // 3.5, rounded up
        let mut codes = [1i8; 7];
        TopK::new(0.3).unwrap().mask(&row, &mut codes); // 2.1, rounded up: two of the three ones
        assert_eq!(codes, [0, 1, 1, 1, 0, 0, 0]);
    }

    #[test]
    fn as_many_are_kept_as_sorting_keeps() {
        let row: Vec<f32> = (0..257u32).map(|i| (i * 73 % 101) as f32 - 50.0).collect();
        for part in [0.001, 0.1, 0.5, 0.99, 0.999] {
            let top_k = TopK::new(part).unwrap();
            let mut codes = vec![1i8; row.len()];
            top_k.mask(&row, &mut codes);
            let mut order: Vec<usize> = (0..row.len()).collect();
            order.sort_by(|a, b| row[*b].abs().total_cmp(&row[*a].abs())); // stable
            let mut expected = vec![0i8; row.len()];
            order[..top_k.count(row.len())].iter().for_each(|i| expected[*i] = 1);
            assert_eq!(codes, expected, "{part}");
        }
    }

    #[test]
    fn a_part_is_between_0_and_1() {
        for part in [0.0, 1.0, -0.1, f32::NAN, f32::INFINITY] {
            assert_eq!(TopK::new(part), None);
        }
        assert_eq!(TopK::new(1e-9).unwrap().count(4), 1);
    }
}
