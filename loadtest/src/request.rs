//! Pixel requests as a browser sends them, made fast enough for one core to send 100,000 a second:
//! whole requests are laid out once, and each hit overwrites the digits that differ.

use crate::http::{Client, header};
use crate::random::Random;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::ops::Range;

const AGENTS: [&str; 6] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (iPad; CPU OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1",
];

/// What a hit is: mostly page views, some product views, few purchases.
const KINDS: [&str; 10] = [
    "page_view",
    "page_view",
    "page_view",
    "page_view",
    "page_view",
    "page_view",
    "page_view",
    "product_view&p.category=shoes",
    "product_view&p.category=shirts",
    "purchase&p.value=19.90",
];

/// Who the hits come from.
#[derive(Debug, Clone)]
pub enum Visitors {
    /// Signed-in visitors `u0000000` and on, named by the page: nobody gets a cookie.
    Named(u64),
    /// Browsers with these cookies (`name=value`), all equally long.
    Cookies(Vec<String>),
}

/// An endless source of requests, each with a message id of its own.
#[derive(Debug, Clone)]
pub struct Requests {
    layouts: Vec<Layout>,
    visitors: Visitors,
    random: Random,
    message: u64,
}

#[derive(Debug, Clone)]
struct Layout {
    bytes: Vec<u8>,
    message: Range<usize>,
    visitor: Range<usize>,
    page: Range<usize>,
}

impl Requests {
    /// Requests of `visitors` to the site `site`. Two sources with different seeds share no message.
    pub fn new(site: &str, visitors: Visitors, seed: u64) -> Self {
        Self::of_kinds(site, &KINDS, visitors, seed)
    }

    /// The same of other hits: each the name of an event with what follows it in the query, as often as it is there.
    pub fn of_kinds(site: &str, kinds: &[&str], visitors: Visitors, seed: u64) -> Self {
        let mut layouts = Vec::new();
        for agent in AGENTS {
            for kind in kinds {
                layouts.push(Layout::new(site, kind, agent, &visitors));
            }
        }
        let random = Random::new(seed);
        Self { layouts, visitors, message: 0, random }.reseeded(seed)
    }

    /// Questions which audiences somebody is in, for a server that has a token: of the users `p0000000` and on.
    pub fn lookups(token: &str, users: u64, seed: u64) -> Self {
        let layout = Layout::of(format!(
            "GET /v1/audiences?id.user_id=p@@@@@@@&n=%%%%%%%%%%%%%%%%&p=#### HTTP/1.1\r\n\
             Host: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        ));
        let visitors = Visitors::Named(users);
        let random = Random::new(seed);
        Self { layouts: vec![layout], visitors, message: 0, random }.reseeded(seed)
    }

    /// The same requests in another order, with other messages.
    pub fn reseeded(&self, seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self { message: random.draw(), random, ..self.clone() }
    }

    /// The next request, whole, until it is overwritten by the one after.
    pub fn fill(&mut self) -> &[u8] {
        let drawn = self.random.draw();
        let layout = usize::try_from(drawn >> 8).unwrap_or(0) % self.layouts.len();
        let layout = &mut self.layouts[layout];
        self.message = self.message.wrapping_add(1);
        hex(&mut layout.bytes[layout.message.clone()], self.message);
        digits(&mut layout.bytes[layout.page.clone()], drawn >> 32);
        match &self.visitors {
            Visitors::Named(count) => {
                let visitor = self.random.below(*count);
                digits(&mut layout.bytes[layout.visitor.clone()], visitor);
            }
            Visitors::Cookies(cookies) => {
                let cookie = &cookies[usize::try_from(drawn >> 16).unwrap_or(0) % cookies.len()];
                layout.bytes[layout.visitor.clone()].copy_from_slice(cookie.as_bytes());
            }
        }
        &layout.bytes
    }
}

impl Layout {
    fn new(site: &str, kind: &str, agent: &str, visitors: &Visitors) -> Self {
        let (query, cookie) = match visitors {
            Visitors::Named(_) => ("&id.user_id=u@@@@@@@", String::new()),
            Visitors::Cookies(cookies) => {
                let length = cookies.first().map_or(0, String::len);
                ("", format!("Cookie: {}\r\n", "@".repeat(length)))
            }
        };
        let text = format!(
            "GET /pixel.gif?s={site}&e={kind}&m=%%%%%%%%%%%%%%%%{query}&\
             u=http%3A%2F%2Flocalhost%3A8000%2Fp%2F#### HTTP/1.1\r\n\
             Host: localhost\r\nUser-Agent: {agent}\r\nAccept: image/avif,image/webp,*/*;q=0.8\r\n\
             Accept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\n\
             Referer: http://localhost:8000/\r\n{cookie}\r\n"
        );
        Self::of(text)
    }

    /// A request in which the places of what differs are marked.
    fn of(text: String) -> Self {
        let run = |mark: &str, length: usize| {
            let start = text.find(&mark.repeat(length.max(1))).unwrap_or(0);
            start..start + length
        };
        let visitor = text.matches('@').count();
        Self {
            message: run("%", 16),
            visitor: run("@", visitor),
            page: run("#", 4),
            bytes: text.into_bytes(),
        }
    }
}

/// Has the server make `count` cookies, as for first visits.
pub fn cookies(target: SocketAddr, site: &str, count: usize) -> Result<Vec<String>> {
    let mut client = Client::connect(target)?;
    let mut cookies = Vec::with_capacity(count);
    for _ in 0..count {
        let path = format!("/pixel.gif?s={site}");
        let (_, head, _) = client.get(&path)?;
        let cookie = header(head, b"set-cookie").and_then(|value| value.split(';').next());
        cookies.push(cookie.context("a first hit was answered without a cookie")?.to_owned());
    }
    Ok(cookies)
}

fn hex(into: &mut [u8], mut value: u64) {
    for place in into.iter_mut().rev() {
        *place = b"0123456789abcdef"[usize::from((value & 15) as u8)];
        value >>= 4;
    }
}

fn digits(into: &mut [u8], mut value: u64) {
    for place in into.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_request_is_whole_and_has_its_own_message() {
        let cookies = vec!["throng=aaaa.bb".to_owned(), "throng=cccc.dd".to_owned()];
        for visitors in [Visitors::Named(1000), Visitors::Cookies(cookies)] {
            let mut requests = Requests::new("demo", visitors, 7);
            let mut messages = HashSet::new();
            for _ in 0..1000 {
                let text = String::from_utf8(requests.fill().to_vec()).unwrap();
                assert!(text.ends_with("\r\n\r\n") && !text.contains(['@', '#']), "{text}");
                assert!(text.contains("id.user_id=u0000") || text.contains("Cookie: throng="));
                let at = text.find("&m=").unwrap() + 3;
                assert!(messages.insert(text[at..at + 16].to_owned()), "{text}");
            }
        }
    }
}
