//! The paged cache of keys and values, and attention over it.

use tritforge_kernels::{AttentionShape, KvType};

use crate::arguments::{Append, Attention, Pages};
use crate::driver::{Buffer, CudaError};
use crate::kernels::{Gpu, int};

/// Positions of a page.
const SEGMENT: usize = 256;
/// Queries of a block, where attention is not split over segments.
const QUERIES: usize = 8;
/// Queries whose scores a thread computes together.
const TILE: usize = 4;

/// Keys and values of all layers of several sequences, in pages of 256 positions that are taken as positions come.
#[derive(Debug)]
pub struct Cache {
    ty: KvType,
    shape: AttentionShape,
    layers: usize,
    /// The pages of each sequence.
    pages: Vec<Vec<Buffer<u8>>>,
    /// Their addresses, [sequences, `max_pages`], as kernels read them.
    table: Buffer<u64>,
    max_pages: usize,
    scratch: Scratch,
}

/// What attention that is split over segments leaves between its steps.
#[derive(Debug, Default)]
struct Scratch {
    scores: Buffer<f32>,
    largest: Buffer<f32>,
    sums: Buffer<f32>,
    weighted: Buffer<f32>,
}

/// Where the tokens of a pass stand.
#[derive(Debug, Default)]
pub struct Place {
    /// The sequence of each token in the cache.
    sequences: Buffer<u32>,
    /// The position of each token in its sequence.
    positions: Buffer<u32>,
    /// One more than the largest position.
    longest: usize,
    /// Whether all tokens are of one sequence.
    one_sequence: bool,
}

impl Place {
    /// Tokens by their sequences and positions.
    ///
    /// # Errors
    /// If the GPU has no room for them.
    pub fn new(gpu: &Gpu, tokens: &[(u32, u32)]) -> Result<Self, CudaError> {
        let (sequences, positions): (Vec<u32>, Vec<u32>) = tokens.iter().copied().unzip();
        Ok(Self {
            longest: positions.iter().max().map_or(0, |p| *p as usize + 1),
            one_sequence: sequences.windows(2).all(|pair| pair[0] == pair[1]),
            sequences: gpu.upload(&sequences)?,
            positions: gpu.upload(&positions)?,
        })
    }

    /// The position of each token.
    pub fn positions(&self) -> &Buffer<u32> {
        &self.positions
    }
}

impl Cache {
    /// An empty cache for models of `layers` layers.
    pub fn new(ty: KvType, shape: AttentionShape, layers: usize) -> Self {
        Self {
            ty,
            shape,
            layers,
            pages: Vec::new(),
            table: Buffer::default(),
            max_pages: 0,
            scratch: Scratch::default(),
        }
    }

    /// Bytes of a layer in a page: keys padded to 8 columns, and values.
    fn layer_bytes(&self) -> usize {
        let dim = self.shape.head_dim;
        self.shape.kv_heads * SEGMENT * (dim.next_multiple_of(8) + dim) * self.ty.size()
    }

    /// Bytes on the GPU.
    pub fn bytes(&self) -> usize {
        self.pages.iter().flatten().map(Buffer::len).sum()
    }

    /// Makes room for sequence `sequence` of `positions` positions. New pages hold anything: attention reads only what
    /// was appended.
    ///
    /// # Errors
    /// If the GPU has no room.
    pub fn reserve(&mut self, gpu: &Gpu, sequence: usize, positions: usize) -> Result<(), CudaError> {
        let bytes = self.layers * self.layer_bytes();
        if self.pages.len() <= sequence {
            self.pages.resize_with(sequence + 1, Vec::new);
        } else if self.pages[sequence].len() * SEGMENT >= positions {
            return Ok(());
        }
        while self.pages[sequence].len() * SEGMENT < positions {
            let mut page = Buffer::default();
            page.resize(&gpu.context, bytes)?;
            self.pages[sequence].push(page);
        }
        self.max_pages = self.pages.iter().map(Vec::len).max().unwrap_or(0);
        let mut table = vec![0; self.pages.len() * self.max_pages];
        for (row, pages) in table.chunks_exact_mut(self.max_pages.max(1)).zip(&self.pages) {
            row.iter_mut().zip(pages).for_each(|(at, page)| *at = page.address());
        }
        gpu.write(&mut self.table, &table)
    }

    /// Gives the pages of a sequence back.
    pub fn clear(&mut self, sequence: usize) {
        if let Some(pages) = self.pages.get_mut(sequence) {
            pages.clear();
        }
    }

    fn argument(&self, layer: usize) -> Pages {
        Pages {
            pages: self.table.address(),
            layer_offset: (layer * self.layer_bytes()) as u64,
            max_pages: int(self.max_pages),
            kv_heads: int(self.shape.kv_heads),
            dim: int(self.shape.head_dim),
        }
    }

    /// Adds the keys and values of tokens, [tokens, kv_heads · head_dim] each, to a layer. There is room for them
    /// ([`Cache::reserve`]).
    ///
    /// # Errors
    /// If the work cannot be queued.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn append(
        &mut self,
        gpu: &Gpu,
        layer: usize,
        place: &Place,
        [k, v]: [&Buffer<f32>; 2],
    ) -> Result<(), CudaError> {
        let (tokens, width) = (place.positions.len(), self.shape.kv_size());
        assert!(k.len() == tokens * width && v.len() == k.len(), "k and v are [{tokens}, {width}]");
        assert!(place.longest <= self.max_pages * SEGMENT, "there is room for {} positions", place.longest);
        let argument = Append {
            cache: self.argument(layer),
            k: k.address(),
            v: v.address(),
            sequences: place.sequences.address(),
            positions: place.positions.address(),
        };
        gpu.cache_kernels(self.ty).append.launch([tokens, 1, 1], 256, 0, &argument)
    }

    /// `tritforge_kernels::attention_cached_batch`: causal attention of queries [tokens, heads · head_dim], whose keys
    /// and values are in the cache; out likewise.
    ///
    /// # Errors
    /// If the work cannot be queued.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn attend(
        &mut self,
        gpu: &Gpu,
        layer: usize,
        place: &Place,
        q: &Buffer<f32>,
        out: &mut Buffer<f32>,
    ) -> Result<(), CudaError> {
        let (shape, tokens) = (self.shape, place.positions.len());
        assert_eq!(q.len(), tokens * shape.q_size(), "q is [{tokens}, {}]", shape.q_size());
        out.resize(&gpu.context, q.len())?;
        let kernels = gpu.cache_kernels(self.ty);
        let padded = shape.head_dim.next_multiple_of(16);
        let mut argument = Attention {
            cache: self.argument(layer),
            q: q.address(),
            sequences: place.sequences.address(),
            positions: place.positions.address(),
            out: out.address(),
            scale: 1.0 / (shape.head_dim as f32).sqrt(),
            tokens: int(tokens),
            heads: int(shape.heads),
            segments: int(place.longest.div_ceil(SEGMENT)),
            ..Attention::default()
        };
        // Many tokens of one sequence fill the GPU with blocks of their own; else the segments are shared out.
        if place.one_sequence && tokens > QUERIES {
            let queries = tokens * shape.heads / shape.kv_heads;
            let shared = 4 * QUERIES * (padded + SEGMENT + 2);
            let grid = [queries.div_ceil(QUERIES), shape.kv_heads, 1];
            return kernels.tokens.launch(grid, 256, shared, &argument);
        }
        let segments = place.longest.div_ceil(SEGMENT);
        let parts = tokens * shape.heads * segments;
        let Scratch { scores, largest, sums, weighted } = &mut self.scratch;
        scores.resize(&gpu.context, parts * SEGMENT)?;
        largest.resize(&gpu.context, parts)?;
        sums.resize(&gpu.context, parts)?;
        weighted.resize(&gpu.context, parts * shape.head_dim)?;
        argument.scores = scores.address();
        argument.largest = largest.address();
        argument.sums = sums.address();
        argument.weighted = weighted.address();
        let shared = 4 * TILE * (padded + 8);
        kernels.scores.launch([segments, shape.kv_heads, tokens], 256, shared, &argument)?;
        kernels.values.launch([segments, shape.heads, tokens], 128, 4 * SEGMENT, &argument)?;
        gpu.combine.launch([shape.heads, tokens, 1], 128, 0, &argument)
    }
}
