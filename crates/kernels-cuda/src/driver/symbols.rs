//! The driver's functions.

use std::error::Error;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use libloading::Library;

use super::CudaError;

/// A context, stream, module or function.
pub(super) type Handle = *mut c_void;

/// Names under which systems have the driver.
const LIBRARIES: &[&str] = if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] };

macro_rules! functions {
    ($($name:ident($($arg:ty),*);)*) => {
        /// The functions of the driver API by their symbols.
        #[derive(Debug)]
        #[allow(non_snake_case, reason = "the names of the driver's symbols")]
        pub(super) struct Driver {
            $(pub(super) $name: unsafe extern "C" fn($($arg),*) -> c_int,)*
            _library: Library,
        }

        impl Driver {
            fn find(library: Library) -> Result<Self, CudaError> {
                Ok(Self {
                    // SAFETY: the signatures are those of cuda.h, and the library lives as long as the
                    // pointers.
                    $($name: *unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) }
                        .map_err(|_| CudaError::OldDriver { symbol: stringify!($name) })?,)*
                    _library: library,
                })
            }
        }
    };
}

functions! {
    cuInit(c_uint);
    cuGetErrorName(c_int, *mut *const c_char);
    cuDeviceGetCount(*mut c_int);
    cuDeviceGet(*mut c_int, c_int);
    cuDeviceGetName(*mut c_char, c_int, c_int);
    cuDeviceGetAttribute(*mut c_int, c_int, c_int);
    cuDevicePrimaryCtxRetain(*mut Handle, c_int);
    cuDevicePrimaryCtxRelease_v2(c_int);
    cuCtxSetCurrent(Handle);
    cuMemGetInfo_v2(*mut usize, *mut usize);
    cuMemAlloc_v2(*mut u64, usize);
    cuMemFree_v2(u64);
    cuMemcpyHtoDAsync_v2(u64, *const c_void, usize, Handle);
    cuMemcpyDtoHAsync_v2(*mut c_void, u64, usize, Handle);
    cuMemcpyDtoDAsync_v2(u64, u64, usize, Handle);
    cuModuleLoadData(*mut Handle, *const c_void);
    cuModuleUnload(Handle);
    cuModuleGetFunction(*mut Handle, Handle, *const c_char);
    cuFuncSetAttribute(Handle, c_int, c_int);
    cuStreamCreate(*mut Handle, c_uint);
    cuStreamDestroy_v2(Handle);
    cuStreamSynchronize(Handle);
    cuStreamBeginCapture_v2(Handle, c_int);
    cuStreamEndCapture(Handle, *mut Handle);
    cuGraphInstantiateWithFlags(*mut Handle, Handle, u64);
    cuGraphLaunch(Handle, Handle);
    cuGraphExecDestroy(Handle);
    cuGraphDestroy(Handle);
    cuLaunchKernel(
        Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void
    );
}

/// The driver, loaded at the first call.
pub(super) fn driver() -> Result<&'static Driver, CudaError> {
    static DRIVER: OnceLock<Result<Driver, CudaError>> = OnceLock::new();
    DRIVER.get_or_init(load).as_ref().map_err(Clone::clone)
}

fn load() -> Result<Driver, CudaError> {
    let mut reason = String::new();
    for name in LIBRARIES {
        // SAFETY: NVIDIA's driver library may be loaded at any time, from any thread.
        match unsafe { Library::new(*name) } {
            Ok(library) => return Driver::find(library),
            // What the system said is the source of the error.
            Err(error) if reason.is_empty() => {
                reason = error.source().map_or_else(|| format!("{name}: {error}"), ToString::to_string);
            }
            Err(_) => {}
        }
    }
    Err(CudaError::NoDriver { reason })
}
