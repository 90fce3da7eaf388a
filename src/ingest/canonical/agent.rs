//! What a user agent tells: the kind of device, its system and browser, and whether it is a crawler.
//!
//! Names come from `woothee`, kinds of device are refined here, crawlers are known by the patterns in
//! `crawlers.txt` (its terms beside it). Judging costs tens of microseconds, so answers are
//! remembered: browsers send the same few thousand texts.

use regex::bytes::RegexSet;
use regex::bytes::RegexSetBuilder;
use std::collections::HashMap;
use std::sync::LazyLock;
use woothee::parser::Parser;

/// What one user agent tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Agent {
    /// `desktop`, `mobile`, `tablet`, `tv`, `bot` or `other`; none of an empty text.
    pub kind: Option<&'static str>,
    /// The operating system.
    pub os: Option<&'static str>,
    /// The browser.
    pub browser: Option<&'static str>,
    /// Whether it is a crawler.
    pub bot: bool,
}

/// How much of a text is judged: real ones are below 400 bytes.
const JUDGED: usize = 512;
/// How many answers each of the two halves of the memory holds.
const REMEMBERED: usize = 2_048;

/// Judges user agents and remembers the answers; one a worker, so that nobody waits for another.
///
/// Two halves: what is asked moves to the young one, and when that is full the old one is forgotten. The
/// map is keyed at random, since its keys are an attacker's choice.
#[derive(Debug, Default)]
pub struct Agents {
    young: HashMap<Box<str>, Agent>,
    old: HashMap<Box<str>, Agent>,
}

impl Agents {
    /// What a user agent tells.
    pub fn judge(&mut self, text: &str) -> Agent {
        let text = start_of(text);
        if let Some(agent) = self.young.get(text) {
            return *agent;
        }
        let agent = self.old.remove(text).unwrap_or_else(|| judge(text));
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(text.into(), agent);
        agent
    }
}

/// The part of a text that is judged.
fn start_of(text: &str) -> &str {
    let mut end = text.len().min(JUDGED);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

static CRAWLERS: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSetBuilder::new(include_str!("crawlers.txt").lines())
        .unicode(false)
        .size_limit(64 << 20)
        .dfa_size_limit(8 << 20)
        .build()
        .expect("the shipped patterns are regular expressions")
});

fn judge(text: &str) -> Agent {
    if text.trim().is_empty() || text == "-" {
        return Agent::default();
    }
    let parsed = Parser::new().parse(text).unwrap_or_default();
    let bot = parsed.category == "crawler" || CRAWLERS.is_match(text.as_bytes());
    let kind = if bot { "bot" } else { kind(text, parsed.category) };
    Agent { kind: Some(kind), os: os(parsed.os), browser: browser(text, parsed.name), bot }
}

fn kind(text: &str, category: &str) -> &'static str {
    const TV: [&str; 14] = [
        "SmartTV",
        "SMART-TV",
        "Smart TV",
        "Smart-TV",
        "HbbTV",
        "AppleTV",
        "Apple TV",
        "GoogleTV",
        "Google TV",
        "Android TV",
        "BRAVIA",
        "NetCast",
        "Web0S",
        "Roku",
    ];
    let has = |part: &str| text.contains(part);
    // A Fire TV names its model only: AFT and letters.
    let fire_tv = has("; AFT") && has("Android");
    if TV.into_iter().any(has) || fire_tv || has("CrKey") || (has("Tizen") && has("TV")) {
        return "tv";
    }
    let tablet = has("iPad")
        || has("Tablet")
        || has("PlayBook")
        || has("Kindle")
        || (has("Android") && !has("Mobile") && !has("Mobi"));
    if tablet && !has("Tablet PC") {
        return "tablet";
    }
    match category {
        "pc" => "desktop",
        "smartphone" | "mobilephone" => "mobile",
        _ => "other",
    }
}

fn os(name: &str) -> Option<&'static str> {
    Some(match name {
        "Android" => "Android",
        "iPhone" | "iPad" | "iPod" | "iOS" => "iOS",
        "Mac OSX" => "macOS",
        "ChromeOS" => "ChromeOS",
        "Linux" => "Linux",
        "BSD" => "BSD",
        "Windows Phone OS" => "Windows Phone",
        "BlackBerry" | "BlackBerry 10" => "BlackBerry",
        "Firefox OS" => "Firefox OS",
        name if name.starts_with("Windows") => "Windows",
        name if name.starts_with("PlayStation") => "PlayStation",
        name if name.starts_with("Nintendo") => "Nintendo",
        name if name.starts_with("Xbox") => "Xbox",
        _ => return None,
    })
}

fn browser(text: &str, name: &str) -> Option<&'static str> {
    Some(match name {
        "Chrome" => "Chrome",
        "Safari" => "Safari",
        "Firefox" => "Firefox",
        "Edge" => "Edge",
        "Opera" => "Opera",
        "Internet Explorer" => "Internet Explorer",
        "SamsungBrowser" => "Samsung Internet",
        "Vivaldi" => "Vivaldi",
        "Yandex Browser" => "Yandex Browser",
        "Sleipnir" => "Sleipnir",
        "Google Search App" => "Google Search App",
        "Webview" => "Webview",
        "UNKNOWN" if text.contains("Silk/") => "Silk",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_systems_and_browsers_are_told() {
        let mut agents = Agents::default();
        for (text, kind, os, browser) in [
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
                "desktop",
                Some("Windows"),
                Some("Chrome"),
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 Safari/605.1.15",
                "desktop",
                Some("macOS"),
                Some("Safari"),
            ),
            (
                "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0",
                "desktop",
                Some("Linux"),
                Some("Firefox"),
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 Mobile/15E148 Safari/604.1",
                "mobile",
                Some("iOS"),
                Some("Safari"),
            ),
            (
                "Mozilla/5.0 (iPad; CPU OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 Mobile/15E148 Safari/604.1",
                "tablet",
                Some("iOS"),
                Some("Safari"),
            ),
            (
                "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Mobile Safari/537.36",
                "mobile",
                Some("Android"),
                Some("Chrome"),
            ),
            (
                "Mozilla/5.0 (Linux; Android 13; SM-X900) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
                "tablet",
                Some("Android"),
                Some("Chrome"),
            ),
            (
                "Mozilla/5.0 (SMART-TV; Linux; Tizen 6.0) AppleWebKit/537.36 (KHTML, like Gecko) Version/6.0 TV Safari/537.36",
                "tv",
                Some("Linux"),
                Some("Safari"),
            ),
            ("something of its own", "other", None, None),
        ] {
            // The second answer is the remembered one.
            for _ in 0..2 {
                let agent = agents.judge(text);
                assert_eq!(
                    (agent.kind, agent.os, agent.browser),
                    (Some(kind), os, browser),
                    "{text}"
                );
                assert!(!agent.bot, "{text}");
            }
        }
        assert_eq!(agents.judge(""), Agent::default());
    }

    #[test]
    fn crawlers_are_bots() {
        let mut agents = Agents::default();
        for text in [
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "curl/8.5.0",
            "python-requests/2.31.0",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/120.0.0.0 Safari/537.36",
        ] {
            let agent = agents.judge(text);
            assert!(agent.bot && agent.kind == Some("bot"), "{text}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut agents = Agents::default();
        for number in 0..2 * REMEMBERED + 2 {
            agents.judge(&number.to_string());
        }
        assert!(agents.young.len() <= REMEMBERED && agents.old.len() <= REMEMBERED);
        let long = "é".repeat(10_000);
        agents.judge(&long);
        assert!(agents.young.keys().all(|text| text.len() <= JUDGED));
    }
}
