//! The client of a bucket: it calls no address that is off limits, and follows nobody elsewhere.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use object_store::ClientOptions;
use object_store::client::HttpClient;
use object_store::client::HttpConnector;
use reqwest::dns::Addrs;
use reqwest::dns::Name;
use reqwest::dns::Resolve;
use reqwest::dns::Resolving;
use reqwest::redirect::Policy;

use crate::net::OffLimits;
use crate::net::is_reachable;

/// Makes clients.
#[derive(Debug)]
pub(super) struct Guarded {
    allow_private: bool,
    timeout: Duration,
    connect: Duration,
}

/// Looks names up. The connection is made to what it gives.
struct Names {
    allow_private: bool,
}

/// Refuses an address that is written as a number: no name is looked up for it.
pub(super) fn check(endpoint: &str, allow_private: bool) -> Result<(), OffLimits> {
    let url = url::Url::parse(endpoint).ok();
    let ip = match url.as_ref().and_then(url::Url::host) {
        Some(url::Host::Ipv4(ip)) => IpAddr::V4(ip),
        Some(url::Host::Ipv6(ip)) => IpAddr::V6(ip),
        _ => return Ok(()),
    };
    if is_reachable(ip, allow_private) { Ok(()) } else { Err(OffLimits(ip.to_string())) }
}

impl Guarded {
    pub(super) fn new(allow_private: bool, timeout: Duration, connect: Duration) -> Self {
        Self { allow_private, timeout, connect }
    }
}

impl HttpConnector for Guarded {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = reqwest::Client::builder()
            .timeout(self.timeout)
            .connect_timeout(self.connect)
            .redirect(Policy::none())
            .no_proxy()
            .user_agent(concat!("throng/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(Names { allow_private: self.allow_private }))
            .build();
        let client = client.map_err(|source| object_store::Error::Generic {
            store: "S3",
            source: Box::new(source),
        })?;
        Ok(HttpClient::new(client))
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found = found.filter(|found| is_reachable(found.ip(), allow_private));
            let found: Vec<SocketAddr> = found.collect();
            if found.is_empty() {
                return Err(io::Error::other(OffLimits(name.as_str().to_owned())).into());
            }
            let found: Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_written_as_a_number_is_looked_at_too() {
        for private in
            ["http://127.0.0.1:9000", "http://[::1]/", "http://0x7f.1/", "https://10.0.0.7"]
        {
            assert!(check(private, false).is_err(), "{private}");
            assert!(check(private, true).is_ok(), "{private}");
        }
        assert!(check("http://169.254.169.254/", true).is_err());
        assert!(check("https://s3.example", false).is_ok());
    }
}
