//! Settings of the rights of those whose data this is.

use serde::Deserialize;
use serde::Serialize;

/// Deletion requests of others, by the Data Deletion Request Framework.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Privacy {
    /// The domain under which deletion requests are taken and acknowledged. Default none: then none is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Where the public listener is reached from the internet. Default `https://` and the domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Domains whose deletion requests are taken: publishers, and who passes theirs on. Default none.
    pub requesters: Vec<String>,
    /// Whether these may lead to addresses of private networks. Default `false`.
    pub allow_private: bool,
}

impl Privacy {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let is_domain = |text: &str| {
            let (host, port) = text.split_once(':').unwrap_or((text, "443"));
            let is_label = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            !host.is_empty()
                && host.len() <= 253
                && host.chars().all(is_label)
                && port.parse::<u16>().is_ok()
        };
        if self.domain.as_deref().is_some_and(|domain| !is_domain(domain)) {
            problems.push("privacy.domain: expected a domain such as \"dmp.example\"".to_owned());
        }
        if self.url.as_deref().is_some_and(|url| !url.starts_with("https://")) {
            problems
                .push("privacy.url: expected a URL such as \"https://collect.example\"".to_owned());
        }
        for (at, domain) in self.requesters.iter().enumerate() {
            if !is_domain(domain) {
                problems.push(format!(
                    "privacy.requesters[{at}]: expected a domain such as \"publisher.example\""
                ));
            }
        }
    }
}
