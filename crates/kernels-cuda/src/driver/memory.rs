//! Memory of a GPU.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Context, CudaError, Driver, OUT_OF_MEMORY, call};

/// A number that buffers hold: any bits are a value of it.
pub trait Number: Copy + Default + private::Sealed {}

mod private {
    pub trait Sealed {}
}

macro_rules! numbers {
    ($($ty:ty)*) => { $(impl Number for $ty {} impl private::Sealed for $ty {})* };
}
numbers! { u8 i8 u16 u32 i32 u64 f32 }

/// Numbers in the memory of a GPU. It grows when it must; what it holds then is anything.
#[derive(Debug)]
pub struct Buffer<T> {
    context: Option<Arc<Context>>,
    at: u64,
    capacity: usize,
    len: usize,
    of: PhantomData<T>,
}

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        Self { context: None, at: 0, capacity: 0, len: 0, of: PhantomData }
    }
}

impl<T: Number> Buffer<T> {
    /// The numbers of a slice.
    pub(crate) fn of(context: &Arc<Context>, numbers: &[T]) -> Result<Self, CudaError> {
        let mut buffer = Self::default();
        buffer.write(context, numbers)?;
        Ok(buffer)
    }

    /// Makes the buffer `len` numbers long. What it holds is lost if it must grow.
    pub(crate) fn resize(&mut self, context: &Arc<Context>, len: usize) -> Result<(), CudaError> {
        if len > self.capacity {
            context.outside_capture("to allocate memory")?;
            *self = Self::default();
            let bytes = len.saturating_mul(size_of::<T>());
            context.enter()?;
            match call!(context.driver, cuMemAlloc_v2(&mut self.at, bytes)) {
                Err(CudaError::Call { code: OUT_OF_MEMORY, .. }) => {
                    let (free, total) = context.memory()?;
                    return Err(CudaError::OutOfMemory { asked: bytes, free, total });
                }
                result => result?,
            }
            self.context = Some(Arc::clone(context));
            self.capacity = len;
            context.allocations.fetch_add(1, Ordering::Relaxed);
        }
        self.len = len;
        Ok(())
    }

    /// Replaces the content by the numbers of a slice.
    pub(crate) fn write(&mut self, context: &Arc<Context>, numbers: &[T]) -> Result<(), CudaError> {
        self.resize(context, numbers.len())?;
        if numbers.is_empty() {
            return Ok(());
        }
        context.outside_capture("to copy to the GPU")?;
        context.enter()?;
        let (from, bytes) = (numbers.as_ptr().cast(), size_of_val(numbers));
        // Pageable memory is read before the call returns.
        call!(context.driver, cuMemcpyHtoDAsync_v2(self.at, from, bytes, context.stream()))
    }

    /// A copy of the buffer.
    pub(crate) fn duplicate(&self) -> Result<Self, CudaError> {
        let mut copy = Self::default();
        let Some(context) = self.context.as_ref().filter(|_| self.len > 0) else { return Ok(copy) };
        copy.resize(context, self.len)?;
        let bytes = self.len * size_of::<T>();
        call!(context.driver, cuMemcpyDtoDAsync_v2(copy.at, self.at, bytes, context.stream()))?;
        Ok(copy)
    }

    /// The numbers, when all work queued before is done.
    ///
    /// # Errors
    /// If that work or the copy failed.
    pub fn download(&self) -> Result<Vec<T>, CudaError> {
        let mut numbers = vec![T::default(); self.len];
        let Some(context) = self.context.as_ref().filter(|_| self.len > 0) else { return Ok(numbers) };
        context.outside_capture("to copy from the GPU")?;
        context.enter()?;
        let (to, bytes) = (numbers.as_mut_ptr().cast(), size_of_val(&numbers[..]));
        let copied = call!(context.driver, cuMemcpyDtoHAsync_v2(to, self.at, bytes, context.stream()));
        // The copy must have ended before `numbers` may go, whatever happened.
        let done = context.synchronize();
        copied.and(done)?;
        Ok(numbers)
    }

    /// Numbers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address in the memory of the GPU, for arguments of kernels; 0 for a buffer that never held
    /// anything.
    pub(crate) fn address(&self) -> u64 {
        self.at
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        let Some(context) = &self.context else { return };
        // Queued work may still use the memory. What fails here fails because the GPU is going away.
        let _ = context.enter();
        let _ = context.synchronize();
        let _ = call!(context.driver, cuMemFree_v2(self.at));
    }
}
