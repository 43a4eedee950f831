//! What this machine can do at best: how fast threads read memory, and how many int8 products they make in
//! registers.
//!
//! Decoding streams every weight once a token, so the first is its limit; prefill is arithmetic, so the
//! second is its.

use std::hint::black_box;
use std::time::Instant;

use memmap2::MmapMut;
use tritforge_kernels::{Backend, parallel_for_each, threads};

/// Memory that one pass reads: far more than any cache.
const BYTES: usize = 512 << 20;

/// Passes of which the median counts.
const PASSES: usize = 7;

/// Bytes a second that the active threads ([`tritforge_kernels::set_threads`]) read from memory together, each
/// its own stretch: the median of several passes over 512 MiB.
///
/// # Errors
/// If the system has no such memory to give.
pub fn read_bandwidth() -> std::io::Result<f64> {
    let mut memory = MmapMut::map_anon(BYTES)?;
    // Fewer look-ups of addresses; where the system refuses, nothing changes.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    // A page that was never written may be the system's one page of zeros, which stays in the cache.
    memory.fill(1);
    let numbers: &[u64] = bytemuck::cast_slice(&memory);
    let parts: Vec<&[u64]> = numbers.chunks(numbers.len().div_ceil(8 * threads())).collect();
    Ok(median(|| {
        let begin = Instant::now();
        parallel_for_each(parts.iter(), |part| {
            black_box(sum(part));
        });
        BYTES as f64 / begin.elapsed().as_secs_f64()
    }))
}

/// The sum of a part, over enough accumulators to wait for nothing but memory.
fn sum(part: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if Backend::Avx2.is_supported() {
        // SAFETY: the processor has AVX2.
        return unsafe { x86::sum(part) };
    }
    part.iter().fold(0, |sum, x| sum.wrapping_add(*x))
}

/// Multiply-accumulates of int8 a second that the active threads make together with operands in registers:
/// `vpmaddubsw` and `vpaddw` for AVX2, `vpdpbusd` for AVX-VNNI and AVX-512 VNNI. None for a backend that this processor or
/// this build lacks.
pub fn int8_peak(backend: Backend) -> Option<f64> {
    /// Rounds of a measurement: some milliseconds.
    const ROUNDS: usize = 1 << 20;
    if !backend.is_supported() {
        return None;
    }
    let products = |rounds: usize| -> Option<usize> {
        let _ = rounds;
        match backend {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: supported, as found above.
            Backend::Avx2 => Some(unsafe { x86::avx2_products(rounds) }),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: supported, as found above.
            Backend::AvxVnni => Some(unsafe { x86::avx_vnni_products(rounds) }),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: supported, as found above.
            Backend::Avx512Vnni => Some(unsafe { x86::avx512_products(rounds) }),
            _ => None,
        }
    };
    products(1)?;
    Some(median(|| {
        let done = std::sync::atomic::AtomicUsize::new(0);
        let begin = Instant::now();
        parallel_for_each(0..threads(), |_| {
            let made = products(ROUNDS).unwrap_or(0);
            done.fetch_add(made, std::sync::atomic::Ordering::Relaxed);
        });
        done.into_inner() as f64 / begin.elapsed().as_secs_f64()
    }))
}

fn median(mut measure: impl FnMut() -> f64) -> f64 {
    let mut rates: Vec<f64> = (0..PASSES).map(|_| measure()).collect();
    rates.sort_by(f64::total_cmp);
    rates[PASSES / 2]
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Independent accumulators: more than latency times throughput of the instructions.
    const CHAINS: usize = 12;

    #[target_feature(enable = "avx2")]
    pub(super) fn sum(part: &[u64]) -> u64 {
        let (chunks, rest) = part.as_chunks::<16>();
        let mut acc = [_mm256_setzero_si256(); 4];
        for chunk in chunks {
            for (i, acc) in acc.iter_mut().enumerate() {
                // SAFETY: a chunk is 128 bytes, four vectors; the load needs no alignment.
                let x = unsafe { _mm256_loadu_si256(chunk.as_ptr().cast::<__m256i>().add(i)) };
                *acc = _mm256_add_epi64(*acc, x);
            }
        }
        let mut lanes = [0u64; 16];
        for (lanes, acc) in lanes.chunks_exact_mut(4).zip(acc) {
            // SAFETY: four u64 are one vector.
            unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), acc) };
        }
        lanes.iter().chain(rest).fold(0, |sum, x| sum.wrapping_add(*x))
    }

    /// Returns the number of products made.
    #[target_feature(enable = "avx2")]
    pub(super) fn avx2_products(rounds: usize) -> usize {
        let (x, w) = (black_box(_mm256_set1_epi8(1)), black_box(_mm256_set1_epi8(2)));
        let mut acc = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..rounds {
            for acc in &mut acc {
                // `black_box` keeps the product, which never changes, from being made only once.
                *acc = _mm256_add_epi16(*acc, _mm256_maddubs_epi16(black_box_register(w), x));
            }
        }
        black_box(acc);
        rounds * CHAINS * 32
    }

    /// Hides where a value comes from without moving it to memory.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn black_box_register(x: __m256i) -> __m256i {
        let mut y = x;
        // SAFETY: no instruction at all; the register is only said to have changed.
        unsafe { std::arch::asm!("/* {0} */", inout(ymm_reg) y, options(nomem, nostack, preserves_flags)) };
        y
    }

    /// Returns the number of products made.
    #[target_feature(enable = "avx2,avxvnni")]
    pub(super) fn avx_vnni_products(rounds: usize) -> usize {
        let (x, w) = (black_box(_mm256_set1_epi8(1)), black_box(_mm256_set1_epi8(2)));
        let mut acc = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..rounds {
            for acc in &mut acc {
                *acc = _mm256_dpbusd_avx_epi32(*acc, w, x);
            }
        }
        black_box(acc);
        rounds * CHAINS * 32
    }

    /// Returns the number of products made.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn avx512_products(rounds: usize) -> usize {
        let (x, w) = (black_box(_mm512_set1_epi8(1)), black_box(_mm512_set1_epi8(2)));
        let mut acc = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..rounds {
            for acc in &mut acc {
                *acc = _mm512_dpbusd_epi32(*acc, w, x);
            }
        }
        black_box(acc);
        rounds * CHAINS * 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_reads_every_number() {
        let numbers: Vec<u64> = (0..1003).map(|i| i * i).collect();
        assert_eq!(sum(&numbers), numbers.iter().sum::<u64>());
    }

    #[test]
    fn scalar_code_has_no_peak_and_vector_code_has_one() {
        assert_eq!(int8_peak(Backend::Scalar), None);
        for backend in Backend::supported()
            .into_iter()
            .filter(|b| matches!(b, Backend::Avx2 | Backend::AvxVnni | Backend::Avx512Vnni))
        {
            assert!(int8_peak(backend).is_some_and(|rate| rate > 1e8), "{backend}");
        }
    }
}
