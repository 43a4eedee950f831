//! The CUDA driver, looked up at run time: a program with this code starts on machines without one.
//!
//! All `unsafe` of this crate is here. Only functions are used that have kept their symbol since CUDA 11, so
//! that a driver of any version that compiles the kernels' PTX has them.

mod graph;
mod memory;
mod symbols;

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use thiserror::Error;

pub use self::graph::Graph;
pub use self::memory::{Buffer, Number};
use self::symbols::{Driver, Handle, driver};
use crate::arguments::Argument;

/// Why something could not be done on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CudaError {
    /// There is no driver.
    #[error("no CUDA driver was found ({reason}); install NVIDIA's driver, or run on the CPU")]
    NoDriver {
        /// What the system's loader said.
        reason: String,
    },
    /// The driver lacks a function.
    #[error(
        "the CUDA driver has no function {symbol}; it is too old: install version 525 or newer, or run on the \
         CPU"
    )]
    OldDriver {
        /// The function.
        symbol: &'static str,
    },
    /// There is no such GPU.
    #[error("there is no GPU {ordinal}: the CUDA driver knows {count}, numbered from 0")]
    NoDevice {
        /// The number asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// The GPU lacks instructions that the kernels need.
    #[error(
        "{name} has compute capability {}.{}; the kernels need 8.0 or higher: run on the CPU",
        capability.0, capability.1
    )]
    OldDevice {
        /// The GPU.
        name: String,
        /// Its compute capability.
        capability: (i32, i32),
    },
    /// There is not enough memory.
    #[error("the GPU has no room for {asked} bytes: {free} of {total} are free")]
    OutOfMemory {
        /// Bytes asked for.
        asked: usize,
        /// Bytes that are free.
        free: usize,
        /// Bytes of the GPU.
        total: usize,
    },
    /// Something that a capture forbids.
    #[error("while work is captured into a CUDA graph {what} is impossible")]
    Capturing {
        /// What that is.
        what: &'static str,
    },
    /// A call failed.
    #[error("the CUDA driver's {call} failed: {name} ({code})")]
    Call {
        /// The function.
        call: &'static str,
        /// The driver's name of the error.
        name: String,
        /// Its number.
        code: i32,
    },
}

/// The driver's CU_DEVICE_ATTRIBUTE_… and CU_FUNC_ATTRIBUTE_… that are asked for or set.
const COMPUTE_CAPABILITY_MAJOR: c_int = 75;
const COMPUTE_CAPABILITY_MINOR: c_int = 76;
const MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: c_int = 97;
const MAX_DYNAMIC_SHARED_SIZE_BYTES: c_int = 8;
/// CU_STREAM_NON_BLOCKING.
const NON_BLOCKING: c_uint = 1;
const OUT_OF_MEMORY: c_int = 2;

/// Calls a function of the driver.
macro_rules! call {
    ($driver:expr, $function:ident($($arg:expr),* $(,)?)) => {{
        let driver: &Driver = $driver;
        // SAFETY: handles are the driver's own, pointers are to live memory of the length that is given, and
        // the signatures are those of the driver API.
        let code = unsafe { (driver.$function)($($arg),*) };
        driver.check(stringify!($function), code)
    }};
}
use call;

impl Driver {
    fn check(&self, call: &'static str, code: c_int) -> Result<(), CudaError> {
        if code == 0 {
            return Ok(());
        }
        let mut name = std::ptr::null();
        // SAFETY: the driver stores a pointer to a constant string, or null for a number that it does not
        // know.
        let name = unsafe {
            (self.cuGetErrorName)(code, &mut name);
            if name.is_null() {
                "unknown error".into()
            } else {
                CStr::from_ptr(name).to_string_lossy().into_owned()
            }
        };
        Err(CudaError::Call { call, name, code })
    }
}

/// A GPU's context and the stream on which its work is queued.
#[derive(Debug)]
pub(crate) struct Context {
    driver: &'static Driver,
    context: Handle,
    stream: Handle,
    /// The stream on which work is captured instead of done.
    capture_stream: Handle,
    capturing: Mutex<()>,
    /// How often memory has been allocated for buffers.
    pub(crate) allocations: AtomicU64,
    device: c_int,
    /// The GPU's name.
    pub(crate) name: String,
    /// Bytes of shared memory that a block may ask for.
    pub(crate) shared_bytes: usize,
}

// SAFETY: the driver's functions may be called from any thread; handles are only passed to it.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Opens GPU `ordinal`.
    pub(crate) fn open(ordinal: usize) -> Result<Arc<Self>, CudaError> {
        let d = driver()?;
        call!(d, cuInit(0))?;
        let (mut count, mut device) = (0, 0);
        call!(d, cuDeviceGetCount(&mut count))?;
        if ordinal >= count as usize {
            return Err(CudaError::NoDevice { ordinal, count: count as usize });
        }
        call!(d, cuDeviceGet(&mut device, ordinal as c_int))?;
        let attribute = |which| {
            let mut value = 0;
            call!(d, cuDeviceGetAttribute(&mut value, which, device)).map(|()| value)
        };
        let mut name = [0 as c_char; 256];
        call!(d, cuDeviceGetName(name.as_mut_ptr(), 255, device))?;
        // SAFETY: the last byte is 0 whatever the driver wrote before it.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        let capability = (attribute(COMPUTE_CAPABILITY_MAJOR)?, attribute(COMPUTE_CAPABILITY_MINOR)?);
        if capability.0 < 8 {
            return Err(CudaError::OldDevice { name, capability });
        }
        let shared_bytes = attribute(MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize;
        let [mut context, mut stream, mut capture_stream] = [std::ptr::null_mut(); 3];
        call!(d, cuDevicePrimaryCtxRetain(&mut context, device))?;
        let created = call!(d, cuCtxSetCurrent(context))
            .and_then(|()| call!(d, cuStreamCreate(&mut stream, NON_BLOCKING)))
            .and_then(|()| call!(d, cuStreamCreate(&mut capture_stream, NON_BLOCKING)));
        if let Err(error) = created {
            if !stream.is_null() {
                let _ = call!(d, cuStreamDestroy_v2(stream));
            }
            let _ = call!(d, cuDevicePrimaryCtxRelease_v2(device));
            return Err(error);
        }
        let (capturing, allocations) = (Mutex::default(), AtomicU64::default());
        Ok(Arc::new(Self {
            driver: d,
            context,
            stream,
            capture_stream,
            capturing,
            allocations,
            device,
            name,
            shared_bytes,
        }))
    }

    /// Makes this context the calling thread's.
    fn enter(&self) -> Result<(), CudaError> {
        call!(self.driver, cuCtxSetCurrent(self.context))
    }

    /// Compiles PTX.
    pub(crate) fn load(self: &Arc<Self>, ptx: &str) -> Result<Module, CudaError> {
        let ptx = CString::new(ptx).expect("PTX is text without zeros");
        let mut module = std::ptr::null_mut();
        self.enter()?;
        call!(self.driver, cuModuleLoadData(&mut module, ptx.as_ptr().cast()))?;
        Ok(Module { context: Arc::clone(self), module })
    }

    /// Waits for all work.
    fn synchronize(&self) -> Result<(), CudaError> {
        call!(self.driver, cuStreamSynchronize(self.stream()))
    }

    /// Free bytes, and all bytes.
    pub(crate) fn memory(&self) -> Result<(usize, usize), CudaError> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        call!(self.driver, cuMemGetInfo_v2(&mut free, &mut total)).map(|()| (free, total))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // What fails here fails because the process or the GPU is going away.
        let _ = self.enter();
        let _ = call!(self.driver, cuStreamDestroy_v2(self.stream));
        let _ = call!(self.driver, cuStreamDestroy_v2(self.capture_stream));
        let _ = call!(self.driver, cuDevicePrimaryCtxRelease_v2(self.device));
    }
}

/// Compiled kernels.
#[derive(Debug)]
pub(crate) struct Module {
    context: Arc<Context>,
    module: Handle,
}

// SAFETY: as for `Context`.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    /// A kernel by its name, allowed to use all shared memory that a block may have.
    pub(crate) fn kernel<A: Argument>(&self, name: &str) -> Result<Kernel<A>, CudaError> {
        let d = self.context.driver;
        let symbol = CString::new(name).expect("a name without zeros");
        let mut function = std::ptr::null_mut();
        call!(d, cuModuleGetFunction(&mut function, self.module, symbol.as_ptr()))?;
        let bytes = self.context.shared_bytes as c_int;
        call!(d, cuFuncSetAttribute(function, MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes))?;
        Ok(Kernel { context: Arc::clone(&self.context), function, argument: PhantomData })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _ = self.context.enter();
        let _ = self.context.synchronize();
        let _ = call!(self.context.driver, cuModuleUnload(self.module));
    }
}

/// A kernel whose argument is an A. Its module must live as long.
#[derive(Debug)]
pub(crate) struct Kernel<A> {
    context: Arc<Context>,
    function: Handle,
    argument: PhantomData<A>,
}

// SAFETY: as for `Context`.
unsafe impl<A> Send for Kernel<A> {}
// SAFETY: as above.
unsafe impl<A> Sync for Kernel<A> {}

impl<A: Argument> Kernel<A> {
    /// Queues the kernel on `grid` blocks of `threads` with `shared` bytes of shared memory each. An empty
    /// grid is no work. The addresses in the argument are those of buffers that hold what the kernel reads
    /// and writes; work on a buffer is done before its memory is freed.
    pub(crate) fn launch(
        &self,
        grid: [usize; 3],
        threads: u32,
        shared: usize,
        argument: &A,
    ) -> Result<(), CudaError> {
        if grid.contains(&0) {
            return Ok(());
        }
        self.context.enter()?;
        let [x, y, z] = grid.map(|n| c_uint::try_from(n).unwrap_or(c_uint::MAX));
        // The driver copies the argument before the call returns.
        let mut arguments = [std::ptr::from_ref(argument).cast_mut().cast::<c_void>()];
        let (stream, none) = (self.context.stream(), std::ptr::null_mut());
        let arguments = arguments.as_mut_ptr();
        let d = self.context.driver;
        call!(
            d,
            cuLaunchKernel(self.function, x, y, z, threads, 1, 1, shared as c_uint, stream, arguments, none)
        )
    }
}
