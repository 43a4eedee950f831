//! Python's `random.Random(seed).sample`, by which lm-evaluation-harness draws few-shot examples: the
//! Mersenne Twister MT19937 (Matsumoto, Nishimura 1998), seeded by `init_by_array`, with CPython's `sample`
//! on top.

use std::collections::HashSet;

const N: usize = 624;
const M: usize = 397;

/// A generator that draws as Python's `random.Random` does.
#[derive(Debug, Clone)]
pub struct PythonRandom {
    state: Box<[u32; N]>,
    at: usize,
}

impl PythonRandom {
    /// `random.Random(seed)`.
    pub fn new(seed: u64) -> Self {
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        let key: &[u32] = if high == 0 { &[low] } else { &[low, high] };
        let mut state = Box::new([0u32; N]);
        state[0] = 19_650_218;
        for i in 1..N {
            let last = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        let (mut i, mut j) = (1, 0);
        for _ in 0..N {
            let last = state[i - 1];
            state[i] = (state[i] ^ (last ^ (last >> 30)).wrapping_mul(1_664_525))
                .wrapping_add(key[j])
                .wrapping_add(j as u32);
            i += 1;
            if i == N {
                state[0] = state[N - 1];
                i = 1;
            }
            j = (j + 1) % key.len();
        }
        for _ in 0..N - 1 {
            let last = state[i - 1];
            state[i] = (state[i] ^ (last ^ (last >> 30)).wrapping_mul(1_566_083_941)).wrapping_sub(i as u32);
            i += 1;
            if i == N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        state[0] = 0x8000_0000;
        Self { state, at: N }
    }

    fn next_u32(&mut self) -> u32 {
        if self.at == N {
            for i in 0..N {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ odd;
            }
            self.at = 0;
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A number below `n`, which is 1 to 2³¹.
    fn below(&mut self, n: usize) -> usize {
        let bits = usize::BITS - n.leading_zeros();
        loop {
            let drawn = (self.next_u32() >> (32 - bits)) as usize;
            if drawn < n {
                return drawn;
            }
        }
    }

    /// `random.sample(range(n), k)`; nothing if `k` is more than `n`.
    pub fn sample(&mut self, n: usize, k: usize) -> Vec<usize> {
        if k > n {
            return Vec::new();
        }
        // CPython keeps a list of what is left where that is smaller than a set of what is taken.
        let mut list_below = 21;
        if k > 5 {
            list_below += 4usize.pow(((k * 3) as f64).log(4.0).ceil() as u32);
        }
        if n <= list_below {
            let mut pool: Vec<usize> = (0..n).collect();
            return (0..k)
                .map(|i| {
                    let j = self.below(n - i);
                    let drawn = pool[j];
                    pool[j] = pool[n - i - 1];
                    drawn
                })
                .collect();
        }
        let mut taken = HashSet::new();
        (0..k)
            .map(|_| {
                loop {
                    let j = self.below(n);
                    if taken.insert(j) {
                        return j;
                    }
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What CPython 3.11 gives.
    #[test]
    fn draws_are_those_of_python() {
        let mut random = PythonRandom::new(1234);
        let drawn: Vec<u32> = (0..5).map(|_| random.next_u32()).collect();
        assert_eq!(drawn, [4150886329, 3342196574, 1892932127, 501869158, 32175636]);
        // One generator for all: many and few to draw from, above and below the list's bound.
        let mut random = PythonRandom::new(1234);
        assert_eq!(random.sample(100, 5), [99, 56, 14, 0, 11]);
        assert_eq!(random.sample(100, 5), [74, 4, 85, 88, 10]);
        assert_eq!(random.sample(7473, 8), [806, 6279, 2905, 1939, 142, 252, 6461, 129]);
        assert_eq!(random.sample(30, 5), [11, 20, 19, 15, 14]);
        assert_eq!(random.sample(21, 4), [4, 2, 5, 3]);
        assert_eq!(random.sample(10, 10), [0, 8, 7, 1, 9, 4, 3, 5, 2, 6]);
        assert_eq!(random.sample(22, 3), [8, 17, 2]);
        assert_eq!(random.sample(1000, 30)[..6], [660, 309, 492, 870, 363, 272]);
        assert_eq!(PythonRandom::new(0).sample(50, 3), [24, 48, 26]);
        assert_eq!(PythonRandom::new((1 << 40) + 7).sample(50, 3), [39, 47, 40]);
    }
}
