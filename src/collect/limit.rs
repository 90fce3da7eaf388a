//! Token buckets: how many events one address, one site or one identifier may send.
//!
//! Bounded memory: a bucket that nobody has asked for since its half of the map filled up is forgotten, and
//! starts full again. IPv6 addresses count by /64, which one household holds alone.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hash::Hash;
use std::hash::RandomState;
use std::net::IpAddr;
use std::time::Duration;

use crate::model::Identifier;
use crate::model::Millis;

const SHARDS: usize = 16;
/// Buckets in each of the two halves of a shard.
const BUCKETS: usize = 4_096;

pub(super) struct Limiter {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    per_second: f64,
    burst: f64,
}

#[derive(Default)]
struct Shard {
    young: HashMap<u128, Bucket>,
    old: HashMap<u128, Bucket>,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Millis,
    /// Events that were refused since it was full.
    refused: u32,
}

/// A bucket that has not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Empty {
    /// So long it takes until it has.
    pub(super) wait: Duration,
    /// Events that were refused since it was full, these included.
    pub(super) refused: u32,
}

impl Limiter {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            per_second: f64::from(per_second),
            burst: f64::from(burst),
        }
    }

    /// Takes a token for each event, or none and tells how long to wait. Loopback is not limited.
    pub(super) fn take(&self, address: IpAddr, events: u32, now: Millis) -> Result<(), Duration> {
        let key = match address.to_canonical() {
            address if address.is_loopback() => return Ok(()),
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits() >> 64 << 64,
        };
        self.draw(key, events, now).map_err(|empty| empty.wait)
    }

    /// Takes a token for each event of a site, or none and tells how long to wait.
    pub(super) fn take_site(&self, site: &str, events: u32, now: Millis) -> Result<(), Duration> {
        self.draw(self.key((0, site)), events, now).map_err(|empty| empty.wait)
    }

    /// Takes a token for an event of an identifier, or none.
    pub(super) fn take_identifier(&self, of: &Identifier, now: Millis) -> Result<(), Empty> {
        self.draw(self.key((1, of)), 1, now)
    }

    /// What anything is counted as. Nobody outside knows the hash's key, so nobody can share a bucket on purpose.
    fn key(&self, of: impl Hash) -> u128 {
        let half = |half: u8| u128::from(self.hasher.hash_one((half, &of)));
        half(0) << 64 | half(1)
    }

    fn draw(&self, key: u128, events: u32, now: Millis) -> Result<(), Empty> {
        // A batch larger than the burst waits for a full bucket, not for ever.
        let wanted = f64::from(events).min(self.burst);
        let place = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        let mut shard = self.shards[place].lock();
        let full = Bucket { tokens: self.burst, at: now, refused: 0 };
        let Shard { young, old } = &mut *shard;
        if !young.contains_key(&key) {
            if young.len() >= BUCKETS {
                *old = std::mem::take(young);
            }
            let bucket = old.remove(&key).unwrap_or(full);
            young.insert(key, bucket);
        }
        let bucket = young.entry(key).or_insert(full);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since the last hit are few")]
        let elapsed = now.saturating_sub(bucket.at).max(0) as f64 / 1_000.0;
        bucket.tokens = (bucket.tokens + elapsed * self.per_second).min(self.burst);
        bucket.at = now;
        if bucket.tokens >= self.burst {
            bucket.refused = 0;
        }
        if bucket.tokens >= wanted {
            bucket.tokens -= wanted;
            Ok(())
        } else {
            bucket.refused = bucket.refused.saturating_add(events);
            let wait = Duration::from_secs_f64((wanted - bucket.tokens) / self.per_second);
            Err(Empty { wait, refused: bucket.refused })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let limiter = Limiter::new(200, 2_000);
        let client = address("192.0.2.1");
        assert_eq!(limiter.take(client, 2_000, 0), Ok(()));
        assert_eq!(limiter.take(client, 100, 0), Err(Duration::from_millis(500)));
        assert_eq!(limiter.take(address("192.0.2.2"), 1, 0), Ok(()));
        assert_eq!(limiter.take(client, 100, 500), Ok(()));
        assert!(limiter.take(client, 1, 500).is_err());
        assert_eq!(limiter.take(client, 2_000, 11_000), Ok(()));
    }

    #[test]
    fn a_household_shares_a_bucket_and_loopback_has_none() {
        let limiter = Limiter::new(1, 1);
        assert!(limiter.take(address("2001:db8::1"), 1, 0).is_ok());
        assert!(limiter.take(address("2001:db8::2"), 1, 0).is_err());
        assert!(limiter.take(address("2001:db8:0:1::1"), 1, 0).is_ok());
        assert!(limiter.take(address("::ffff:192.0.2.1"), 1, 0).is_ok());
        assert!(limiter.take(address("192.0.2.1"), 1, 0).is_err());
        for loopback in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
            assert!((0..10).all(|_| limiter.take(address(loopback), 1, 0).is_ok()), "{loopback}");
        }
    }

    #[test]
    fn a_batch_beyond_the_burst_waits_for_a_full_bucket() {
        let limiter = Limiter::new(10, 10);
        assert!(limiter.take(address("192.0.2.1"), 500, 0).is_ok());
        let wait = limiter.take(address("192.0.2.1"), 500, 0);
        assert_eq!(wait, Err(Duration::from_secs(1)));
    }

    #[test]
    fn who_keeps_sending_is_told_from_who_waits() {
        use crate::model::Namespace;
        let limiter = Limiter::new(10, 20);
        let id = |value| Identifier::new(Namespace::new("user_id").unwrap(), value).unwrap();
        let refused =
            |now| (0..100).filter_map(|_| limiter.take_identifier(&id("a"), now).err()).last();
        assert_eq!(refused(0).map(|empty| empty.refused), Some(80));
        assert_eq!(refused(1_000).map(|empty| empty.refused), Some(170));
        assert!(limiter.take_identifier(&id("b"), 1_000).is_ok());
        assert!(limiter.take_site("a", 1, 1_000).is_ok());
        // Once it was full it begins anew.
        assert!(limiter.take_identifier(&id("a"), 9_000).is_ok());
        assert_eq!(refused(9_000).map(|empty| empty.refused), Some(81));
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = Limiter::new(1, 1);
        for number in 0..300_000u32 {
            let _ = limiter.take(IpAddr::V4((0x0100_0000 + number).into()), 1, 0);
        }
        let held = |shard: &Mutex<Shard>| {
            let shard = shard.lock();
            shard.young.len() + shard.old.len()
        };
        assert!(limiter.shards.iter().map(held).sum::<usize>() <= 2 * SHARDS * BUCKETS);
    }
}
