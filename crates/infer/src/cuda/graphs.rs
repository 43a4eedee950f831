//! The graphs of passes that recur: those of one token a sequence.
//!
//! A graph has the addresses of buffers and the shape of all launches in it. What differs between passes of a kind (tokens,
//! positions, pages) is in the memory of the GPU. If a buffer moves, all graphs are forgotten.

use tritforge_kernels::KvType;
use tritforge_kernels_cuda::{CudaError, Graph};

/// Most graphs that are kept: some megabytes of the GPU's memory each.
const MOST: usize = 24;

/// Passes that one graph serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// Tokens, one a sequence.
    pub(super) tokens: usize,
    /// Segments of the cache for which attention is launched: a power of two, so that a sequence that grows needs few graphs.
    pub(super) segments: usize,
    pub(super) kv: KvType,
}

#[derive(Debug)]
enum State {
    /// A pass has run without a graph: the buffers are there.
    Ran,
    Captured(Graph),
    /// It could not be captured.
    Refused,
}

/// Graphs, the one used last at the end.
#[derive(Debug, Default)]
pub(super) struct Graphs(Vec<(Kind, State)>);

impl Graphs {
    /// Launches the graph of a kind, which is captured first if a pass has run before. Returns whether there is one: if it
    /// cannot be captured, passes of its kind go on without.
    pub(super) fn launch(
        &mut self,
        kind: Kind,
        capture: impl FnOnce() -> Result<Graph, CudaError>,
    ) -> Result<bool, CudaError> {
        let Some(at) = self.0.iter().position(|(of, _)| *of == kind) else { return Ok(false) };
        let (_, mut state) = self.0.remove(at);
        if matches!(state, State::Ran) {
            state = match capture() {
                Ok(graph) => State::Captured(graph),
                Err(error) => {
                    log::warn!("decoding goes on without a CUDA graph: {error}");
                    State::Refused
                }
            };
        }
        let launched = match &state {
            State::Captured(graph) => graph.launch().map(|()| true),
            State::Ran | State::Refused => Ok(false),
        };
        self.0.push((kind, state));
        launched
    }

    /// Takes note of a pass that ran without a graph.
    pub(super) fn ran(&mut self, kind: Kind) {
        if self.0.iter().all(|(of, _)| *of != kind) {
            self.0.push((kind, State::Ran));
            if self.0.len() > MOST {
                self.0.remove(0);
            }
        }
    }

    /// Forgets graphs whose buffers have moved.
    pub(super) fn forget(&mut self) {
        self.0.retain(|(_, state)| matches!(state, State::Refused));
    }
}
