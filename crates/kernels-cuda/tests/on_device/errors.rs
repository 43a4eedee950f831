//! What a device refuses.

use tritforge_kernels_cuda::{CudaError, Gpu};

use super::gpu;

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn a_gpu_that_is_not_there() {
    let Err(CudaError::NoDevice { ordinal: 99, count }) = Gpu::open(99) else { panic!("there are not 100") };
    assert!(count >= 1);
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn more_memory_than_there_is() {
    let gpu = gpu();
    let whole = gpu.memory().unwrap().1;
    let Err(CudaError::OutOfMemory { asked, total, .. }) = gpu.allocate::<u8>(whole + 1) else {
        panic!("{} has more than {whole} bytes", gpu.name())
    };
    assert_eq!((asked, total), (whole + 1, whole));
    // It goes on.
    assert_eq!(gpu.upload(&[1.5f32, -2.0]).unwrap().download().unwrap(), [1.5, -2.0]);
}
