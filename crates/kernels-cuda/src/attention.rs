//! The paged cache of keys and values, and attention over it.

use std::sync::Arc;

use tritforge_kernels::{AttentionShape, KvType};

use crate::arguments::{self, Append, Attention};
use crate::driver::{Buffer, CudaError};
use crate::kernels::{Gpu, int};

/// Positions of a page.
const SEGMENT: usize = 256;
/// Queries of a block, where attention is not split over segments.
const QUERIES: usize = 8;
/// Queries whose scores a thread computes together.
const TILE: usize = 4;

/// What a cache of keys and values holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// How numbers are stored.
    pub ty: KvType,
    /// The heads of a layer.
    pub attention: AttentionShape,
    /// Layers.
    pub layers: usize,
}

impl CacheShape {
    /// Bytes of a layer in a page: keys padded to 8 columns, and values.
    fn layer_bytes(self) -> usize {
        let AttentionShape { kv_heads, head_dim, .. } = self.attention;
        kv_heads * SEGMENT * (head_dim.next_multiple_of(8) + head_dim) * self.ty.size()
    }
}

/// Keys and values of all layers of one sequence, in pages of 256 positions that are taken as positions come.
/// A clone shares the pages that neither writes.
#[derive(Debug, Clone, Default)]
pub struct Pages(Vec<Arc<Buffer<u8>>>);

impl Pages {
    /// Makes room for positions up to `end`, of which those from `start` on are to be written. New pages hold
    /// anything: attention reads only what was appended.
    ///
    /// # Errors
    /// If the GPU has no room.
    pub fn reserve(
        &mut self,
        gpu: &Gpu,
        shape: CacheShape,
        start: usize,
        end: usize,
    ) -> Result<(), CudaError> {
        for page in self.0.iter_mut().skip(start / SEGMENT) {
            if Arc::get_mut(page).is_none() {
                *page = Arc::new(page.duplicate()?);
            }
        }
        while self.0.len() * SEGMENT < end {
            self.0.push(Arc::new(gpu.allocate(shape.layers * shape.layer_bytes())?));
        }
        Ok(())
    }

    /// Bytes on the GPU.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|page| page.len()).sum()
    }
}

/// What attention that is split over segments leaves between its steps.
#[derive(Debug, Default)]
pub struct AttentionScratch {
    scores: Buffer<f32>,
    largest: Buffer<f32>,
    sums: Buffer<f32>,
    weighted: Buffer<f32>,
}

/// New tokens of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct NewTokens<'a> {
    /// The sequence's pages, which have room for the tokens.
    pub pages: &'a Pages,
    /// The position of the first one.
    pub start: usize,
    /// How many they are.
    pub count: usize,
}

/// Where the tokens of a pass stand.
#[derive(Debug, Default)]
pub struct Place {
    /// The sequence and the position of each token.
    sequences: Buffer<u32>,
    positions: Buffer<u32>,
    /// The addresses of the pages, [sequences, segments].
    table: Buffer<u64>,
    /// What `sequences` and `table` hold, which seldom changes while tokens come one at a time.
    sequences_here: Vec<u32>,
    table_here: Vec<u64>,
    /// Segments that hold all positions: a power of two, so that a sequence that grows seldom changes it.
    segments: usize,
    /// Whether all tokens are of one sequence.
    one_sequence: bool,
}

impl Place {
    /// Takes the tokens of a pass, those of each sequence together.
    ///
    /// # Errors
    /// If the GPU has no room.
    ///
    /// # Panics
    /// If a sequence has no room for its tokens.
    pub fn set(&mut self, gpu: &Gpu, parts: &[NewTokens<'_>]) -> Result<(), CudaError> {
        let (mut sequences, mut positions) = (Vec::new(), Vec::new());
        let longest = parts.iter().map(|part| part.start + part.count).max().unwrap_or(0);
        self.segments = longest.div_ceil(SEGMENT).next_power_of_two();
        let mut table = vec![0; parts.len() * self.segments];
        for (i, NewTokens { pages, start, count }) in parts.iter().enumerate() {
            assert!(start + count <= pages.0.len() * SEGMENT, "{start} + {count} positions need more pages");
            sequences.extend(std::iter::repeat_n(i as u32, *count));
            positions.extend((*start..start + count).map(|position| position as u32));
            // Pages beyond the tokens are those of a sequence that was longer once.
            for (address, page) in table[i * self.segments..][..self.segments].iter_mut().zip(&pages.0) {
                *address = page.address();
            }
        }
        self.one_sequence = parts.iter().filter(|part| part.count > 0).count() <= 1;
        gpu.write(&mut self.positions, &positions)?;
        if self.sequences_here != sequences {
            // If the copy fails, nothing is there.
            self.sequences_here.clear();
            gpu.write(&mut self.sequences, &sequences)?;
            self.sequences_here = sequences;
        }
        if self.table_here != table {
            self.table_here.clear();
            gpu.write(&mut self.table, &table)?;
            self.table_here = table;
        }
        Ok(())
    }

    /// Segments of 256 positions for which attention of single tokens is launched.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// The position of each token.
    pub fn positions(&self) -> &Buffer<u32> {
        &self.positions
    }

    fn pages(&self, shape: CacheShape, layer: usize) -> arguments::Pages {
        arguments::Pages {
            pages: self.table.address(),
            layer_offset: (layer * shape.layer_bytes()) as u64,
            max_pages: int(self.segments),
            kv_heads: int(shape.attention.kv_heads),
            dim: int(shape.attention.head_dim),
        }
    }
}

impl Gpu {
    /// Adds the keys and values of tokens, [tokens, kv_heads · head_dim] each, to a layer.
    ///
    /// # Errors
    /// If the work cannot be queued.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn append(
        &self,
        shape: CacheShape,
        layer: usize,
        place: &Place,
        [k, v]: [&Buffer<f32>; 2],
    ) -> Result<(), CudaError> {
        let (tokens, width) = (place.positions.len(), shape.attention.kv_size());
        assert!(k.len() == tokens * width && v.len() == k.len(), "k and v are [{tokens}, {width}]");
        let argument = Append {
            cache: place.pages(shape, layer),
            k: k.address(),
            v: v.address(),
            sequences: place.sequences.address(),
            positions: place.positions.address(),
        };
        self.cache_kernels(shape.ty).append.launch([tokens, 1, 1], 256, 0, &argument)
    }

    /// `tritforge_kernels::attention_cached_batch`: causal attention of queries [tokens, heads · head_dim],
    /// whose keys and values were appended; out likewise.
    ///
    /// # Errors
    /// If the work cannot be queued.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn attend(
        &self,
        cache: CacheShape,
        layer: usize,
        place: &Place,
        q: &Buffer<f32>,
        (out, scratch): (&mut Buffer<f32>, &mut AttentionScratch),
    ) -> Result<(), CudaError> {
        let (shape, tokens) = (cache.attention, place.positions.len());
        assert_eq!(q.len(), tokens * shape.q_size(), "q is [{tokens}, {}]", shape.q_size());
        out.resize(&self.context, q.len())?;
        let kernels = self.cache_kernels(cache.ty);
        let padded = shape.head_dim.next_multiple_of(16);
        let segments = place.segments;
        let mut argument = Attention {
            cache: place.pages(cache, layer),
            q: q.address(),
            sequences: place.sequences.address(),
            positions: place.positions.address(),
            out: out.address(),
            scale: 1.0 / (shape.head_dim as f32).sqrt(),
            tokens: int(tokens),
            heads: int(shape.heads),
            segments: int(segments),
            ..Attention::default()
        };
        // Many tokens of one sequence fill the GPU with blocks of their own; else the segments are shared
        // out.
        if place.one_sequence && tokens > QUERIES {
            let queries = tokens * shape.heads / shape.kv_heads;
            let shared = 4 * QUERIES * (padded + SEGMENT + 2);
            let grid = [queries.div_ceil(QUERIES), shape.kv_heads, 1];
            return kernels.tokens.launch(grid, 256, shared, &argument);
        }
        let parts = tokens * shape.heads * segments;
        let AttentionScratch { scores, largest, sums, weighted } = scratch;
        scores.resize(&self.context, parts * SEGMENT)?;
        largest.resize(&self.context, parts)?;
        sums.resize(&self.context, parts)?;
        weighted.resize(&self.context, parts * shape.head_dim)?;
        argument.scores = scores.address();
        argument.largest = largest.address();
        argument.sums = sums.address();
        argument.weighted = weighted.address();
        let shared = 4 * TILE * (padded + 8);
        kernels.scores.launch([segments, shape.kv_heads, tokens], 256, shared, &argument)?;
        kernels.values.launch([segments, shape.heads, tokens], 128, 4 * SEGMENT, &argument)?;
        self.combine.launch([shape.heads, tokens, 1], 128, 0, &argument)
    }
}
