//! Attention over a paged cache, for many tokens and for one of each sequence.

use tritforge_kernels::{AttentionShape, KvCache, KvType, attention_cached};
use tritforge_kernels_cuda::{
    AttentionScratch, Buffer, CACHE_TYPES, CacheShape, Gpu, NewTokens, Pages, Place,
};

use super::{assert_bits, gpu, numbers};

const SHAPES: [AttentionShape; 3] = [
    AttentionShape { heads: 6, kv_heads: 1, head_dim: 20 },
    AttentionShape { heads: 4, kv_heads: 2, head_dim: 64 },
    AttentionShape { heads: 2, kv_heads: 2, head_dim: 136 },
];

/// Layers of the cache; the last one is used.
const LAYERS: usize = 2;

/// Both caches, and tokens so far, of each sequence.
struct Both<'a> {
    gpu: &'a Gpu,
    shape: AttentionShape,
    cpu: Vec<KvCache>,
    ty: KvType,
    there: Vec<Pages>,
    place: Place,
    scratch: AttentionScratch,
}

impl<'a> Both<'a> {
    fn new(gpu: &'a Gpu, shape: AttentionShape, ty: KvType, sequences: usize) -> Self {
        let cpu = (0..sequences).map(|_| KvCache::new(ty, shape.kv_heads, shape.head_dim, 0)).collect();
        let there = vec![Pages::default(); sequences];
        let (place, scratch) = (Place::default(), AttentionScratch::default());
        Self { gpu, shape, cpu, ty, there, place, scratch }
    }

    /// Appends so many tokens to each sequence and compares their attention.
    fn pass(&mut self, counts: &[usize], what: &str) {
        let (shape, total) = (self.shape, counts.iter().sum::<usize>());
        let seed = total as u64 + self.cpu[0].len() as u64;
        let (q, k) = (numbers(seed, total * shape.q_size()), numbers(seed + 1, total * shape.kv_size()));
        // Some numbers that are subnormal in f16, and some halfway between two.
        let mut v = numbers(seed + 2, total * shape.kv_size());
        v.iter_mut().step_by(7).for_each(|x| *x *= 1e-6);
        v.iter_mut().step_by(11).for_each(|x| *x = (*x * 1024.0).round() / 1024.0 * (1.0 + 1.0 / 2048.0));
        let cache_shape = CacheShape { ty: self.ty, attention: shape, layers: LAYERS };
        let (mut expected, mut starts) = (vec![0f32; q.len()], Vec::new());
        let mut at = 0;
        for (sequence, (cache, count)) in self.cpu.iter_mut().zip(counts).enumerate() {
            let kv = at * shape.kv_size()..(at + count) * shape.kv_size();
            let rows = at * shape.q_size()..(at + count) * shape.q_size();
            starts.push(cache.len());
            cache.append(&k[kv.clone()], &v[kv]);
            attention_cached(shape, &q[rows.clone()], cache, &mut expected[rows]);
            self.there[sequence].reserve(self.gpu, cache_shape, starts[sequence], cache.len()).unwrap();
            at += count;
        }
        let parts = self.there.iter().zip(starts).zip(counts);
        let parts: Vec<_> =
            parts.map(|((pages, start), count)| NewTokens { pages, start, count: *count }).collect();
        self.place.set(self.gpu, &parts).unwrap();
        let [q, k, v] = [&q, &k, &v].map(|x| self.gpu.upload(x).unwrap());
        let mut out = Buffer::default();
        self.gpu.append(cache_shape, LAYERS - 1, &self.place, [&k, &v]).unwrap();
        self.gpu.attend(cache_shape, LAYERS - 1, &self.place, &q, (&mut out, &mut self.scratch)).unwrap();
        assert_bits(&out.download().unwrap(), &expected, &format!("{shape:?}, {what}, {counts:?} tokens"));
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn a_prompt_in_pieces_and_tokens_after_it() {
    let gpu = gpu();
    for shape in SHAPES {
        for ty in CACHE_TYPES {
            let mut both = Both::new(&gpu, shape, ty, 1);
            for count in [1, 3, 60, 201, 9, 1, 2] {
                both.pass(&[count], &ty.to_string());
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn a_batch_of_sequences_of_different_lengths() {
    let gpu = gpu();
    for ty in CACHE_TYPES {
        let mut both = Both::new(&gpu, SHAPES[1], ty, 3);
        both.pass(&[5, 0, 0], "the first");
        both.pass(&[0, 256, 0], "the second");
        both.pass(&[0, 260, 0], "the second again");
        for _ in 0..2 {
            both.pass(&[1, 1, 1], "one of each");
        }
        both.pass(&[2, 3, 1], "several of each");
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn a_clone_goes_its_own_way() {
    let gpu = gpu();
    let mut first = Both::new(&gpu, SHAPES[1], KvType::F16, 1);
    first.pass(&[270], "before");
    let mut second = Both::new(&gpu, SHAPES[1], KvType::F16, 1);
    (second.cpu, second.there) = (first.cpu.clone(), first.there.clone());
    second.pass(&[3], "the clone");
    first.pass(&[1], "the first");
    second.pass(&[1], "the clone again");
}
