use super::*;
use crate::model::Source;
use crate::model::Value;
use crate::model::time::DAY;

const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/120.0.0.0 Safari/537.36";

fn names(event: &Event) -> Vec<&str> {
    event.ids.iter().map(|id| id.namespace.as_str()).collect()
}

#[test]
fn a_hit_is_answered_with_the_image_and_recorded_with_all_it_says() {
    let listener = Listener::new();
    let ts = NOW - DAY;
    let answer = listener.get(
        &format!(
            "/pixel.gif?s=demo&e=add%20to+cart&u=https%3A%2F%2Fshop.example%2Fa%3Fx%3D1&r=&t=Caf%C3%A9&ts={ts}\
             &m=m-1&id.user_id=12680&id.email=Jane.Doe%2BNews%40gmail.com&p.value=14.850&p.value=15&p.empty=\
             &a.country=FR&cb=123&unknown=1"
        ),
        &[("User-Agent", CHROME), ("Accept-Language", "fr-FR,fr;q=0.9")],
    );
    assert_gif(&answer);
    assert_eq!(answer.cookies(), [""; 0]);
    let [event] = &listener.events()[..] else { panic!("one event") };
    assert_eq!((&*event.site, &*event.name, event.source), ("demo", "add to cart", Source::Pixel));
    assert_eq!((event.time, event.received, event.time_replaced), (ts, NOW, false));
    assert_eq!(event.message_id.as_deref(), Some("m-1"));
    assert_eq!(names(event), ["user_id", "email_sha256", "email_gmail_sha256"]);
    let text = |text: &str| Value::string(text);
    let props = [("value".into(), text("15")), ("empty".into(), text(""))];
    assert_eq!(event.props, props);
    assert_eq!(event.attrs, [("country".into(), text("FR"))]);
    assert_eq!(event.page.url.as_deref(), Some("https://shop.example/a?x=1"));
    assert_eq!((event.page.referrer.as_deref(), event.page.title.as_deref()), (None, Some("Café")));
    assert_eq!(event.device.kind.as_deref(), Some("desktop"));
    assert_eq!(event.device.browser.as_deref(), Some("Chrome"));
    assert_eq!((event.bot, event.locale.as_deref()), (false, Some("fr-FR")));
    assert_eq!(listener.outcomes("pixel"), [("accepted", 1)]);
    assert_eq!(listener.metrics.ingest_logged.get(), 1);
}

#[test]
fn a_browser_gets_one_identifier_and_keeps_it() {
    let listener = Listener::new();
    let first = listener.get("/pixel.gif?s=demo", &[]);
    let [cookie] = first.cookies()[..] else { panic!("one cookie") };
    assert!(cookie.ends_with("; Path=/; Max-Age=34128000; HttpOnly; SameSite=Lax"), "{cookie}");
    let pair = cookie.split(';').next().unwrap();
    let again = listener.get("/pixel.gif?s=demo&id.user_id=7", &[("Cookie", pair)]);
    assert_eq!(again.cookies(), [""; 0]);
    let events = listener.events();
    assert_eq!(&*events[0].name, "page_view");
    assert_eq!(events[0].ids[0].value(), &pair["throng=".len()..][..32]);
    assert_eq!(names(&events[1]), ["cookie", "user_id"]);
    assert_eq!(events[1].ids[0], events[0].ids[0]);
}

#[test]
fn a_forged_or_doubled_cookie_is_as_if_there_were_none() {
    let listener = Listener::new();
    let real = listener.cookie();
    let forged = format!("throng={}.{}", "0123456789abcdef".repeat(2), "0".repeat(16));
    for cookies in [forged, format!("{real}; {real}")] {
        let answer = listener.get("/pixel.gif?s=demo", &[("Cookie", &cookies)]);
        assert_eq!(answer.cookies().len(), 1);
    }
    let ids: std::collections::BTreeSet<_> =
        listener.events().iter().map(|event| event.ids[0].value().to_owned()).collect();
    assert_eq!(ids.len(), 3);
}

#[test]
fn https_is_what_a_trusted_proxy_says() {
    let proxied = Listener::with(|config| {
        config.collect.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        config.sites[1].cookie_domain = Some("shop.example".to_owned());
        config.sites[1].consent = ConsentRegime::OptOut;
    });
    let https = [("X-Forwarded-Proto", "https")];
    let answer = proxied.get("/pixel.gif?s=demo", &https);
    let cookie = answer.cookies()[0];
    assert!(cookie.starts_with("__Host-throng="), "{cookie}");
    assert!(cookie.ends_with("; HttpOnly; Secure; SameSite=None"), "{cookie}");
    let answer = proxied.get("/pixel.gif?s=strict", &https);
    let cookie = answer.cookies()[0];
    assert!(cookie.starts_with("__Secure-throng=") && cookie.contains("; Domain=shop.example;"));
    let answer = Listener::new().get("/pixel.gif?s=demo", &https);
    assert!(answer.cookies()[0].starts_with("throng="));
}

#[test]
fn every_refused_hit_gets_the_image_and_its_outcome() {
    let listener = Listener::new();
    let long = format!("/pixel.gif?s=demo&t={}", "x".repeat(8 << 10));
    let many: String = (0..600).map(|n| format!("&p.{n}=")).collect();
    let many = format!("/pixel.gif?s=demo{many}");
    for (path, header, outcome) in [
        ("/pixel.gif", ("Accept", "*/*"), "unknown_site"),
        ("/pixel.gif?s=nobody", ("Accept", "*/*"), "unknown_site"),
        ("/pixel.gif?s=demo", ("Origin", "https://evil.example"), "foreign_origin"),
        ("/pixel.gif?s=demo", ("Origin", "null"), "foreign_origin"),
        (
            "/pixel.gif?s=demo",
            ("Referer", "https://evil.example/http://localhost/"),
            "foreign_origin",
        ),
        ("/pixel.gif?s=demo&e=%00", ("Accept", "*/*"), "invalid"),
        ("/pixel.gif?s=demo&ts=yesterday", ("Accept", "*/*"), "invalid"),
        ("/pixel.gif?s=demo&gdpr=1", ("Accept", "*/*"), "refused_consent"),
        ("/pixel.gif?s=demo", ("Cookie", "throng-optout=1"), "opted_out"),
        (&long, ("Accept", "*/*"), "too_large"),
        (&many, ("Accept", "*/*"), "too_large"),
    ] {
        let before = listener.outcomes("pixel");
        let answer = listener.get(path, &[header]);
        assert_gif(&answer);
        assert_eq!(answer.cookies(), [""; 0], "{path}");
        let mut grown = listener.outcomes("pixel");
        grown.retain(|outcome| !before.contains(outcome));
        assert_eq!(grown.len(), 1, "{path}");
        assert_eq!(grown[0].0, outcome, "{path}");
    }
    assert!(listener.records().is_empty());
}

#[test]
fn what_a_page_has_to_encode_is_taken_encoded_and_is_no_request_otherwise() {
    let listener = Listener::new();
    for (plain, encoded) in [("caf\u{e9}", "caf%C3%A9"), ("a\"b", "a%22b"), ("<a>", "%3Ca%3E")] {
        let before = listener.events().len();
        assert_eq!(listener.get(&format!("/pixel.gif?s=demo&e={plain}"), &[]).status, 400);
        assert_eq!(listener.events().len(), before);
        assert_gif(&listener.get(&format!("/pixel.gif?s=demo&e={encoded}"), &[]));
        assert_eq!(&*listener.events()[before].name, plain);
    }
    assert_eq!(listener.outcomes("pixel"), [("accepted", 3)]);
}

#[test]
fn an_identifier_that_is_no_utf_8_is_dropped_and_counted() {
    let listener = Listener::new();
    for path in [
        "/pixel.gif?s=demo&id.user_id=Jos%E9&id.crm_id=1",
        "/i?e=pv&aid=demo&uid=%FF&duid=1",
        "/matomo.php?idsite=demo&rec=1&uid=%FE&_id=1",
    ] {
        assert_gif(&listener.get(path, &[]));
    }
    let ids = listener.events().into_iter().map(|event| event.ids);
    let values: Vec<Vec<_>> =
        ids.map(|ids| ids.iter().map(|id| id.value().to_owned()).collect()).collect();
    assert_eq!(values, [["1"], ["1"], ["1"]]);
    let dropped = &listener.metrics.collect_identifiers_dropped;
    assert_eq!(dropped.with_label_values(&["value"]).get(), 3);
    // Who was named so before can still be asked about.
    assert!(crate::ingest::canonical::identifiers_of("user_id", "Jos\u{fffd}").is_ok());
}

#[test]
fn the_origin_of_the_page_or_its_referrer_is_one_of_the_sites() {
    let listener = Listener::with(|config| config.sites[2].require_origin = true);
    for (site, header, outcome) in [
        ("demo", ("Origin", "http://localhost:3000"), "accepted"),
        ("demo", ("Referer", "http://localhost:3000/page?x=1"), "accepted"),
        ("open", ("Origin", "https://open.example"), "accepted"),
        ("open", ("Accept", "*/*"), "foreign_origin"),
    ] {
        let count =
            || listener.outcomes("pixel").iter().find(|o| o.0 == outcome).map_or(0, |o| o.1);
        let before = count();
        listener.get(&format!("/pixel.gif?s={site}"), &[header]);
        assert_eq!(count(), before + 1, "{site} {header:?}");
    }
}

#[test]
fn a_refusal_records_nothing_but_the_choice_of_a_known_browser() {
    for (query, header, signal) in [
        ("", ("Sec-GPC", "1"), "gpc"),
        ("", ("DNT", "1"), "dnt"),
        ("&us_privacy=1YYN", ("Accept", "*/*"), "us_privacy"),
        ("&gdpr=1&gdpr_consent=CP", ("Accept", "*/*"), "gdpr"),
        ("&gdpr_consent=CP", ("Accept", "*/*"), "gdpr"),
        ("&gpp_sid=7", ("Accept", "*/*"), "gpp"),
        ("&gpp_sid=6&gpp=DBABTA~1YYN", ("Accept", "*/*"), "gpp"),
    ] {
        let listener = Listener::new();
        let path = format!("/pixel.gif?s=demo&id.user_id=7{query}");
        let unknown = listener.get(&path, &[header]);
        assert_gif(&unknown);
        assert!(listener.records().is_empty() && unknown.cookies().is_empty(), "{signal}");

        let pair = listener.cookie();
        let known = listener.get(&path, &[header, ("Cookie", &pair)]);
        assert_eq!(known.cookies(), ["throng=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"]);
        assert_eq!(listener.events().len(), 1, "{signal}");
        assert_eq!(listener.choices(), [(pair["throng=".len()..][..32].to_owned(), true)]);
        assert_eq!(listener.refusals(signal), 2);
        assert_eq!(listener.outcomes("pixel"), [("accepted", 1), ("refused_consent", 2)]);
    }
}

#[test]
fn opt_in_refuses_every_hit_without_a_consent() {
    let listener = Listener::new();
    assert_gif(&listener.get("/pixel.gif?s=strict&gdpr=1&gdpr_consent=CP", &[]));
    assert_gif(&listener.get("/pixel.gif?s=strict", &[]));
    assert_eq!((listener.refusals("gdpr"), listener.refusals("silence")), (1, 1));
    assert!(listener.records().is_empty());
}

#[test]
fn where_no_consent_is_needed_gpc_is_recorded_and_marked_and_dnt_ignored() {
    let listener = Listener::new();
    listener.get("/pixel.gif?s=open&id.user_id=1&gdpr=1", &[("Sec-GPC", "1")]);
    listener.get("/pixel.gif?s=open&id.user_id=2", &[("DNT", "1")]);
    listener.get("/pixel.gif?s=open&id.user_id=3", &[("Cookie", "throng-optout=1")]);
    assert_eq!(listener.outcomes("pixel"), [("accepted", 3)]);
    assert_eq!(listener.choices(), [("1".to_owned(), true), ("3".to_owned(), true)]);
}

#[test]
fn a_flood_from_one_address_is_cut_and_its_neighbours_are_not() {
    let listener = Listener::with(|config| {
        config.collect.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        config.collect.rate_per_address = 1;
        config.collect.burst_per_address = 3;
        config.sites[2].trusted = vec!["192.0.2.1".parse().unwrap()];
    });
    let hit = |site: &str, address: &str| {
        let path = format!("/pixel.gif?s={site}&id.user_id=1");
        assert_gif(&listener.get(&path, &[("X-Forwarded-For", address)]));
    };
    for _ in 0..5 {
        hit("demo", "203.0.113.9, 192.0.2.1");
    }
    assert_eq!(listener.outcomes("pixel"), [("accepted", 3), ("rate_limited", 2)]);
    hit("demo", "192.0.2.2");
    hit("open", "192.0.2.1");
    for _ in 0..5 {
        listener.get("/pixel.gif?s=demo&id.user_id=1", &[]);
    }
    listener.clock.0.store(NOW + 1_000, Ordering::SeqCst);
    hit("demo", "192.0.2.1");
    assert_eq!(listener.outcomes("pixel"), [("accepted", 11), ("rate_limited", 2)]);
}

#[test]
fn a_full_disk_gets_the_image_drops_the_hit_and_recovers() {
    for durability in [Durability::Disk, Durability::DiskBuffered] {
        let listener = Listener::with(|config| config.journal.durability = durability);
        let pair = listener.cookie();
        listener.disk.is_full.store(true, Ordering::SeqCst);
        assert_gif(&listener.get("/pixel.gif?s=demo", &[]));
        // A refusal that could not be kept leaves the cookie, so that the next hit can make it.
        let refused = listener.get("/pixel.gif?s=demo", &[("Cookie", &pair), ("Sec-GPC", "1")]);
        assert!(refused.cookies().is_empty());
        listener.disk.is_full.store(false, Ordering::SeqCst);
        assert_eq!(listener.get("/pixel.gif?s=demo", &[]).cookies().len(), 1);
        let outcomes = [("accepted", 2), ("refused_consent", 1), ("dropped", 1)];
        assert_eq!(listener.outcomes("pixel"), outcomes);
        assert_eq!(listener.records().len(), 2);
    }
}

#[test]
fn crawlers_are_recorded_and_flagged() {
    let listener = Listener::new();
    let agent = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    listener.get("/pixel.gif?s=demo", &[("User-Agent", agent)]);
    let event = &listener.events()[0];
    assert!(event.bot && event.device.kind.as_deref() == Some("bot"));
}

#[test]
fn the_country_comes_from_the_configured_header() {
    let listener =
        Listener::with(|config| config.collect.country_header = Some("CF-IPCountry".to_owned()));
    for country in ["fr", "XX", "Atlantis"] {
        listener.get("/pixel.gif?s=demo", &[("CF-IPCountry", country)]);
    }
    let countries: Vec<_> = listener.events().into_iter().map(|event| event.country).collect();
    assert_eq!(countries, [Some("FR".into()), None, None]);
}
