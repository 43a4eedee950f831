//! Rate limits: requests and tokens of each client in the last minute.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Seconds that a window counts.
const WINDOW: u64 = 60;
/// Seconds of a window that is kept: the current second, of which a part is over, and those before it.
const SLOTS: usize = WINDOW as usize + 1;
/// Clients that are remembered at most.
const MOST_CLIENTS: usize = 10_000;

/// What a client may ask for in any 60 seconds; none is without a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests.
    pub requests: Option<u64>,
    /// Tokens of prompts and of answers. A request is admitted as long as those before it have not reached the
    /// limit; its own are counted when it is over.
    pub tokens: Option<u64>,
}

impl Limits {
    /// These, where they say something, and otherwise the others.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { requests: self.requests.or(other.requests), tokens: self.tokens.or(other.tokens) }
    }
}

/// A client whose requests are counted together: neither a key nor an address, but a hash that nobody outside of
/// this process can compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ClientId(u64);

/// A limit that a client has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exceeded {
    /// `requests` or `tokens`.
    pub(crate) what: &'static str,
    pub(crate) limit: u64,
    /// Seconds until there is room again.
    pub(crate) retry_after: u64,
}

/// What every client has asked for lately.
#[derive(Debug)]
pub(crate) struct Limiter {
    hasher: RandomState,
    begin: Instant,
    clients: Mutex<HashMap<ClientId, Window>>,
}

impl Limiter {
    pub(crate) fn new() -> Self {
        Self { hasher: RandomState::new(), begin: Instant::now(), clients: Mutex::default() }
    }

    /// A client with a key.
    pub(crate) fn key(&self, name: &str) -> ClientId {
        ClientId(self.hasher.hash_one(("key", name)))
    }

    /// A client without a key. Addresses of IPv6 count by network: one client has a whole /64.
    pub(crate) fn address(&self, address: IpAddr) -> ClientId {
        let network = match address.to_canonical() {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits() >> 64 | 1 << 127,
        };
        ClientId(self.hasher.hash_one(("address", network)))
    }

    fn now(&self) -> u64 {
        self.begin.elapsed().as_secs()
    }

    /// Counts a request, unless the client has reached a limit.
    pub(crate) fn admit(&self, client: ClientId, limits: Limits) -> Result<(), Exceeded> {
        if limits == Limits::default() {
            return Ok(());
        }
        let now = self.now();
        self.with(client, now, |window| window.admit(now, limits))
    }

    /// Counts the tokens of a request that is over.
    pub(crate) fn charge(&self, client: ClientId, tokens: u64) {
        let now = self.now();
        self.with(client, now, |window| {
            window.advance(now);
            window.slots[now as usize % SLOTS].1 += tokens;
        });
    }

    fn with<T>(&self, client: ClientId, now: u64, then: impl FnOnce(&mut Window) -> T) -> T {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MOST_CLIENTS && !clients.contains_key(&client) {
            clients.retain(|_, window| window.last + WINDOW >= now);
            // Under attack from everywhere the one that was quiet for longest is forgotten.
            if clients.len() >= MOST_CLIENTS
                && let Some(quiet) = clients.iter().min_by_key(|(_, window)| window.last).map(|(id, _)| *id)
            {
                clients.remove(&quiet);
            }
        }
        then(clients.entry(client).or_insert_with(|| Window::new(now)))
    }
}

/// Requests and tokens by the second in which they were counted.
#[derive(Debug)]
struct Window {
    /// The second of the last change.
    last: u64,
    slots: [(u64, u64); SLOTS],
}

impl Window {
    fn new(now: u64) -> Self {
        Self { last: now, slots: [(0, 0); SLOTS] }
    }

    /// Forgets what is older than the window.
    fn advance(&mut self, now: u64) {
        for second in (self.last + 1..=now).take(SLOTS) {
            self.slots[second as usize % SLOTS] = (0, 0);
        }
        self.last = self.last.max(now);
    }

    fn admit(&mut self, now: u64, limits: Limits) -> Result<(), Exceeded> {
        self.advance(now);
        if let Some(limit) = limits.requests {
            self.room(now, "requests", limit, |slot| slot.0)?;
        }
        if let Some(limit) = limits.tokens {
            self.room(now, "tokens", limit, |slot| slot.1)?;
        }
        self.slots[now as usize % SLOTS].0 += 1;
        Ok(())
    }

    /// Whether less than the limit was counted, or when enough of it will have left the window.
    fn room(
        &self,
        now: u64,
        what: &'static str,
        limit: u64,
        of: impl Fn(&(u64, u64)) -> u64,
    ) -> Result<(), Exceeded> {
        let mut sum: u64 = self.slots.iter().map(&of).sum();
        if sum < limit {
            return Ok(());
        }
        // From the oldest second, the next to leave, to the current one.
        for age in (0..SLOTS as u64).rev().filter(|age| *age <= now) {
            sum -= of(&self.slots[(now - age) as usize % SLOTS]);
            if sum < limit {
                return Err(Exceeded { what, limit, retry_after: SLOTS as u64 - age });
            }
        }
        Err(Exceeded { what, limit, retry_after: SLOTS as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(requests: u64, tokens: u64) -> Limits {
        Limits { requests: Some(requests), tokens: Some(tokens) }
    }

    /// Against a list of all times: never more than the limit in 60 seconds, and what is promised is kept.
    #[test]
    fn no_sixty_seconds_have_more_than_the_limit() {
        for step in [1, 2, 7, 13, 59, 60, 61, 200] {
            let mut window = Window::new(3);
            let mut admitted: Vec<u64> = Vec::new();
            for now in (3..2_000).step_by(step) {
                for _ in 0..3 {
                    let last_minute = admitted.iter().filter(|at| **at + WINDOW >= now).count();
                    match window.admit(now, limits(5, 1_000)) {
                        Ok(()) => {
                            assert!(last_minute < 5, "{now}: {admitted:?}");
                            admitted.push(now);
                        }
                        Err(exceeded) => {
                            assert!(last_minute >= 5, "{now}: {admitted:?}");
                            let promised = now + exceeded.retry_after;
                            let left = admitted.iter().filter(|at| **at + WINDOW >= promised).count();
                            let before = admitted.iter().filter(|at| **at + WINDOW >= promised - 1).count();
                            assert!(left < 5 && before >= 5, "{now} {promised}: {admitted:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn tokens_count_when_they_are_known() {
        let limiter = Limiter::new();
        let (one, other) = (limiter.key("one"), limiter.key("other"));
        assert_ne!(one, other);
        assert_eq!(limiter.admit(one, limits(9, 10)), Ok(()));
        limiter.charge(one, 25);
        let exceeded = limiter.admit(one, limits(9, 10)).unwrap_err();
        assert_eq!((exceeded.what, exceeded.limit), ("tokens", 10));
        assert!((1..=61).contains(&exceeded.retry_after));
        assert_eq!(limiter.admit(other, limits(9, 10)), Ok(()));
        assert_eq!(limiter.admit(one, Limits::default()), Ok(()));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_memory_is_bounded() {
        let limiter = Limiter::new();
        let id = |text: &str| limiter.address(text.parse().unwrap());
        assert_eq!(id("2001:db8::1"), id("2001:db8::ffff:2"));
        assert_ne!(id("2001:db8::1"), id("2001:db8:0:1::1"));
        assert_eq!(id("::ffff:10.0.0.1"), id("10.0.0.1"));
        assert_ne!(id("10.0.0.1"), id("10.0.0.2"));
        for i in 0..MOST_CLIENTS as u32 + 50 {
            let client = limiter.address(IpAddr::from(i.to_be_bytes()));
            assert_eq!(limiter.admit(client, limits(1, 1)), Ok(()));
        }
        assert_eq!(limiter.clients.lock().unwrap().len(), MOST_CLIENTS);
    }
}
