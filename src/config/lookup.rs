//! What is told of audiences, and to whom.

use serde::{Deserialize, Serialize};

/// The smallest number that `segtax` has for taxonomies of companies.
const OWN_SEGTAX: u32 = 500;

/// What `GET /v1/audiences` tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lookup {
    /// Whether a page of a site may ask which audiences its visitor is in. Default `true`.
    pub pages: bool,
    /// Pages are told of segments that have one of these tags; of all, where there is none. Default none.
    pub page_tags: Vec<String>,
    /// Who provides the data, in OpenRTB: a domain. Default the host that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The number that the ids of our own segments have in `segtax` of OpenRTB, 500 or more, as it was registered; without
    /// it only segments are told there that name their place in the IAB's taxonomy. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segtax: Option<u32>,
}

impl Default for Lookup {
    fn default() -> Self {
        Self { pages: true, page_tags: Vec::new(), provider: None, segtax: None }
    }
}

impl Lookup {
    /// Reports what is wrong with the values.
    pub(super) fn see(&self, within: &mut dyn FnMut(&str, bool, &str)) {
        within("lookup.segtax", self.segtax.is_none_or(|own| own >= OWN_SEGTAX), "500 or more");
        let is_domain = |name: &String| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
            (1..=253).contains(&name.len()) && name.bytes().all(fits)
        };
        let is_fit = self.provider.as_ref().is_none_or(is_domain);
        within("lookup.provider", is_fit, "a domain, such as \"dmp.example\"");
    }
}
