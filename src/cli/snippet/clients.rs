//! The lines that point a client of another vendor here, as config/README.md has them. Tests run what is printed.

/// What stands for the parts that differ in a client's lines: where the listener is, whole and without its scheme, that scheme,
/// and the key of the site.
const PARTS: [&str; 4] = ["HOST", "AUTHORITY", "SCHEME", "KEY"];

/// A client of another vendor: the name of its package, what it is, and its lines.
pub(super) struct Client {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    lines: &'static str,
}

impl Client {
    /// Its lines for a site, and a listener that is reached at an origin.
    pub(super) fn lines(&self, key: &str, host: &str) -> String {
        let (scheme, authority) = host.split_once("://").unwrap_or(("https", host));
        let values = [host, authority, scheme, key];
        let fill = |text: String, (part, value): (&str, &str)| text.replace(part, value);
        PARTS.into_iter().zip(values).fold(self.lines.to_owned(), fill)
    }
}

/// The clients, in the order of the documentation.
pub(super) const CLIENTS: [Client; 14] = [
    Client {
        name: "@segment/analytics-node",
        what: "Segment on Node.js",
        lines: r#"import { Analytics } from "@segment/analytics-node";
const analytics = new Analytics({ writeKey: "KEY", host: "HOST" });
"#,
    },
    Client {
        name: "segment-analytics-python",
        what: "Segment in Python",
        lines: r#"import segment.analytics as analytics
analytics.write_key = "KEY"
analytics.host = "HOST"
"#,
    },
    Client {
        name: "@segment/analytics-next",
        what: "Segment in pages",
        lines: r#"import { AnalyticsBrowser } from "@segment/analytics-next";
const analytics = AnalyticsBrowser.load(
  { writeKey: "KEY", cdnURL: "HOST" },
  { integrations: { "Segment.io": { apiHost: "AUTHORITY/v1", protocol: "SCHEME" } } },
);
"#,
    },
    Client {
        name: "@rudderstack/rudder-sdk-node",
        what: "RudderStack on Node.js",
        lines: r#"import RudderAnalytics from "@rudderstack/rudder-sdk-node";
const analytics = new RudderAnalytics("KEY", { dataPlaneUrl: "HOST" });
"#,
    },
    Client {
        name: "rudder-sdk-python",
        what: "RudderStack in Python",
        lines: r#"import rudderstack.analytics as analytics
analytics.write_key = "KEY"
analytics.dataPlaneUrl = "HOST"
"#,
    },
    Client {
        name: "@rudderstack/analytics-js",
        what: "RudderStack in pages",
        lines: r#"import { RudderAnalytics } from "@rudderstack/analytics-js/bundled";
const analytics = new RudderAnalytics();
analytics.load("KEY", "HOST", { configUrl: "HOST" });
"#,
    },
    Client {
        name: "@jitsu/js",
        what: "Jitsu in pages and on Node.js",
        lines: r#"import { jitsuAnalytics } from "@jitsu/js";
const analytics = jitsuAnalytics({ host: "HOST", writeKey: "KEY:secret" });
"#,
    },
    Client {
        name: "@snowplow/node-tracker",
        what: "Snowplow on Node.js",
        lines: r#"import { newTracker, buildPageView, buildSelfDescribingEvent, buildStructEvent } from "@snowplow/node-tracker";
const tracker = newTracker({ namespace: "sp", appId: "KEY" }, { endpoint: "HOST" });
"#,
    },
    Client {
        name: "snowplow-tracker",
        what: "Snowplow in Python",
        lines: r#"from snowplow_tracker import PageView, SelfDescribing, SelfDescribingJson, Snowplow, StructuredEvent, Subject
tracker = Snowplow.create_tracker(namespace="sp", endpoint="HOST", app_id="KEY")
"#,
    },
    Client {
        name: "@snowplow/browser-tracker",
        what: "Snowplow in pages",
        lines: r#"import { newTracker, setUserId, trackPageView, trackSelfDescribingEvent, trackStructEvent } from "@snowplow/browser-tracker";
newTracker("sp", "HOST", { appId: "KEY" });
"#,
    },
    Client {
        name: "matomo-tracker",
        what: "Matomo on Node.js",
        lines: r#"import MatomoTracker from "matomo-tracker";
const tracker = new MatomoTracker("KEY", "HOST/matomo.php");
"#,
    },
    Client {
        name: "matomo.js",
        what: "Matomo in pages",
        lines: r#"var _paq = (window._paq = window._paq || []);
_paq.push(["setTrackerUrl", "HOST/matomo.php"]);
_paq.push(["setSiteId", "KEY"]);
"#,
    },
    Client {
        name: "apache-unomi-tracker",
        what: "Apache Unomi in pages",
        lines: r#"import { useTracker } from "apache-unomi-tracker";
const tracker = useTracker();
tracker.initTracker({
  scope: "KEY",
  site: { siteInfo: { siteID: "KEY" } },
  page: { pageInfo: { pageID: "home", pageName: document.title, destinationURL: location.href }, attributes: {} },
  events: [],
  wemInitConfig: { contextServerUrl: "HOST", timeoutInMilliseconds: 1500, activateWem: true },
});
tracker.startTracker();
"#,
    },
    Client {
        name: "prebid.js",
        what: "Prebid.js in pages, which asks for audiences; each of the three by itself is enough",
        lines: r#"// Before the auction, for all bidders:
fetch("HOST/v1/audiences?format=ortb2&s=KEY", { credentials: "include" })
  .then((answer) => answer.json()).then((ortb2) => pbjs.setConfig({ ortb2 }));
// Or while it waits, by the module dgkeyword:
pbjs.setConfig({ realTimeData: { auctionDelay: 300, dataProviders: [
  { name: "dgkeyword", waitForIt: true, params: { url: "HOST/v1/audiences?format=keywords&s=KEY" } }] } });
// Or by optable, with a function of one's own; it waits for a bundle that is not needed here:
window.optable = { cmd: { push: (run) => run() } };
pbjs.setConfig({ realTimeData: { auctionDelay: 300, dataProviders: [
  { name: "optable", waitForIt: true, params: { handleRtd: async (request, _, merge) => {
    const answer = await fetch("HOST/v1/audiences?format=ortb2&s=KEY", { credentials: "include" });
    merge(request.ortb2Fragments.global, await answer.json());
  } } }] } });
"#,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_those_of_the_documentation() {
        let text = include_str!("../../../config/README.md");
        for client in &CLIENTS {
            let printed = match client.name {
                "prebid.js" => client.lines("SITE", "COLLECT"),
                _ => client.lines("shop", "https://collect.shop.example"),
            };
            let block = |language: &str| text.contains(&format!("```{language}\n{printed}```"));
            assert!(block("js") || block("python"), "{}: {printed}", client.name);
        }
        for (at, _) in text.match_indices("\n**`") {
            let name = text[at + 4..].split('`').next().unwrap();
            let is_client = CLIENTS.iter().any(|client| client.name == name);
            assert!(is_client || !text[at + 4..].lines().next().unwrap().contains("** "), "{name}");
        }
    }

    #[test]
    fn another_scheme_is_one_everywhere() {
        for client in &CLIENTS {
            let lines = client.lines("blog", "http://127.0.0.1:8080");
            assert!(lines.contains("127.0.0.1:8080") && !lines.contains("https"), "{lines}");
            assert!(!PARTS.iter().any(|part| lines.contains(part)), "{lines}");
        }
    }
}
