//! `throng snippet`: what a site's pages, servers and apps send, to be pasted.

mod clients;

use clap::Args;
use serde_json::Value;
use serde_json::json;
use std::process::ExitCode;

use crate::app;
use crate::config::ConsentRegime;
use crate::config::Site;
use crate::config::WebUrl;
use crate::rules::nearest;

use super::Failure;
use super::Global;
use super::output::print;
use super::serve;

/// Keeps calls until the tag is there.
const CALLS: &str = "<script>window.throng = window.throng || function () { (throng.q = throng.q || []).push(arguments) }</script>";

/// Arguments of `throng snippet`.
#[derive(Debug, Args)]
pub(super) struct Snippet {
    /// The key of a site of the settings
    site: String,
    /// One piece alone, as it is to be pasted: page, gtm, server, ios, android, tv, prebid.js, or the package of a client,
    /// such as @segment/analytics-node [default: all]
    piece: Option<String>,
    /// Where the public listener is reached, such as `https://collect.shop.example` [default: where it listens]
    #[arg(long, value_name = "URL")]
    host: Option<String>,
}

/// What there is to paste for one site.
struct Piece {
    name: &'static str,
    /// Where it goes.
    what: String,
    text: String,
}

/// Prints what to paste. No server has to run.
pub(super) fn run(global: &Global, command: &Snippet) -> Result<ExitCode, Failure> {
    let config = serve::settings(global)?;
    let Some(site) = config.sites.iter().find(|site| site.key == command.site) else {
        return Err(Failure::Usage(unknown(&command.site, &config.sites)));
    };
    let host = match &command.host {
        Some(text) => origin(text)?,
        None => {
            let scheme = if config.collect.tls.is_some() { "https" } else { "http" };
            format!("{scheme}://{}", app::reachable(config.collect.listen))
        }
    };
    let mut pieces = pieces(site, &host);
    if let Some(name) = &command.piece {
        let names: Vec<&str> = pieces.iter().map(|piece| piece.name).collect();
        let Some(at) = names.iter().position(|known| known == name) else {
            return Err(Failure::Usage(format!(
                "there is no piece `{name}`: there are {}",
                names.join(", ")
            )));
        };
        pieces = vec![pieces.swap_remove(at)];
    }
    let is_alone = command.piece.is_some();
    print(&if global.json {
        pieces.into_iter().map(|piece| (piece.name, piece.text)).collect::<Value>().to_string()
    } else if is_alone {
        pieces.into_iter().map(|piece| piece.text).collect()
    } else {
        listed(&pieces, site)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn pieces(site: &Site, host: &str) -> Vec<Piece> {
    let key = &site.key;
    let address = address(site).map(|address| format!("&amp;u={address}")).unwrap_or_default();
    let page = format!(
        "{CALLS}\n<script async src=\"{host}/t.js\" data-site=\"{key}\"></script>\n\
         <noscript><img src=\"{host}/pixel.gif?s={key}{address}\" alt=\"\" width=\"1\" height=\"1\"></noscript>\n"
    );
    let bought =
        json!({ "event": "purchase", "ids": { "user_id": "12680" }, "props": { "value": 14.85 } });
    let of_device = |namespace: &str, id: &str, kind: &str| {
        let seen =
            json!({ "event": "screen_view", "ids": { namespace: id }, "device": { "kind": kind } });
        curl(site, host, seen)
    };
    let piece = |name, what: &str, text| Piece { name, what: what.to_owned(), text };
    let mut pieces = vec![
        piece(
            "page",
            "In every page, after its consent platform; the image is for browsers without scripts, of one page",
            page,
        ),
        piece(
            "gtm",
            "In Google Tag Manager, as a tag of the type Custom HTML that fires on all pages",
            gtm(key, host),
        ),
        piece("server", "From a server, of somebody whom it knows", curl(site, host, bought)),
        piece(
            "ios",
            "From an app on iOS, of a device whose user allows tracking",
            of_device("idfa", "AEBE52E7-03EE-455A-B3C4-E57283966239", "mobile"),
        ),
        piece(
            "android",
            "From an app on Android, of a device that has an advertising id",
            of_device("gaid", "8f6c2d1e-3b7a-4c59-9d0e-5a1b7c3f2e48", "mobile"),
        ),
        piece(
            "tv",
            "From an app on a TV: rida on Roku, afai on Fire TV, tifa on Apple TV, vida on Vizio, lgudid on LG",
            of_device("rida", "2e1f0c3b-7a65-4d84-9c1b-0f5e6d7a8b92", "tv"),
        ),
    ];
    pieces.extend(clients::CLIENTS.iter().map(|client| Piece {
        name: client.name,
        what: format!("{}, `{}`", client.what, client.name),
        text: client.lines(key, host),
    }));
    pieces
}

/// The tag as a script that makes it: Google Tag Manager keeps no attribute of the page's own on a script.
fn gtm(key: &str, host: &str) -> String {
    format!(
        r#"<script>
  window.throng = window.throng || function () {{ (throng.q = throng.q || []).push(arguments) }};
  (function () {{
    var script = document.createElement("script");
    script.async = true;
    script.src = "{host}/t.js";
    script.setAttribute("data-site", "{key}");
    document.head.appendChild(script);
  }})();
</script>
"#
    )
}

/// All of them, each with where it goes.
fn listed(pieces: &[Piece], site: &Site) -> String {
    let one = |piece: &Piece| format!("{}:\n\n{}", piece.what, piece.text);
    let mut text = pieces.iter().map(one).collect::<Vec<_>>().join("\n");
    if site.consent == ConsentRegime::OptIn {
        text.push_str(
            "\nTCF_STRING stands for what the visitor's consent platform says: without it nothing is recorded. How each client \
             passes it on is in config/README.md.\n",
        );
    }
    text
}

/// The call that posts an event of a site.
fn curl(site: &Site, host: &str, mut event: Value) -> String {
    event["site"] = json!(site.key);
    if site.consent == ConsentRegime::OptIn {
        event["consent"] = json!({ "gdpr": 1, "tcf": "TCF_STRING" });
    }
    // A site that takes events of its pages alone takes those of a server that names one of them.
    let origin = address(site).filter(|_| site.require_origin);
    let origin = origin.map(|address| format!(" -H 'Referer: {address}'")).unwrap_or_default();
    format!("curl {host}/v1/events -H 'Content-Type: application/json'{origin} -d '{event}'\n")
}

/// The address of a page of the site, where its origins name one.
fn address(site: &Site) -> Option<String> {
    let named = site.origins.iter().find(|origin| !origin.0.contains('*'))?;
    Some(format!("{}/", named.0))
}

/// The origin of an address that has nothing else.
fn origin(text: &str) -> Result<String, Failure> {
    let url = text.parse::<WebUrl>().ok();
    let origin = url.as_ref().and_then(|url| url.as_str().strip_suffix('/'));
    match origin.filter(|origin| origin.matches('/').count() == 2 && !origin.contains('?')) {
        Some(origin) => Ok(origin.to_owned()),
        None => Err(Failure::Usage(
            "--host: expected where the public listener is reached, such as https://collect.shop.example, \
             without a path"
                .to_owned(),
        )),
    }
}

fn unknown(key: &str, sites: &[Site]) -> String {
    let keys = || sites.iter().map(|site| site.key.as_str());
    let known = match nearest(key, keys()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", keys().collect::<Vec<_>>().join(", ")),
    };
    format!("the settings have no site `{key}`: {known}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::OriginPattern;

    fn site(change: impl FnOnce(&mut Site)) -> Site {
        let mut site = Site { key: "shop".to_owned(), ..Config::default().sites[0].clone() };
        change(&mut site);
        site
    }

    #[test]
    fn what_is_printed_follows_the_site() {
        let host = "https://collect.shop.example";
        let of = |pieces: &[Piece], name: &str| {
            let piece = pieces.iter().find(|piece| piece.name == name);
            piece.unwrap_or_else(|| panic!("{name}")).text.clone()
        };
        let plain = pieces(&site(|_| ()), host);
        let page = of(&plain, "page");
        assert!(page.contains("src=\"https://collect.shop.example/pixel.gif?s=shop\""));
        let server = of(&plain, "server");
        assert!(!server.contains("Referer") && !server.contains("consent"));

        let site = site(|site| {
            site.origins.push(OriginPattern("https://www.shop.example".to_owned()));
            site.require_origin = true;
            site.consent = ConsentRegime::OptIn;
        });
        let strict = pieces(&site, host);
        let page = of(&strict, "page");
        assert!(page.contains("pixel.gif?s=shop&amp;u=https://www.shop.example/\""));
        for name in ["server", "ios", "android", "tv"] {
            let call = of(&strict, name);
            assert!(call.contains("-H 'Referer: https://www.shop.example/'"), "{call}");
            assert!(call.contains("\"tcf\":\"TCF_STRING\""), "{call}");
        }
        assert!(listed(&strict, &site).contains("\nTCF_STRING stands for"));
    }

    #[test]
    fn a_host_is_an_origin_and_nothing_else() {
        for (text, host) in [
            ("https://collect.shop.example", "https://collect.shop.example"),
            ("HTTPS://Collect.shop.example:443/", "https://collect.shop.example"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(origin(text).unwrap(), host);
        }
        for wrong in [
            "collect.shop.example",
            "https://a.example/b/",
            "https://a.example/?b/",
            "https://u@a.example",
            "",
        ] {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_site_that_is_not_there_is_told_with_those_that_are() {
        let sites = [site(|_| ()), site(|site| site.key = "blog".to_owned())];
        let near = "the settings have no site `shpo`: did you mean `shop`?";
        assert_eq!(unknown("shpo", &sites), near);
        assert_eq!(unknown("x", &sites), "the settings have no site `x`: there are shop, blog");
    }
}
