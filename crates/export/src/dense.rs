//! Full-precision matrices (embedding, head) in the formats that GGUF files store them in.

use tritforge_gguf::GgmlType;
use tritforge_kernels::{DenseMatrix, DenseType, f32_to_q8_0};

use crate::ExportError;

/// How the embedding and the head are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DenseFormat {
    /// 4 bytes a weight, exact.
    F32,
    /// 2 bytes a weight.
    #[default]
    F16,
    /// 34 bytes for 32 weights.
    Q8_0,
}

impl DenseFormat {
    /// The formats.
    pub const ALL: [DenseFormat; 3] = [DenseFormat::F32, DenseFormat::F16, DenseFormat::Q8_0];

    /// The name, as recipes spell it.
    pub fn name(self) -> &'static str {
        match self {
            DenseFormat::F32 => "f32",
            DenseFormat::F16 => "f16",
            DenseFormat::Q8_0 => "q8_0",
        }
    }

    /// The type in the file.
    pub(crate) fn ggml_type(self) -> GgmlType {
        match self {
            DenseFormat::F32 => GgmlType::F32,
            DenseFormat::F16 => GgmlType::F16,
            DenseFormat::Q8_0 => GgmlType::Q8_0,
        }
    }

    fn kernel_type(self) -> DenseType {
        match self {
            DenseFormat::F32 => DenseType::F32,
            DenseFormat::F16 => DenseType::F16,
            DenseFormat::Q8_0 => DenseType::Q8_0,
        }
    }

    /// The bytes of a matrix, and the largest difference that storing it so makes.
    pub(crate) fn encode(
        self,
        tensor: &str,
        values: &[f32],
        cols: usize,
    ) -> Result<(Vec<u8>, f32), ExportError> {
        let bytes: Vec<u8> = match self {
            DenseFormat::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            DenseFormat::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
            DenseFormat::Q8_0 => {
                if !cols.is_multiple_of(32) {
                    let message = format!("Q8_0 stores blocks of 32, and a row has {cols}: use f16 or f32");
                    return Err(ExportError::Tensor { tensor: tensor.to_string(), message });
                }
                f32_to_q8_0(values)
            }
        };
        let rows = values.len() / cols;
        let stored = DenseMatrix::from_bytes(self.kernel_type(), &bytes, rows, cols);
        let mut row = vec![0f32; cols];
        let mut largest = 0f32;
        for (i, exact) in values.chunks_exact(cols).enumerate() {
            stored.row(i, &mut row);
            largest = exact.iter().zip(&row).fold(largest, |m, (a, b)| m.max((a - b).abs()));
        }
        if !largest.is_finite() {
            let message = format!("a value is too large for {}: use f32", self.name());
            return Err(ExportError::Tensor { tensor: tensor.to_string(), message });
        }
        Ok((bytes, largest))
    }
}
