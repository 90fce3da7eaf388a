//! Who is let in: so many connections in all, and so many from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::metrics::IntCounter;
use crate::metrics::IntGauge;
use crate::metrics::Metrics;

/// Bytes of heads that have not ended, of all connections together, beyond what each may have at any time.
const MOST_OF_HEADS: usize = 64 << 20;

/// Counts the connections of one listener.
pub struct Gate {
    most: usize,
    most_of_one: usize,
    /// Addresses that are not counted for themselves: proxies speak for many.
    exempt: Vec<IpAddr>,
    counts_loopback: bool,
    open: AtomicUsize,
    addresses: Mutex<HashMap<u128, usize>>,
    heads: AtomicUsize,
    gauge: IntGauge,
    refusals: [IntCounter; Refusal::ALL.len()],
}

/// Why a connection ended before its client wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There are as many as there may be.
    Full,
    /// Its address has as many as one may have.
    Address,
    /// It did not come to terms about TLS.
    Handshake,
    /// It kept the server waiting.
    Slow,
    /// Heads that have not ended take more memory than they may.
    Heads,
}

impl Refusal {
    const ALL: [Self; 5] = [Self::Full, Self::Address, Self::Handshake, Self::Slow, Self::Heads];

    fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Address => "address",
            Self::Handshake => "handshake",
            Self::Slow => "slow",
            Self::Heads => "heads",
        }
    }
}

impl Gate {
    /// A gate that lets in so many, and so many from one address but for `exempt` ones and loopback.
    pub fn new(
        listener: &str,
        (most, most_of_one): (usize, usize),
        exempt: Vec<IpAddr>,
        metrics: &Metrics,
    ) -> Self {
        let refusal =
            |why: Refusal| metrics.connections_refused.with_label_values(&[listener, why.as_str()]);
        Self {
            most,
            most_of_one,
            exempt: exempt.into_iter().map(|address| address.to_canonical()).collect(),
            counts_loopback: false,
            open: AtomicUsize::new(0),
            addresses: Mutex::default(),
            heads: AtomicUsize::new(0),
            gauge: metrics.connections.with_label_values(&[listener]),
            refusals: Refusal::ALL.map(refusal),
        }
    }

    /// Counts loopback as any address, which tests come from.
    #[cfg(test)]
    pub fn counting_loopback(mut self) -> Self {
        self.counts_loopback = true;
        self
    }

    /// Lets a connection in, or counts why not.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Pass> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.open.fetch_sub(1, Ordering::Relaxed);
            self.refused(Refusal::Full);
            return None;
        }
        let address = self.counted(address);
        if let Some(address) = address {
            let mut addresses = self.addresses.lock();
            let open = addresses.entry(address).or_default();
            if *open >= self.most_of_one {
                drop(addresses);
                self.open.fetch_sub(1, Ordering::Relaxed);
                self.refused(Refusal::Address);
                return None;
            }
            *open += 1;
        }
        self.gauge.inc();
        Some(Pass { gate: Arc::clone(self), address })
    }

    /// What an address is counted as: IPv6 by /64, which one household holds alone.
    fn counted(&self, address: IpAddr) -> Option<u128> {
        let address = address.to_canonical();
        let is_free = address.is_loopback() && !self.counts_loopback;
        if is_free || self.exempt.contains(&address) {
            return None;
        }
        Some(match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits() >> 64 << 64,
        })
    }

    pub(super) fn refused(&self, why: Refusal) {
        self.refusals[why as usize].inc();
    }

    /// Takes room for bytes of a head that has not ended.
    pub(super) fn take_head(&self, bytes: usize) -> bool {
        let held = self.heads.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if held > MOST_OF_HEADS {
            self.heads.fetch_sub(bytes, Ordering::Relaxed);
            self.refused(Refusal::Heads);
            return false;
        }
        true
    }

    pub(super) fn give_head(&self, bytes: usize) {
        self.heads.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A connection that was let in; it is counted until this is dropped.
pub(super) struct Pass {
    gate: Arc<Gate>,
    address: Option<u128>,
}

impl Pass {
    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            let mut addresses = self.gate.addresses.lock();
            if let Some(open) = addresses.get_mut(&address) {
                *open -= 1;
                if *open == 0 {
                    addresses.remove(&address);
                }
            }
        }
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
        self.gate.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_gives_it_back() {
        let metrics = Metrics::new();
        let proxy: IpAddr = "192.0.2.9".parse().unwrap();
        let gate = Arc::new(Gate::new("public", (5, 2), vec![proxy], &metrics));
        let refused =
            |why: &str| metrics.connections_refused.with_label_values(&["public", why]).get();
        let admit = |address: &str| gate.admit(address.parse().unwrap());
        let held = [admit("2001:db8::1"), admit("2001:db8::2")];
        assert!(held.iter().all(Option::is_some));
        assert!(admit("2001:db8::3").is_none() && refused("address") == 1);
        let others = [admit("192.0.2.9"), admit("::ffff:192.0.2.9"), admit("127.0.0.1")];
        assert!(others.iter().all(Option::is_some));
        assert!(admit("192.0.2.1").is_none() && refused("full") == 1);
        drop(held);
        assert!(admit("2001:db8::3").is_some());
        drop(others);
        assert!(gate.addresses.lock().is_empty());
        assert_eq!(metrics.connections.with_label_values(&["public"]).get(), 0);
    }
}
