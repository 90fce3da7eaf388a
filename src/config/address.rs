//! Addresses as people write them; what is none is told with an example.

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error;
use std::borrow::Cow;
use std::net::IpAddr;
use std::net::SocketAddr;

/// An address and a port.
pub(super) fn socket<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = Cow::<'_, str>::deserialize(from)?;
    let expected = "expected an address and a port, such as 127.0.0.1:8080";
    text.parse().map_err(|_| Error::custom(expected))
}

/// A list of addresses without ports.
pub(super) fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpAddr>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let read = |text: &String| {
        let wrong = || format!("{text:?}: expected an address, such as 10.0.0.7 or fd00::7");
        text.parse().map_err(|_| Error::custom(wrong()))
    };
    texts.iter().map(read).collect()
}
