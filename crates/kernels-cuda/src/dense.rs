//! Matrices that are not ternary: the embedding and the output head.

use std::ops::Range;

use tritforge_kernels::DenseType;

use crate::arguments::Matrix;
use crate::driver::{Buffer, CudaError};
use crate::kernels::{Gpu, int};

/// Rows of a block of threads.
const BLOCK_ROWS: usize = 64;
const THREADS: u32 = 256;
/// Tokens that are multiplied together.
const TOKENS: usize = 4;

/// A matrix [rows, cols] as files store it.
#[derive(Debug)]
pub struct Dense {
    ty: DenseType,
    planes: [Buffer<u8>; 4],
    rows: usize,
    cols: usize,
}

impl Dense {
    /// Copies the bytes of a file to the GPU.
    ///
    /// # Errors
    /// If it has no room for them.
    ///
    /// # Panics
    /// If the number of bytes does not fit the shape.
    pub fn new(gpu: &Gpu, ty: DenseType, bytes: &[u8], rows: usize, cols: usize) -> Result<Self, CudaError> {
        assert_eq!(bytes.len(), rows * ty.row_bytes(cols), "bytes of {ty:?} [{rows}, {cols}]");
        let block = |parts: &[usize]| {
            // Each part of every block, in a plane of its own.
            let len: usize = parts.iter().sum();
            let mut planes = [const { Vec::new() }; 4];
            for block in bytes.chunks_exact(len) {
                let mut rest = block;
                for (part, plane) in parts.iter().zip(&mut planes) {
                    let (numbers, after) = rest.split_at(*part);
                    plane.extend_from_slice(numbers);
                    rest = after;
                }
            }
            planes
        };
        let planes = match ty {
            DenseType::F32 | DenseType::F16 | DenseType::Bf16 => {
                let plane = gpu.upload(bytes)?;
                [plane, Buffer::default(), Buffer::default(), Buffer::default()]
            }
            DenseType::Q8_0 => {
                // The scale stands before the codes.
                let [scales, codes, _, _] = block(&[2, 32]);
                [gpu.upload(&codes)?, gpu.upload(&scales)?, Buffer::default(), Buffer::default()]
            }
            DenseType::Q6K => {
                let [a, b, c, d] = block(&[128, 64, 16, 2]).map(|plane| gpu.upload(&plane));
                [a?, b?, c?, d?]
            }
        };
        Ok(Self { ty, planes, rows, cols })
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes on the GPU.
    pub fn bytes(&self) -> usize {
        self.planes.iter().map(Buffer::len).sum()
    }

    fn argument(&self) -> Matrix {
        Matrix {
            planes: self.planes.each_ref().map(Buffer::address),
            rows: int(self.rows),
            cols: int(self.cols),
            ..Matrix::default()
        }
    }
}

impl Gpu {
    /// The rows of an embedding: out [ids, cols].
    ///
    /// # Errors
    /// If the work cannot be queued. The caller has checked the ids.
    pub fn embed(&self, w: &Dense, ids: &Buffer<u32>, out: &mut Buffer<f32>) -> Result<(), CudaError> {
        out.resize(&self.context, ids.len() * w.cols)?;
        let argument =
            Matrix { ids: ids.address(), y: out.address(), tokens: int(ids.len()), ..w.argument() };
        self.dense_kernels(w.ty).embed.launch([ids.len(), 1, 1], THREADS, 0, &argument)
    }

    /// Rows of x, which are `width` wide, by their numbers.
    ///
    /// # Errors
    /// If the work cannot be queued. The caller has checked the numbers.
    pub fn gather(
        &self,
        x: &Buffer<f32>,
        width: usize,
        ids: &Buffer<u32>,
        out: &mut Buffer<f32>,
    ) -> Result<(), CudaError> {
        out.resize(&self.context, ids.len() * width)?;
        let argument = Matrix {
            planes: [x.address(), 0, 0, 0],
            ids: ids.address(),
            y: out.address(),
            tokens: int(ids.len()),
            rows: int(x.len() / width),
            cols: int(width),
            ..Matrix::default()
        };
        self.dense_kernels(DenseType::F32).embed.launch([ids.len(), 1, 1], THREADS, 0, &argument)
    }

    /// `tritforge_kernels::DenseMatrix::matmul`: y [tokens, rows] = x · Wᵀ of x [tokens, cols].
    ///
    /// # Errors
    /// If the work cannot be queued.
    ///
    /// # Panics
    /// If x is not rows as wide as the matrix.
    pub fn dense_matmul(&self, x: &Buffer<f32>, w: &Dense, y: &mut Buffer<f32>) -> Result<(), CudaError> {
        assert!(x.len().is_multiple_of(w.cols), "x is rows of {}", w.cols);
        self.dense_matmul_of(x, 0..x.len() / w.cols, w, y)
    }

    /// `y += factor · (x · Aᵀ) · Bᵀ` of some rows of x [tokens, in] and y [tokens, out]: a low-rank adapter
    /// of A [rank, in] and B [out, rank]. `scratch` is for what is between.
    ///
    /// # Errors
    /// If the work cannot be queued.
    ///
    /// # Panics
    /// If the shapes do not fit or there are no such rows.
    pub fn add_low_rank(
        &self,
        (x, y): (&Buffer<f32>, &mut Buffer<f32>),
        rows: Range<usize>,
        [a, b]: [&Dense; 2],
        factor: f32,
        [inner, product]: &mut [Buffer<f32>; 2],
    ) -> Result<(), CudaError> {
        assert!(a.rows == b.cols && y.len() >= rows.end * b.rows, "a rank of {}, y of {}", a.rows, y.len());
        self.dense_matmul_of(x, rows.clone(), a, inner)?;
        self.scale(inner, factor)?;
        self.dense_matmul(inner, b, product)?;
        let at = y.address() + (size_of::<f32>() * rows.start * b.rows) as u64;
        self.addition(product.len(), [at, product.address(), at], 0)
    }

    /// The product of some rows of x.
    fn dense_matmul_of(
        &self,
        x: &Buffer<f32>,
        rows: Range<usize>,
        w: &Dense,
        y: &mut Buffer<f32>,
    ) -> Result<(), CudaError> {
        assert!(x.len() >= rows.end * w.cols, "{rows:?} of x, rows of {}", w.cols);
        let tokens = rows.len();
        y.resize(&self.context, tokens * w.rows)?;
        let x = x.address() + (size_of::<f32>() * rows.start * w.cols) as u64;
        let argument = Matrix { x, y: y.address(), tokens: int(tokens), ..w.argument() };
        let (kernels, blocks) = (self.dense_kernels(w.ty), w.rows.div_ceil(BLOCK_ROWS));
        match tokens {
            0 => Ok(()),
            1 => kernels.one.launch([blocks, 1, 1], THREADS, 0, &argument),
            _ => kernels.four.launch([blocks, tokens.div_ceil(TOKENS), 1], THREADS, 0, &argument),
        }
    }
}
