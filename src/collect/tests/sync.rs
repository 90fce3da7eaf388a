use super::*;
use crate::config::Partner;
use crate::config::PartnerKind;
use crate::config::Period;
use crate::consent::tests::encode::Eu;
use crate::model::time::DAY;

fn partner(name: &str, kind: PartnerKind) -> Partner {
    Partner {
        name: name.to_owned(),
        kind,
        namespace: None,
        account: Some("me-1".to_owned()),
        url: None,
        here: Some("https://t.shop.example".to_owned()),
        every: Period(14 * DAY),
        ttl: None,
    }
}

fn listener() -> Listener {
    listener_with(|_| ())
}

/// One whose site `demo` syncs with some partners.
fn listener_of(partners: &[&str], most: usize) -> Listener {
    listener_with(|config| {
        for site in config.sites.iter_mut().filter(|site| site.key == "demo") {
            site.partners = partners.iter().map(|name| (*name).to_owned()).collect();
            site.max_syncs_per_page = most;
        }
    })
}

fn listener_with(more: impl FnOnce(&mut Config)) -> Listener {
    Listener::with(|config| {
        let url = "https://sync.partner.example/u?us={id}&b={id_base64}&g={gdpr}&c={gdpr_consent}&p={gpp}&s={gpp_sid}\
                   &us_privacy={us_privacy}&k={site}#{here}";
        let generic = Partner {
            url: Some(url.to_owned()),
            account: None,
            ..partner("dsp", PartnerKind::Generic)
        };
        config.sites.iter_mut().for_each(|site| site.tcf_vendor = Some(7));
        config.partners = vec![
            generic,
            partner("xandr", PartnerKind::Xandr),
            partner("google", PartnerKind::Google),
            partner("trade-desk", PartnerKind::TradeDesk),
            Partner { here: None, ..partner("silent", PartnerKind::Generic) },
        ];
        more(config);
    })
}

fn count(listener: &Listener, partner: &str, direction: &str, result: &str) -> u64 {
    listener.metrics.collect_syncs.with_label_values(&[partner, direction, result]).get()
}

#[test]
fn a_browser_is_sent_to_the_configured_address_and_nowhere_else() {
    let listener = listener();
    let pair = listener.cookie();
    let id = &pair["throng=".len()..][..32];
    let base64 = {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(id)
    };
    let tcf = Eu::default().text();
    for (name, query, expected) in [
        (
            "dsp",
            "s=demo&gdpr=0&us_privacy=1-%0d%0aSet-Cookie:x&url=https://evil.example&r=//evil.example".to_owned(),
            format!(
                "https://sync.partner.example/u?us={id}&b={base64}&g=0&c=&p=&s=&us_privacy=1-%0D%0ASet-Cookie%3Ax&k=demo\
                 #https%3A%2F%2Ft.shop.example"
            ),
        ),
        (
            "xandr",
            format!("s=demo&gdpr=1&gdpr_consent={tcf}"),
            format!(
                "https://ib.adnxs.com/getuid?https%3A%2F%2Ft.shop.example%2Fmatch%2Fxandr%3Fs%3Ddemo%26gdpr%3D1\
                 %26gdpr_consent%3D{tcf}%26uid%3D%24UID&gdpr=1&gdpr_consent={tcf}"
            ),
        ),
        (
            "google",
            "s=demo".to_owned(),
            format!(
                "https://cm.g.doubleclick.net/pixel?google_nid=me-1&google_cm&google_hm={base64}&gdpr=&gdpr_consent="
            ),
        ),
        (
            "trade-desk",
            "s=demo".to_owned(),
            format!(
                "https://match.adsrvr.org/track/cmf/generic?ttd_pid=me-1&ttd_tpi=1&ttd_puid={id}&gdpr=&gdpr_consent="
            ),
        ),
    ] {
        let answer = listener.get(&format!("/sync/{name}?{query}"), &[("Cookie", &pair)]);
        assert_eq!(answer.status, 302, "{name}");
        assert_eq!(answer.header("location"), Some(&*expected), "{name}");
        assert_eq!(answer.header("cache-control"), Some("no-store, private"));
        assert_eq!(count(&listener, name, "out", "sent"), 1);
    }
    assert_eq!(listener.get("/sync/evil?s=demo", &[("Cookie", &pair)]).status, 404);
    assert_eq!(listener.post("/sync/dsp?s=demo", &[], "x").status, 405);
    assert_gif(&listener.get("/sync/silent?s=demo", &[("Cookie", &pair)]));
    assert_eq!(listener.events().len(), 1, "to be sent somewhere is no event");
}

#[test]
fn a_browser_is_sent_once_in_a_while_and_only_where_it_is_known_and_agrees() {
    let listener = listener();
    let pair = listener.cookie();
    let sync =
        |more: &str, headers: &[(&str, &str)]| listener.get(&format!("/sync/dsp?{more}"), headers);
    let first = sync("s=demo", &[("Cookie", &pair)]);
    let memory = first.cookies()[0].split(';').next().unwrap().to_owned();
    assert!(memory.starts_with("throng-sync=dsp."), "{memory}");
    let both = format!("{pair}; {memory}");
    assert_gif(&sync("s=demo", &[("Cookie", &both)]));
    assert_eq!(count(&listener, "dsp", "out", "fresh"), 1);
    // Another partner is another matter.
    let other = listener.get("/sync/google?s=demo", &[("Cookie", &both)]);
    let remembered = other.cookies()[0].split(';').next().unwrap();
    assert_eq!((other.status, remembered.matches('/').count()), (302, 1), "{remembered}");
    listener.clock.0.fetch_add(14 * DAY, Ordering::SeqCst);
    assert_eq!(sync("s=demo", &[("Cookie", &both)]).status, 302);
    // What a browser remembers is worth nothing to somebody else, whatever it says.
    for memory in [
        "throng-sync=",
        "throng-sync=///",
        "throng-sync=dsp.99999999999999",
        "throng-sync=dsp.-1",
        "throng-sync=dsp.-9223372036854775808",
    ] {
        assert_eq!(
            sync("s=demo", &[("Cookie", &format!("{pair}; {memory}"))]).status,
            302,
            "{memory}"
        );
    }

    assert_gif(&sync("s=demo", &[]));
    assert_eq!(count(&listener, "dsp", "out", "no_cookie"), 1);
    let refused = [
        ("s=nobody", &[("Cookie", &*pair)][..]),
        ("", &[("Cookie", &pair)]),
        ("s=demo", &[("Cookie", &pair), ("Origin", "https://evil.example")]),
        ("s=strict", &[("Cookie", &pair)]),
        ("s=open", &[("Cookie", &pair), ("Sec-GPC", "1")]),
    ];
    for (query, headers) in refused {
        assert_gif(&sync(query, headers));
    }
    assert_eq!(count(&listener, "dsp", "out", "refused"), refused.len() as u64);
    // A string that allows storage alone makes nobody known to others.
    let stored = Eu { consents: [1, 9].into_iter().collect(), ..Eu::default() }.text();
    assert_gif(&sync(&format!("s=demo&gdpr=1&gdpr_consent={stored}"), &[("Cookie", &pair)]));
    let marked = listener.choices();
    assert_eq!(
        marked.len(),
        1,
        "silence on a strict site is a refusal of who is known: {marked:?}"
    );
}

#[test]
fn the_tag_is_told_of_those_partners_that_are_due_and_of_no_more_than_a_page_may_have() {
    let listener = listener_of(&["dsp", "google", "trade-desk", "silent"], 2);
    let pair = listener.cookie();
    let origin = ("Origin", "http://localhost:3000");
    let told = |more: &str, headers: &[(&str, &str)]| {
        let event = format!(r#"[{{"site":"demo","event":"page_view"{more}}}]"#);
        let answer = listener.post("/v1/events", headers, &event);
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["accepted"], 1, "{body}");
        assert!(body.get("sync").is_none_or(|sync| !sync.as_array().unwrap().is_empty()));
        body["sync"].as_array().cloned().unwrap_or_default()
    };
    let cookie = ("Cookie", &*pair);
    // A browser that keeps no cookie is not known the next time; a server has no browser.
    assert_eq!(told("", &[origin]), [""; 0]);
    assert_eq!(told(r#","ids":{"user_id":"ada"}"#, &[cookie]), [""; 0]);
    assert_eq!(told("", &[origin, cookie]), ["dsp", "google"]);
    // Nor is who may be in no audience made known.
    let stored = Eu { consents: [1, 9].into_iter().collect(), ..Eu::default() }.text();
    let all = Eu::default().text();
    let consent = |text: &str| format!(r#","consent":{{"gdpr":1,"tcf":"{text}"}}"#);
    assert_eq!(told(&consent(&stored), &[origin, cookie]), [""; 0]);
    assert_eq!(told(&consent(&all), &[origin, cookie]), ["dsp", "google"]);
    let sent = listener.get("/sync/dsp?s=demo", &[cookie]);
    let both = format!("{pair}; {}", sent.cookies()[0].split(';').next().unwrap());
    assert_eq!(told("", &[origin, ("Cookie", &both)]), ["google", "trade-desk"]);
    listener.clock.0.fetch_add(14 * DAY, Ordering::SeqCst);
    assert_eq!(told("", &[origin, ("Cookie", &both)]), ["dsp", "google"]);
    // A site that lists none syncs with none.
    let event = r#"[{"site":"open","event":"page_view"}]"#;
    let answer = listener.post("/v1/events", &[("Origin", "https://open.example"), cookie], event);
    assert_eq!(String::from_utf8_lossy(&answer.body), r#"{"accepted":1,"rejected":[]}"#);
}

#[test]
fn a_match_costs_one_of_what_an_address_may_send() {
    let listener = listener_with(|config| {
        config.collect.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        config.collect.rate_per_address = 1;
        config.collect.burst_per_address = 3;
    });
    let pair = listener.cookie();
    let far = [("Cookie", &*pair), ("X-Forwarded-For", "203.0.113.5")];
    for id in 1..=4 {
        assert_gif(&listener.get(&format!("/match/xandr?s=demo&uid={id}"), &far));
    }
    assert_gif(&listener.get("/sync/dsp?s=demo", &far));
    assert_eq!(count(&listener, "xandr", "in", "matched"), 3);
    assert_eq!(count(&listener, "xandr", "in", "refused"), 1);
    assert_eq!(count(&listener, "dsp", "out", "refused"), 1);
}

#[test]
fn a_partners_id_that_is_no_text_matches_nobody() {
    let listener = listener();
    let pair = listener.cookie();
    assert_gif(&listener.get("/match/dsp?uid=a%FF&s=demo", &[("Cookie", &pair)]));
    assert_eq!(count(&listener, "dsp", "in", "matched"), 0);
    assert_eq!(listener.events().len(), 1);
    assert_eq!(listener.metrics.collect_identifiers_dropped.with_label_values(&["value"]).get(), 1);
}

#[test]
fn where_google_begins_the_browser_goes_back_with_what_it_wants_to_see_again() {
    let listener = listener();
    let pair = listener.cookie();
    let path = "/match/google?s=demo&google_gid=CAESE-1&google_cver=1&google_push=AYg%2F5%0d%0aX";
    let answer = listener.get(path, &[("Cookie", &pair)]);
    assert_eq!(answer.status, 302);
    let location = answer.header("location").unwrap();
    assert!(
        location.starts_with("https://cm.g.doubleclick.net/pixel?google_nid=me-1&google_hm="),
        "{location}"
    );
    assert!(location.ends_with("&google_push=AYg%2F5%0D%0AX"), "{location}");
    assert_eq!(listener.events().pop().unwrap().ids[1].value(), "CAESE-1");
    // Of others it is no parameter, and without an id, a cookie or consent nothing goes back.
    let long = "x".repeat(600);
    for path in [
        "/match/xandr?s=demo&uid=5&google_push=x",
        "/match/google?s=demo&google_push=x",
        "/match/google?s=demo&google_gid=%25%25GOOGLE_GID%25%25&google_push=x",
        &format!("/match/google?s=demo&google_gid=y&google_push={long}"),
        "/match/google?s=demo&google_gid=y&us_privacy=1YYN&google_push=x",
    ] {
        assert_gif(&listener.get(path, &[("Cookie", &pair)]));
    }
    assert_gif(&listener.get(path, &[]));
}

#[test]
fn a_partners_id_is_an_identifier_of_the_browsers_profile() {
    let listener = listener();
    let pair = listener.cookie();
    let id = pair["throng=".len()..][..32].to_owned();
    for (path, namespace, value) in [
        ("/match/xandr?s=demo&uid=5727816213491965430", "xandr", "5727816213491965430"),
        ("/match/google?s=demo&google_gid=CAESEKx_y-z&google_cver=1", "google", "CAESEKx_y-z"),
        (
            "/match/trade-desk?s=demo&uid=123e4567-e89b-12d3-a456-426652340000",
            "ttd",
            "123e4567-e89b-12d3-a456-426652340000",
        ),
        ("/match/dsp?uid=a%2Fb&s=demo", "dsp", "a/b"),
    ] {
        let answer = listener.get(path, &[("Cookie", &pair)]);
        assert_gif(&answer);
        assert_eq!(answer.cookies(), [""; 0]);
        let event = listener.events().pop().unwrap();
        let ids: Vec<_> = event.ids.iter().map(|id| (id.namespace.as_str(), id.value())).collect();
        assert_eq!(ids, [("cookie", &*id), (namespace, value)], "{path}");
        assert_eq!((&*event.name, &*event.site), ("id_match", "demo"));
    }
    let before = listener.events().len();
    for path in [
        "/match/xandr?s=demo&uid=0",
        "/match/xandr?s=demo&uid=",
        "/match/xandr?s=demo",
        "/match/xandr?s=demo&uid=%24UID",
        "/match/trade-desk?s=demo&uid=%25%25TDID%25%25",
        "/match/google?s=demo&google_gid=x&google_error=15",
        "/match/google?s=demo&uid=5",
    ] {
        assert_gif(&listener.get(path, &[("Cookie", &pair)]));
    }
    assert_eq!(count(&listener, "xandr", "in", "no_id"), 4);
    assert_eq!(count(&listener, "google", "in", "error_15"), 1);
    assert_gif(&listener.get("/match/xandr?s=demo&uid=77", &[]));
    assert_eq!(count(&listener, "xandr", "in", "no_cookie"), 1);
    assert_gif(
        &listener
            .get(&format!("/match/xandr?s=demo&uid={}", "7".repeat(9_000)), &[("Cookie", &pair)]),
    );
    assert_eq!(listener.get("/match/evil?uid=7", &[("Cookie", &pair)]).status, 404);
    assert_eq!(listener.events().len(), before);

    // Nor is who is recorded for no audience: by GPC where no consent is needed, and by a string that allows storage alone.
    let stored = Eu { consents: [1, 9].into_iter().collect(), ..Eu::default() }.text();
    let path = format!("/match/xandr?s=demo&uid=9&gdpr=1&gdpr_consent={stored}");
    assert_gif(&listener.get(&path, &[("Cookie", &pair)]));
    assert_gif(&listener.get("/match/xandr?s=open&uid=9", &[("Cookie", &pair), ("Sec-GPC", "1")]));
    assert_eq!((listener.events().len(), listener.choices()), (before, vec![]));

    // Who does not agree is not matched, and that is their choice.
    let refused = Eu { consents: [].into_iter().collect(), ..Eu::default() }.text();
    let path = format!("/match/xandr?s=demo&uid=8&gdpr=1&gdpr_consent={refused}");
    let answer = listener.get(&path, &[("Cookie", &pair)]);
    assert_eq!(answer.cookies().len(), 1, "its cookie goes");
    assert_eq!((listener.events().len(), listener.choices()), (before, vec![(id, true)]));
    assert_eq!(count(&listener, "xandr", "in", "refused"), 4);
}
