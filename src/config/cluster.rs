//! How nodes of one store reach each other: `[cluster]`.

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::de::Error;

use super::SecretSource;

/// How nodes of one store reach each other.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Cluster {
    /// Host and port that other nodes reach the private listener under. Default: the listener's own address.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "reachable")]
    pub address: Option<String>,
    /// Where the secret is that all nodes share: `env:NAME` or `file:PATH`. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretSource>,
}

/// A host and a port.
fn reachable<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    if is_reachable(&text) {
        return Ok(Some(text));
    }
    let expected = "expected a host and a port that others reach, such as node-1.internal:8081";
    Err(D::Error::custom(expected))
}

fn is_reachable(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match in_brackets {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok_and(|ip| !ip.is_unspecified()),
        None => {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            (1..=253).contains(&host.len()) && host.bytes().all(fits) && host != "0.0.0.0"
        }
    };
    is_host && !port.starts_with('+') && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_that_others_reach() {
        for good in ["10.0.0.7:8081", "node-1.internal:1", "[fd00::7]:65535", "localhost:8081"] {
            assert!(is_reachable(good), "{good}");
        }
        for wrong in [
            "",
            ":1",
            "a",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "http://a:1",
            "a b:1",
            "fd00::7:1",
            "[::]:1",
            "0.0.0.0:1",
            "[a]:1",
            "a/b:1",
        ] {
            assert!(!is_reachable(wrong), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_source_is_not_repeated() {
        for text in ["env:PEER_SECRET", "file:/run/secrets/peers", "file:a:b"] {
            assert_eq!(text.parse::<SecretSource>().unwrap().to_string(), text);
        }
        for wrong in ["s3cret", "env:", "env:A B", "file:", "vault:s3cret"] {
            let error = wrong.parse::<SecretSource>().unwrap_err().to_string();
            assert!(error.contains("env:NAME") && !error.contains("s3cret"), "{error}");
        }
    }
}
