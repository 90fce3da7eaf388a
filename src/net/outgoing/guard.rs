//! Addresses that no call may go to, however a name leads there.

use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::resolver::ResolvedSocketAddrs;
use ureq::unversioned::resolver::Resolver;
use ureq::unversioned::transport::NextTimeout;

/// Looks names up, and leaves out the addresses that no call may go to. The connection is made to what it gives, so
/// a name that leads elsewhere a moment later changes nothing.
#[derive(Debug, Default)]
pub(super) struct Guarded {
    names: DefaultResolver,
    allow_private: bool,
}

impl Guarded {
    /// Lets private networks and this machine pass, or not.
    pub(super) fn new(allow_private: bool) -> Self {
        Self { names: DefaultResolver::default(), allow_private }
    }
}

/// A name that leads to no other address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} leads to an address of a private network, of this machine or of a cloud's metadata, and is not called; if it is \
     meant, and no metadata, write allow_private = true where it is named"
)]
pub struct OffLimits(pub String);

/// A name that is not found.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not found: {1}")]
struct Unknown(String, #[source] io::Error);

impl Resolver for Guarded {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = || uri.host().unwrap_or_default().to_owned();
        let found = self.names.resolve(uri, config, timeout).map_err(|error| match error {
            // Nothing was sent yet, and no connection broke off.
            ureq::Error::Io(error) => ureq::Error::Other(Box::new(Unknown(host(), error))),
            error => error,
        })?;
        let mut allowed = self.empty();
        for address in found.iter().filter(|address| is_reachable(address.ip(), self.allow_private))
        {
            allowed.push(*address);
        }
        if allowed.is_empty() {
            return Err(ureq::Error::Other(Box::new(OffLimits(host()))));
        }
        Ok(allowed)
    }
}

/// Whether a call may go to an address: one of the internet, or with `allow_private` one of a private network or of this
/// machine. What is nobody's, and the metadata services of clouds, are never called.
pub fn is_reachable(ip: IpAddr, allow_private: bool) -> bool {
    !is_off_limits(ip) && (allow_private || !is_private(ip))
}

/// Whether it is an address that others than ours cannot have, in whatever spelling.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => {
            let [first, second, third, ..] = ip.segments();
            let [.., a, b, c, d] = ip.octets();
            let is_of_v4 = ip.octets()[..12] == [0; 12];
            // By the prefix that all networks may use any server of IPv4 is reached; by others, their own.
            let is_translated = (first, second) == (0x64, 0xff9b)
                && (ip.octets()[4..12] != [0; 8] || is_private_v4(Ipv4Addr::new(a, b, c, d)));
            // 6to4 and Teredo lead to any address of IPv4.
            let is_tunnel = first == 0x2002 || (first, second) == (0x2001, 0);
            let is_own = first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfec0;
            let is_example =
                (first, second) == (0x2001, 0xdb8) || first == 0x3fff && second < 0x1000;
            let is_discarded = (first, second, third) == (0x100, 0, 0);
            is_of_v4
                || is_translated
                || is_tunnel
                || is_own
                || is_example
                || is_discarded
                || ip.to_ipv4_mapped().is_some()
        }
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_shared = a == 100 && b & 0xc0 == 64;
    let is_protocol = (a, b, c) == (192, 0, 0) || (a, b, c) == (192, 88, 99);
    let is_bench = a == 198 && b & 0xfe == 18;
    ip.is_private()
        || ip.is_loopback()
        || ip.is_documentation()
        || is_shared
        || is_protocol
        || is_bench
        || a >= 240
}

/// Whether it is no address of a server that anybody would name: the metadata services of clouds are among them.
fn is_off_limits(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_off_limits_v4(ip),
        IpAddr::V6(ip) => {
            let [first, second, third, .., seventh, eighth] = ip.segments();
            let low = || {
                let ([a, b], [c, d]) = (seventh.to_be_bytes(), eighth.to_be_bytes());
                Ipv4Addr::new(a, b, c, d)
            };
            let in_6to4 = || {
                let ([a, b], [c, d]) = (second.to_be_bytes(), third.to_be_bytes());
                Ipv4Addr::new(a, b, c, d)
            };
            let is_translated = (first, second) == (0x64, 0xff9b);
            let is_6to4 = first == 0x2002;
            let is_metadata = ip == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
            ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
                || is_metadata
                || ip.to_ipv4_mapped().is_some_and(is_off_limits_v4)
                || (is_translated && is_off_limits_v4(low()))
                || (is_6to4 && is_off_limits_v4(in_6to4()))
        }
    }
}

fn is_off_limits_v4(ip: Ipv4Addr) -> bool {
    // All of 0/8 is this host for some systems.
    let is_this = ip.octets()[0] == 0;
    // The metadata service of Alibaba's cloud is in a range that is not link-local.
    let is_metadata = ip == Ipv4Addr::new(100, 100, 100, 200);
    is_this || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast() || is_metadata
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reachable(text: &str) -> (bool, bool) {
        let ip = text.parse().unwrap();
        (is_reachable(ip, false), is_reachable(ip, true))
    }

    #[test]
    fn metadata_services_and_what_is_nobody_s_are_never_called() {
        for text in [
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "100.100.100.200",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
        ] {
            assert_eq!(reachable(text), (false, false), "{text}");
        }
    }

    #[test]
    fn private_networks_and_this_machine_are_called_where_that_is_said() {
        for text in [
            "127.0.0.1",
            "127.8.8.8",
            "10.0.0.7",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "240.0.0.1",
            "::1",
            "fc00::1",
            "fd00::7",
            "fec0::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::7f00:1",
            "2002:7f00:1::1",
            "2001::1",
            "2001:db8::1",
            "100::1",
        ] {
            assert_eq!(reachable(text), (false, true), "{text}");
        }
        for text in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "198.20.0.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "64:ff9b::808:808",
        ] {
            assert_eq!(reachable(text), (true, true), "{text}");
        }
    }
}
