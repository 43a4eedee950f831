//! The gradients of an optimizer step, summed where they are kept.

use tritforge_kernels::{WriteMode, parallel_for_each};

use crate::Parameter;

/// Elements of one parallel piece; fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 1 << 15;

/// One buffer a trained parameter, none for a frozen one, in the order of [`crate::Decoder::parameters`]. The
/// buffers are allocated once and used for every step.
#[derive(Debug, Clone)]
pub struct Gradients {
    sums: Vec<Option<Sum>>,
}

#[derive(Debug, Clone)]
struct Sum {
    values: Vec<f32>,
    /// Whether nothing was added since the last [`Gradients::clear`]: what the buffer holds is then of an
    /// earlier step.
    fresh: bool,
    /// The gradient of the outputs of a weight whose dead zone is a bias, summed over tokens; empty as long as nothing was
    /// added.
    outputs: Vec<f32>,
}

impl Gradients {
    /// Gradients for the parameters that `trained` picks; the others cost neither memory nor work.
    pub fn new(parameters: &[Parameter], trained: impl Fn(&Parameter) -> bool) -> Self {
        let sum = |p: &Parameter| Sum { values: vec![0.0; p.tensor.len()], fresh: true, outputs: Vec::new() };
        Self { sums: parameters.iter().map(|p| trained(p).then(|| sum(p))).collect() }
    }

    /// Begins a new sum: all gradients count as 0.
    pub fn clear(&mut self) {
        for sum in self.sums.iter_mut().flatten() {
            sum.fresh = true;
            sum.outputs.clear();
        }
    }

    /// Adds gradients of the same parameters, element by element.
    ///
    /// # Panics
    /// If they are of other parameters.
    pub fn add(&mut self, other: &Gradients) {
        assert_eq!(self.sums.len(), other.sums.len(), "gradients of the same parameters");
        for i in 0..self.sums.len() {
            if let Some(terms) = other.outputs(i)
                && let Some(sums) = self.outputs_sum(i, terms.len())
            {
                sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
            }
            let Some(terms) = other.get(i) else { continue };
            let Some((sums, write)) = self.slot(i) else { panic!("parameter {i} is frozen") };
            assert_eq!(sums.len(), terms.len(), "gradients of the same parameters");
            let pieces = sums.chunks_mut(CHUNK).zip(terms.chunks(CHUNK));
            parallel_for_each(pieces, |(sums, terms)| match write {
                WriteMode::Overwrite => sums.copy_from_slice(terms),
                WriteMode::Accumulate => sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term),
            });
        }
    }

    /// Adds the gradient of parameter `i`, row-major, as something else than
    /// [`crate::Decoder::forward_backward`] computed it. A frozen parameter needs none.
    ///
    /// # Panics
    /// If the length is not the parameter's.
    pub fn add_to(&mut self, i: usize, gradient: &[f32]) {
        let Some(sum) = self.sum(i) else { return };
        assert_eq!(sum.len(), gradient.len(), "the gradient of parameter {i}");
        sum.iter_mut().zip(gradient).for_each(|(sum, d)| *sum += d);
    }

    /// The gradient of parameter `i`, row-major; none if it is frozen or nothing was added yet.
    pub fn get(&self, i: usize) -> Option<&[f32]> {
        self.sums.get(i)?.as_ref().filter(|sum| !sum.fresh).map(|sum| &sum.values[..])
    }

    /// As [`Gradients::get`], to be changed.
    pub fn get_mut(&mut self, i: usize) -> Option<&mut [f32]> {
        self.sums.get_mut(i)?.as_mut().filter(|sum| !sum.fresh).map(|sum| &mut sum.values[..])
    }

    /// All gradients, in the order of the parameters.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Option<&[f32]>> {
        (0..self.sums.len()).map(|i| self.get(i))
    }

    /// The Euclidean norm of all gradients together, in f64; the same for any number of threads.
    pub fn norm(&self) -> f64 {
        let chunks: Vec<&[f32]> = self.iter().flatten().flat_map(|values| values.chunks(CHUNK)).collect();
        let mut sums = vec![0f64; chunks.len()];
        parallel_for_each(chunks.iter().zip(&mut sums), |(chunk, sum)| *sum = sum_of_squares(chunk));
        sums.iter().sum::<f64>().sqrt()
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> usize {
        self.sums.iter().flatten().map(|sum| 4 * (sum.values.len() + sum.outputs.capacity())).sum()
    }

    /// Whether parameter `i` has a gradient.
    pub(crate) fn trains(&self, i: usize) -> bool {
        self.sums.get(i).is_some_and(Option::is_some)
    }

    /// The buffer of parameter `i` and whether it is to be overwritten or added to; the caller writes all of
    /// it.
    pub(crate) fn slot(&mut self, i: usize) -> Option<(&mut [f32], WriteMode)> {
        let sum = self.sums.get_mut(i)?.as_mut()?;
        let write = if std::mem::take(&mut sum.fresh) { WriteMode::Overwrite } else { WriteMode::Accumulate };
        Some((&mut sum.values, write))
    }

    /// The buffer of parameter `i` to be added to: of zeros if nothing was added yet.
    pub(crate) fn sum(&mut self, i: usize) -> Option<&mut [f32]> {
        let (values, write) = self.slot(i)?;
        if write == WriteMode::Overwrite {
            values.fill(0.0);
        }
        Some(values)
    }

    /// The gradient of the outputs of weight `i`, summed over tokens: what the bias of its dead zone gets. None if nothing was
    /// added yet.
    pub(crate) fn outputs(&self, i: usize) -> Option<&[f32]> {
        self.sums.get(i)?.as_ref().map(|sum| &sum.outputs[..]).filter(|outputs| !outputs.is_empty())
    }

    /// The buffer of [`Self::outputs`], of `n` numbers, to be added to: of zeros if nothing was added yet. None of a frozen
    /// weight.
    pub(crate) fn outputs_sum(&mut self, i: usize, n: usize) -> Option<&mut [f32]> {
        let sum = self.sums.get_mut(i)?.as_mut()?;
        if sum.outputs.is_empty() {
            sum.outputs.resize(n, 0.0);
        }
        Some(&mut sum.outputs)
    }

    /// Whether these are gradients of parameters of these lengths.
    pub(crate) fn fit(&self, lengths: impl ExactSizeIterator<Item = usize>) -> bool {
        let fits =
            |(sum, length): (&Option<Sum>, usize)| sum.as_ref().is_none_or(|s| s.values.len() == length);
        self.sums.len() == lengths.len() && self.sums.iter().zip(lengths).all(fits)
    }
}

/// Σ g², sixteen sums side by side.
fn sum_of_squares(values: &[f32]) -> f64 {
    let (blocks, rest) = values.as_chunks::<16>();
    let mut sums = [0f64; 16];
    for block in blocks {
        for (sum, g) in sums.iter_mut().zip(block) {
            *sum += f64::from(*g) * f64::from(*g);
        }
    }
    for (sum, g) in sums.iter_mut().zip(rest) {
        *sum += f64::from(*g) * f64::from(*g);
    }
    sums.iter().sum()
}
