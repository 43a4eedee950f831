//! Work that is queued once and launched many times.

use std::cell::Cell;
use std::sync::{Arc, PoisonError};

use super::symbols::Handle;
use super::{Context, CudaError, Driver, call};

/// CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile is not the capture's concern.
const THREAD_LOCAL: i32 = 1;

thread_local! {
    /// The context that this thread captures work of, and the stream on which it does.
    static CAPTURING: Cell<Option<(Handle, Handle)>> = const { Cell::new(None) };
}

/// Kernels with their arguments, launched together. The buffers whose addresses they have must live as long as it is launched,
/// and so must the kernels' module.
#[derive(Debug)]
pub struct Graph {
    context: Arc<Context>,
    exec: Handle,
}

// SAFETY: as for `Context`.
unsafe impl Send for Graph {}
// SAFETY: as above.
unsafe impl Sync for Graph {}

impl Graph {
    /// Queues the graph's work.
    ///
    /// # Errors
    /// If the driver does not take it.
    pub fn launch(&self) -> Result<(), CudaError> {
        self.context.enter()?;
        call!(self.context.driver, cuGraphLaunch(self.exec, self.context.stream()))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // What fails here fails because the GPU is going away.
        let _ = self.context.enter();
        let _ = self.context.synchronize();
        let _ = call!(self.context.driver, cuGraphExecDestroy(self.exec));
    }
}

/// Ends a capture, also if its work panics.
struct Ending<'c> {
    context: &'c Context,
    ended: bool,
}

impl Ending<'_> {
    /// The graph; null if the capture failed.
    fn end(&mut self) -> (Handle, Result<(), CudaError>) {
        CAPTURING.set(None);
        self.ended = true;
        let mut graph = std::ptr::null_mut();
        let ended = call!(self.context.driver, cuStreamEndCapture(self.context.capture_stream, &mut graph));
        (graph, ended)
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let (graph, _) = self.end();
            destroy(self.context.driver, graph);
        }
    }
}

fn destroy(driver: &Driver, graph: Handle) {
    if !graph.is_null() {
        let _ = call!(driver, cuGraphDestroy(graph));
    }
}

impl Context {
    /// The stream on which work of this thread is queued.
    pub(super) fn stream(&self) -> Handle {
        match CAPTURING.get() {
            Some((context, stream)) if context == self.context => stream,
            _ => self.stream,
        }
    }

    /// Fails while this thread captures. The driver refuses such calls too, but for copies: those a graph would repeat, from and
    /// to memory of the host that may be gone.
    pub(super) fn outside_capture(&self, what: &'static str) -> Result<(), CudaError> {
        if self.stream() == self.stream { Ok(()) } else { Err(CudaError::Capturing { what }) }
    }

    /// Captures the work that `work` queues on this thread, which is not done then.
    pub(crate) fn capture(
        self: &Arc<Self>,
        work: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<Graph, CudaError> {
        let d = self.driver;
        // One at a time, on a stream of its own: the other one goes on.
        let _one = self.capturing.lock().unwrap_or_else(PoisonError::into_inner);
        self.enter()?;
        call!(d, cuStreamBeginCapture_v2(self.capture_stream, THREAD_LOCAL))?;
        CAPTURING.set(Some((self.context, self.capture_stream)));
        let mut ending = Ending { context: self, ended: false };
        let worked = work();
        let (graph, ended) = ending.end();
        let mut exec = std::ptr::null_mut();
        // What could not be queued failed first.
        let made =
            worked.and(ended).and_then(|()| call!(d, cuGraphInstantiateWithFlags(&mut exec, graph, 0)));
        destroy(d, graph);
        made.map(|()| Graph { context: Arc::clone(self), exec })
    }
}
