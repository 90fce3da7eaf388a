//! Which node holds a key: one server holds all, a cluster's nodes hold slots.

use redis::Value;

use super::reply::bytes;
use super::reply::int;
use super::reply::items;

/// A node's host and port.
pub(super) type Address = (String, u16);

const SLOTS: usize = 16_384;

/// Where keys lie.
#[derive(Debug)]
pub(super) enum Topology {
    /// One server has them all.
    Single(Address),
    /// A primary for each slot, as far as known.
    Cluster(Slots),
}

/// The primaries of a cluster, and the slots that each holds.
#[derive(Debug)]
pub(super) struct Slots {
    nodes: Vec<Address>,
    /// Of each slot, the index in `nodes` and one more; 0 where nobody holds it.
    held: Vec<u16>,
}

impl Slots {
    /// Reads the answer of `CLUSTER SLOTS`; a node without a name is the one that was `asked`.
    pub(super) fn parse(answer: &Value, asked: &Address) -> Option<Self> {
        let mut slots = Self { nodes: Vec::new(), held: vec![0; SLOTS] };
        for range in items(answer)? {
            let [first, last, primary, ..] = items(range)? else { return None };
            let [host, port, ..] = items(primary)? else { return None };
            let host = bytes(host).and_then(|host| std::str::from_utf8(host).ok());
            let host = host.filter(|host| !host.is_empty() && *host != "?").unwrap_or(&asked.0);
            let port = u16::try_from(int(port)?).ok()?;
            let at = slots.number(&(host.to_owned(), port));
            let range = usize::try_from(int(first)?).ok()?..=usize::try_from(int(last)?).ok()?;
            slots.held.get_mut(range)?.fill(at);
        }
        Some(slots)
    }

    /// Who holds a slot.
    pub(super) fn holder(&self, slot: u16) -> Option<&Address> {
        let number = *self.held.get(usize::from(slot))?;
        self.nodes.get(usize::from(number).checked_sub(1)?)
    }

    /// Notes that a slot has moved.
    pub(super) fn moved(&mut self, slot: u16, to: &Address) {
        let number = self.number(to);
        if let Some(held) = self.held.get_mut(usize::from(slot)) {
            *held = number;
        }
    }

    /// All nodes that hold slots.
    pub(super) fn nodes(&self) -> &[Address] {
        &self.nodes
    }

    fn number(&mut self, address: &Address) -> u16 {
        let at = self.nodes.iter().position(|node| node == address).unwrap_or_else(|| {
            self.nodes.push(address.clone());
            self.nodes.len() - 1
        });
        u16::try_from(at + 1).unwrap_or(0)
    }
}

/// The slot of a key: of what is between its first brace and the next closing one, where something is.
pub(super) fn slot(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty())
        .unwrap_or(key);
    crc16(tag.as_bytes()) % 16_384
}

/// CRC-16/XMODEM, as the cluster's specification says.
fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0u16;
    for byte in bytes {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
    }
    crc
}

/// Reads `host:port`, where the host may be an IPv6 address, or missing: then it is the `asked` one.
pub(super) fn address(text: &str, asked: &Address) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.is_empty() { &asked.0 } else { host };
    Some((host.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot("foo"), 12_182);
        assert_eq!(slot("throng:{foo}:ev"), slot("foo"));
        assert_eq!(slot("{}foo"), crc16(b"{}foo") % 16_384);
    }

    #[test]
    fn a_map_of_slots_follows_what_moves() {
        let node =
            |port| Value::Array(vec![Value::BulkString(b"10.0.0.1".to_vec()), Value::Int(port)]);
        let range = |a, b, node| Value::Array(vec![Value::Int(a), Value::Int(b), node]);
        let answer = Value::Array(vec![range(0, 99, node(1)), range(200, 16_383, node(2))]);
        let asked = ("h".to_owned(), 9);
        let mut slots = Slots::parse(&answer, &asked).unwrap();
        let one = ("10.0.0.1".to_owned(), 1);
        assert_eq!(slots.holder(99), Some(&one));
        assert_eq!(slots.holder(100), None);
        slots.moved(100, &one);
        assert_eq!(slots.holder(100), Some(&one));
        assert_eq!(slots.nodes().len(), 2);
        assert!(Slots::parse(&Value::Int(1), &asked).is_none());
        assert_eq!(address(":7", &asked), Some(("h".to_owned(), 7)));
        assert_eq!(address("::1:7", &asked), Some(("::1".to_owned(), 7)));
    }
}
