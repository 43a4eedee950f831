//! Numbers in memory that a model and its optimizer share.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::ModelError;

/// An f32 tensor in main memory, row-major. Clones share their values: the optimizer changes in place what the
/// model reads.
#[derive(Debug, Clone)]
pub struct Tensor {
    dims: Arc<[usize]>,
    values: Arc<RwLock<Vec<f32>>>,
}

impl Tensor {
    /// A tensor of these values.
    ///
    /// # Errors
    /// If there are more or fewer values than the shape has elements.
    pub fn new(values: Vec<f32>, dims: &[usize]) -> Result<Self, ModelError> {
        let expected: usize = dims.iter().product();
        if values.len() != expected {
            return Err(ModelError::Input {
                what: "values of a tensor",
                found: values.len().to_string(),
                expected: format!("{expected}, for shape {dims:?}"),
            });
        }
        Ok(Self { dims: dims.into(), values: Arc::new(RwLock::new(values)) })
    }

    /// A tensor of one dimension.
    pub fn vector(values: Vec<f32>) -> Self {
        Self { dims: Arc::new([values.len()]), values: Arc::new(RwLock::new(values)) }
    }

    /// The shape.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// [rows, columns], if the tensor is a matrix.
    pub fn matrix_dims(&self) -> Option<[usize; 2]> {
        self.dims[..].try_into().ok()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values, locked for reading.
    pub fn read(&self) -> RwLockReadGuard<'_, Vec<f32>> {
        self.values.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The values, to be changed in place; a model whose projection changed must be
    /// [requantized](crate::Decoder::requantize).
    pub fn write(&self) -> WriteValues<'_> {
        WriteValues(self.values.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The values of a [`Tensor`], locked for writing. Their number cannot change.
#[derive(Debug)]
pub struct WriteValues<'a>(RwLockWriteGuard<'a, Vec<f32>>);

impl std::ops::Deref for WriteValues<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl std::ops::DerefMut for WriteValues<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_their_values() {
        let tensor = Tensor::new(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]).unwrap();
        let clone = tensor.clone();
        clone.write()[4] = 7.0;
        assert_eq!(*tensor.read(), [1.0, 2.0, 3.0, 4.0, 7.0, 6.0]);
        assert_eq!((tensor.len(), tensor.matrix_dims()), (6, Some([2, 3])));
        assert_eq!(Tensor::vector(vec![1.0]).matrix_dims(), None);
    }

    #[test]
    fn a_wrong_number_of_values_is_refused() {
        let error = Tensor::new(vec![0.0; 5], &[2, 3]).unwrap_err().to_string();
        assert!(error.contains("found 5") && error.contains("6, for shape [2, 3]"), "{error}");
    }
}
