//! Sixteen f32 lanes in portable Rust: the one order of arithmetic that every backend shares.
//!
//! A float kernel of this crate is written once over [`Lanes`] and compiled several times, for different
//! instruction sets ([`multiversion!`]). Every version performs the same IEEE operations in the same order
//! (fused multiply-adds, and a fixed tree for sums across lanes), so the backends agree bit for bit by
//! construction.
//!
//! What such a kernel calls is `#[inline(always)]`, and no closure that multiplies and adds: a function of its own is
//! compiled for the baseline, where each fused multiply-add is a call of `fmaf`, and a closure is inlined only if the
//! compiler likes to.

/// Sixteen numbers: one AVX-512 register, two AVX2 registers, four NEON registers.
pub(crate) type Lanes = [f32; LANES];

/// The number of lanes.
pub(crate) const LANES: usize = 16;

/// `a · b + c` with one rounding, lane by lane.
#[inline(always)]
pub(crate) fn fma(a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
    let mut out = [0f32; LANES];
    for i in 0..LANES {
        out[i] = a[i].mul_add(b[i], c[i]);
    }
    out
}

/// The sum of all lanes, by halves: 8 + 8, 4 + 4, 2 + 2, 1 + 1.
#[inline(always)]
pub(crate) fn sum(lanes: &Lanes) -> f32 {
    let mut a = [0f32; 8];
    for i in 0..8 {
        a[i] = lanes[i] + lanes[i + 8];
    }
    let b = [a[0] + a[4], a[1] + a[5], a[2] + a[6], a[3] + a[7]];
    (b[0] + b[2]) + (b[1] + b[3])
}

/// [`sum`] of several lanes.
///
/// Not to be inlined: a compiler that sees these additions together with the loop that made the lanes cuts
/// that loop into narrower vectors to suit them.
#[inline(never)]
pub(crate) fn sums<const N: usize>(lanes: &[Lanes; N]) -> [f32; N] {
    let mut out = [0f32; N];
    for n in 0..N {
        out[n] = sum(&lanes[n]);
    }
    out
}

/// `Σ a·b` over two rows of equal length: whole blocks of lanes, then the rest in the first lanes.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut acc = [0f32; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        acc = fma(a, b, &acc);
    }
    let rest = a_rest.len().min(b_rest.len());
    if rest > 0 {
        let (a, b) = (padded(&a_rest[..rest], 0.0), padded(&b_rest[..rest], 0.0));
        for i in 0..LANES {
            // No index that is known only at run time touches `acc`: it would live in memory in the loop
            // above.
            acc[i] = if i < rest { a[i].mul_add(b[i], acc[i]) } else { acc[i] };
        }
    }
    sum(&acc)
}

/// `Σ a·b` over two rows of equal length in 64 lanes: four chains of [`LANES`], which do not wait for one
/// another, then the tree by halves. Norms are summed so.
#[inline(always)]
pub(crate) fn dot_wide(a: &[f32], b: &[f32]) -> f32 {
    const CHAINS: usize = 4;
    let mut acc = [[0f32; LANES]; CHAINS];
    let (a_blocks, a_rest) = a.as_chunks::<{ CHAINS * LANES }>();
    let (b_blocks, b_rest) = b.as_chunks::<{ CHAINS * LANES }>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for c in 0..CHAINS {
            for i in 0..LANES {
                acc[c][i] = a[c * LANES + i].mul_add(b[c * LANES + i], acc[c][i]);
            }
        }
    }
    // What is left, filled up with zeros.
    let rest = a_rest.len().min(b_rest.len());
    for c in 0..CHAINS {
        let (from, to) = (rest.min(c * LANES), rest.min((c + 1) * LANES));
        acc[c] = fma(&padded(&a_rest[from..to], 0.0), &padded(&b_rest[from..to], 0.0), &acc[c]);
    }
    let mut lanes = [0f32; LANES];
    for i in 0..LANES {
        lanes[i] = (acc[0][i] + acc[2][i]) + (acc[1][i] + acc[3][i]);
    }
    sum(&lanes)
}

/// At most sixteen numbers, then `fill`.
#[inline(always)]
pub(crate) fn padded(numbers: &[f32], fill: f32) -> Lanes {
    let mut out = [fill; LANES];
    out[..numbers.len()].copy_from_slice(numbers);
    out
}

/// Sixteen numbers of `x` from index `at`.
///
/// For loops that hold sums in registers: a check that may panic makes compilers keep the sums in memory.
///
/// # Safety
/// `at + 16 <= x.len()`.
#[inline(always)]
pub(crate) unsafe fn load(x: &[f32], at: usize) -> Lanes {
    debug_assert!(at + LANES <= x.len());
    // SAFETY: the caller promises that the sixteen numbers lie in `x`; an array of f32 has the alignment of
    // f32.
    unsafe { x.as_ptr().add(at).cast::<Lanes>().read() }
}

/// Compiles a function for AVX-512, for AVX2 and for the baseline (on aarch64 NEON, fused multiply-adds
/// included), and chooses at run time.
///
/// Its body must be made of `#[inline(always)]` functions and plain loops, so that it takes on the features
/// of its caller.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name(backend: $crate::Backend, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn portable($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    portable($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    portable($($arg),*)
                }
                match backend {
                    // SAFETY: these functions are private to this crate, and the backend that reaches them is
                    // either `Backend::active`, which is supported, or an argument of a public function that
                    // called `Backend::assert_supported` first. `Backend::is_supported` asks for each of the
                    // features above.
                    $crate::Backend::Avx512Vnni => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::Backend::Avx2 | $crate::Backend::AvxVnni => return unsafe { avx2($($arg),*) },
                    _ => {}
                }
            }
            let _ = backend;
            portable($($arg),*)
        }
    };
}
pub(crate) use multiversion;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_are_summed_in_64_lanes_and_a_tree() {
        for len in [0, 1, 15, 16, 17, 63, 64, 65, 130, 191, 192, 640] {
            let x: Vec<f32> = (0..len).map(|i| (i as f32 + 0.3).sin() * 10f32.powi((i * 7) % 9)).collect();
            let mut lanes = [0f32; 64];
            for (i, x) in x.iter().enumerate() {
                lanes[i % 64] = x.mul_add(*x, lanes[i % 64]);
            }
            let mut half = 32;
            while half > 0 {
                for i in 0..half {
                    lanes[i] += lanes[i + half];
                }
                half /= 2;
            }
            assert_eq!(dot_wide(&x, &x).to_bits(), lanes[0].to_bits(), "{len}");
        }
    }

    #[test]
    fn lanes_are_summed_by_halves() {
        // Magnitudes so different that any other order gives other bits.
        let lanes: Lanes = std::array::from_fn(|i| (i as f32 + 0.7).sin() * 10f32.powi((i as i32 * 7) % 9));
        let pairs: [f32; 4] =
            std::array::from_fn(|i| (lanes[i] + lanes[i + 8]) + (lanes[i + 4] + lanes[i + 12]));
        assert_eq!(sum(&lanes).to_bits(), ((pairs[0] + pairs[2]) + (pairs[1] + pairs[3])).to_bits());
    }
}
