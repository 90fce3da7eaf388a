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
    resolver: DefaultResolver,
    /// Whether no address of a private network is allowed, either.
    is_strict: bool,
}

impl Guarded {
    /// Leaves out the addresses of private networks, too.
    pub(super) fn strict() -> Self {
        Self { is_strict: true, ..Self::default() }
    }
}

/// A name that leads to no other address.
#[derive(Debug, thiserror::Error)]
#[error("{0} leads to an address of this machine's network that nothing is ever sent to")]
pub(super) struct OffLimits(String);

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
        let found = self.resolver.resolve(uri, config, timeout).map_err(|error| match error {
            // Nothing was sent yet, and no connection broke off.
            ureq::Error::Io(error) => ureq::Error::Other(Box::new(Unknown(host(), error))),
            error => error,
        })?;
        let mut allowed = self.empty();
        let is_barred = |ip: IpAddr| is_off_limits(ip) || (self.is_strict && is_private(ip));
        for address in found.iter().filter(|address| !is_barred(address.ip())) {
            allowed.push(*address);
        }
        if allowed.is_empty() {
            return Err(ureq::Error::Other(Box::new(OffLimits(host()))));
        }
        Ok(allowed)
    }
}

/// Whether it is no address of a server that somebody would name: the metadata services of clouds are among them.
/// Private networks are not: a CRM in the own network is a destination like others, and who writes the file of
/// destinations runs the server.
pub fn is_off_limits(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_off_limits_v4(ip),
        IpAddr::V6(ip) => {
            let [first, second, .., seventh, eighth] = ip.segments();
            let low = || {
                let ([a, b], [c, d]) = (seventh.to_be_bytes(), eighth.to_be_bytes());
                Ipv4Addr::new(a, b, c, d)
            };
            let is_translated = (first, second) == (0x64, 0xff9b);
            let is_metadata = ip == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
            ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
                || is_metadata
                || ip.to_ipv4_mapped().is_some_and(is_off_limits_v4)
                || (is_translated && is_off_limits_v4(low()))
        }
    }
}

/// Whether it is an address that is not reached over the internet: who names it means this machine or its network.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => {
            let [first, second, ..] = ip.segments();
            let low = Ipv4Addr::from_bits(u32::try_from(ip.to_bits() & 0xffff_ffff).unwrap_or(0));
            // Addresses that carry one of the other kind lead there.
            let is_6to4 = first == 0x2002;
            let is_teredo = (first, second) == (0x2001, 0);
            let is_translated = first == 0x64 && second == 0xff9b;
            ip.is_loopback()
                || ip.is_unique_local()
                || is_6to4
                || is_teredo
                || ip.to_ipv4_mapped().is_some_and(is_private_v4)
                || (is_translated && is_private_v4(low))
        }
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_benchmark = a == 198 && (18..20).contains(&b);
    ip.is_loopback()
        || ip.is_private()
        || is_shared
        || is_benchmark
        || ip.is_documentation()
        || a >= 240
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

    #[test]
    fn strangers_lead_to_no_private_network() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "2002:7f00:1::",
            "64:ff9b::a00:1",
            "255.255.255.255",
        ] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in ["8.8.8.8", "100.63.0.1", "2606:4700::1", "64:ff9b::808:808"] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn metadata_services_are_off_limits_in_every_spelling_and_private_networks_are_not() {
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
        ] {
            assert!(is_off_limits(text.parse().unwrap()), "{text}");
        }
        for text in
            ["127.0.0.1", "10.0.0.7", "192.168.1.1", "8.8.8.8", "::1", "fd00::7", "2001:db8::1"]
        {
            assert!(!is_off_limits(text.parse().unwrap()), "{text}");
        }
    }
}
