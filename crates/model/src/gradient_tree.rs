//! Sums over the micro-batches of a step, by a fixed binary tree over their index: neighbours first, then
//! pairs of neighbours.
//!
//! The tree does not depend on who computes which leaf: micro-batches shared out as aligned subtrees and then
//! added give the same bits as all of them in one place.

use crate::{Gradients, Parameter};

/// The sum of `terms` over the tree: the largest power of two below their number, and the rest; none of no
/// terms.
pub fn tree_sum<T: Copy>(terms: &[T], add: fn(T, T) -> T) -> Option<T> {
    match terms {
        [] => None,
        [term] => Some(*term),
        _ => {
            let (left, right) = terms.split_at(terms.len().next_power_of_two() / 2);
            Some(add(tree_sum(left, add)?, tree_sum(right, add)?))
        }
    }
}

/// Buffers of gradients that a step of `micro_batches` needs: one for each subtree that waits for its
/// neighbour.
pub fn gradient_buffers(micro_batches: usize) -> usize {
    (0..micro_batches).map(|leaf| leaf.count_ones() as usize + 1).max().unwrap_or(1)
}

/// The gradients of a step, summed as [`tree_sum`] sums.
#[derive(Debug)]
pub struct GradientTree {
    buffers: Vec<Gradients>,
    /// Leaves of the subtree in each buffer that is in use; they fall by powers of two.
    leaves: Vec<usize>,
}

impl GradientTree {
    /// Buffers for the gradients of all `parameters` that are not frozen, over `micro_batches`.
    pub fn new(parameters: &[Parameter], micro_batches: usize) -> Self {
        let buffers = gradient_buffers(micro_batches);
        Self {
            buffers: (0..buffers).map(|_| Gradients::new(parameters, |p| !p.frozen)).collect(),
            leaves: Vec::with_capacity(buffers),
        }
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> usize {
        self.buffers.iter().map(Gradients::bytes).sum()
    }

    /// Begins a step.
    pub fn clear(&mut self) {
        self.leaves.clear();
    }

    /// A cleared buffer for the gradients of the next micro-batch.
    ///
    /// # Panics
    /// If there are more micro-batches than [`GradientTree::new`] was told.
    pub fn next_leaf(&mut self) -> &mut Gradients {
        while let [.., left, right] = self.leaves[..]
            && left == right
        {
            self.add_last();
        }
        let leaf = &mut self.buffers[self.leaves.len()];
        self.leaves.push(1);
        leaf.clear();
        leaf
    }

    /// The sum over all leaves of the step, in the first buffer.
    pub fn finish(&mut self) {
        while self.leaves.len() > 1 {
            self.add_last();
        }
    }

    /// The sum that [`GradientTree::finish`] made.
    pub fn total(&self) -> &Gradients {
        debug_assert_eq!(self.leaves.len(), 1, "the sum is finished");
        &self.buffers[0]
    }

    /// The sum that [`GradientTree::finish`] made, to be changed.
    pub fn total_mut(&mut self) -> &mut Gradients {
        debug_assert_eq!(self.leaves.len(), 1, "the sum is finished");
        &mut self.buffers[0]
    }

    /// Adds the last subtree to the one before it.
    fn add_last(&mut self) {
        let last = self.leaves.len() - 1;
        let (left, right) = self.buffers.split_at_mut(last);
        left[last - 1].add(&right[0]);
        let leaves = self.leaves.pop().unwrap_or_default();
        self.leaves[last - 1] += leaves;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DecayGroup, Tensor};

    fn numbers(leaf: usize) -> Vec<f32> {
        (0..5).map(|i| ((leaf * 5 + i) as f32 + 0.3).sin() * 10f32.powi((leaf * 7 % 11) as i32)).collect()
    }

    #[test]
    fn subtrees_of_ranks_add_up_to_the_tree_of_one() {
        let terms = [1e8, 1.0, -1e8, 1.0, 3.0, 5.0, 7.0, 11.0f32];
        let add = |a: f32, b: f32| a + b;
        let whole = tree_sum(&terms, add).unwrap();
        for ranks in [2, 4, 8] {
            let parts: Vec<f32> = terms.chunks(8 / ranks).map(|part| tree_sum(part, add).unwrap()).collect();
            assert_eq!(tree_sum(&parts, add).unwrap().to_bits(), whole.to_bits());
        }
        let in_order = terms.iter().fold(0.0, |sum, term| sum + term);
        assert_ne!(in_order.to_bits(), whole.to_bits(), "terms that tell the orders apart");
        assert_eq!(tree_sum(&terms[..0], add), None);
    }

    #[test]
    fn gradients_are_summed_by_the_same_tree() {
        let tensor = Tensor::vector(vec![0.0; 5]);
        let parameter = Parameter { name: "x".to_string(), tensor, group: DecayGroup::Decay, frozen: false };
        let parameters = [parameter];
        for micro_batches in 1..=17 {
            let mut tree = GradientTree::new(&parameters, micro_batches);
            for _step in 0..2 {
                tree.clear();
                for leaf in 0..micro_batches {
                    tree.next_leaf().sum(0).unwrap().copy_from_slice(&numbers(leaf));
                }
                tree.finish();
                let found = tree.total().get(0).unwrap();
                for (i, found) in found.iter().enumerate() {
                    let terms: Vec<f32> = (0..micro_batches).map(|leaf| numbers(leaf)[i]).collect();
                    let expected = tree_sum(&terms, |a, b| a + b).unwrap();
                    assert_eq!(found.to_bits(), expected.to_bits(), "{micro_batches}");
                }
            }
        }
        assert_eq!([1, 2, 3, 4, 5, 8, 9].map(gradient_buffers), [1, 2, 2, 3, 3, 4, 4]);
    }
}
