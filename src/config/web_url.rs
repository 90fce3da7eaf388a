//! Addresses on the web that the settings name.

use serde::Serialize;
use serde::Serializer;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use url::Url;

/// An address of `http` or `https`. What follows `?` may hold a key: it is used, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct WebUrl(Url);

/// What is no address that can be called. The text is not repeated: it may hold a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an address such as https://crm.example/hook, without a user, a password or `#`")]
pub struct NoWebUrl;

impl WebUrl {
    /// The whole address.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// Whether an address, or the name of a server alone, is written as one of this machine: `localhost`, or a number of
/// 127.0.0.0/8 or `::1`. Whoever writes that means it.
pub(super) fn names_this_machine(text: &str) -> bool {
    let host = match text.contains("://") {
        true => Url::parse(text).ok().and_then(|url| url.host_str().map(str::to_owned)),
        false => Some(text.to_ascii_lowercase()),
    };
    host.is_some_and(|host| {
        let number = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || number.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    })
}

impl FromStr for WebUrl {
    type Err = NoWebUrl;

    fn from_str(text: &str) -> Result<Self, NoWebUrl> {
        let url = Url::parse(text).map_err(|_| NoWebUrl)?;
        let fits = matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none();
        if fits { Ok(Self(url)) } else { Err(NoWebUrl) }
    }
}

impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.as_str();
        match whole.split_once('?') {
            Some((shown, _)) => write!(f, "{shown}?…"),
            None => f.write_str(whole),
        }
    }
}

impl fmt::Debug for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for WebUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_used_whole_and_shown_without_what_may_be_a_key() {
        let url: WebUrl = "https://crm.example/hook?key=s3cret".parse().unwrap();
        assert_eq!(url.as_str(), "https://crm.example/hook?key=s3cret");
        for shown in [url.to_string(), format!("{url:?}"), serde_json::to_string(&url).unwrap()] {
            assert!(shown.contains("https://crm.example/hook?…") && !shown.contains("s3cret"));
        }
        for good in ["http://127.0.0.1:9/", "http://[::1]/x", "https://crm.example"] {
            assert!(good.parse::<WebUrl>().is_ok(), "{good}");
        }
        for wrong in [
            "",
            "crm.example",
            "ftp://a/",
            "file:///etc/passwd",
            "http://u:p@a/",
            "http://a/#b",
            "http://",
        ] {
            assert_eq!(wrong.parse::<WebUrl>().unwrap_err(), NoWebUrl, "{wrong}");
        }
    }
}
