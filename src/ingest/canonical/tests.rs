use super::*;
use crate::consent::Sections;
use crate::consent::Signals;
use crate::ingest::canonical::sent::Unreadable;
use crate::model::Event;
use crate::model::Namespace;
use crate::model::NamespaceOrder;
use crate::model::time::DAY;

const NOW: Millis = 1_700_000_000_000;

fn identifier(namespace: &str, value: &str) -> Identifier {
    Identifier::new(Namespace::new(namespace).unwrap(), value).unwrap()
}

fn take(
    source: Source,
    cookie: Option<Identifier>,
    json: &str,
) -> (Result<Event, Rejection>, Dropped) {
    let order = NamespaceOrder::default();
    let arrival = Arrival {
        source,
        received: NOW,
        window: Window::Within(90 * DAY),
        order: &order,
        phone_country: None,
        cookie,
        user_agent: None,
        country: Some("DE"),
        locale: Some("de"),
        consent: None,
    };
    let mut dropped = Dropped::default();
    let mut mint = || {
        (source != Source::Api).then(|| identifier("cookie", "0123456789abcdef0123456789abcdef"))
    };
    let event = match Sent::parse(json.as_bytes()) {
        Ok(sent) => sent.into_event(&arrival, &mut Agents::default(), &mut mint, &mut dropped),
        Err(unreadable) => Err(unreadable.into_rejection()),
    };
    (event, dropped)
}

fn api(json: &str) -> Result<Event, Rejection> {
    take(Source::Api, None, json).0
}

fn code(json: &str) -> &'static str {
    api(json).unwrap_err().code.as_str()
}

fn names(event: &Event) -> Vec<&str> {
    event.ids.iter().map(|id| id.namespace.as_str()).collect()
}

#[test]
fn a_whole_event_is_taken_as_sent() {
    let event = api(
        r#"{"site":"shop","event":"Order Completed","time":"2023-11-14T22:13:19.5Z","message_id":"m-1",
        "ids":{"user_id":" 12680 ","cookie":"c1","email":"Jane.Doe+News@gmail.com","xandr":null},
        "props":{"value":14.850,"tags":["a",null],"deep":{"a.b":1e-7}},"attrs":{"country":"FR","age":null},
        "page":{"url":"https://a.example/?x=1","title":""},"locale":"fr-FR",
        "device":{"kind":"tablet"},"geo":{"country":"FR"},"later":"ignored"}"#,
    )
    .unwrap();
    assert_eq!((event.time, event.received, event.time_replaced), (NOW - 500, NOW, false));
    assert_eq!(names(&event), ["cookie", "user_id", "email_sha256", "email_gmail_sha256"]);
    assert_eq!(event.ids[1].value(), "12680");
    assert_eq!(
        event.ids[2].value(),
        "f41439c944a763c9812d700a779941cec169de13c9ccd13aaf9424ba5231620a"
    );
    let mut props = String::new();
    crate::model::value::write_json_object(&event.props, &mut props);
    assert_eq!(props, r#"{"value":14.850,"tags":["a",null],"deep":{"a.b":1e-7}}"#);
    assert_eq!(event.attrs.len(), 2);
    assert_eq!(event.page.url.as_deref(), Some("https://a.example/?x=1"));
    assert_eq!((event.page.title.as_deref(), event.page.referrer.as_deref()), (Some(""), None));
    assert_eq!(event.device.kind.as_deref(), Some("tablet"));
    assert_eq!((event.country.as_deref(), event.locale.as_deref()), (Some("FR"), Some("fr-FR")));
    assert_eq!(event.message_id.as_deref(), Some("m-1"));
}

#[test]
fn what_the_event_does_not_say_is_taken_from_around_it() {
    let event = api(r#"{"site":"s","event":"e","ids":{"user_id":"1"},"props":null}"#).unwrap();
    assert_eq!((event.country.as_deref(), event.locale.as_deref()), (Some("DE"), Some("de")));
    assert_eq!((event.time, event.time_replaced), (NOW, true));
    assert!(event.props.is_empty() && event.message_id.is_none());
}

#[test]
fn a_user_agent_in_the_event_is_judged() {
    let event = api(r#"{"site":"s","event":"e","ids":{"user_id":"1"},"device":{"os":"mine"},
        "user_agent":"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"}"#)
    .unwrap();
    assert!(event.bot);
    assert_eq!(event.device.kind.as_deref(), Some("bot"));
    assert_eq!(event.device.os.as_deref(), Some("mine"));
}

#[test]
fn each_rule_has_its_code() {
    let ids = r#""ids":{"user_id":"1"}"#;
    for (json, expected) in [
        ("[]".to_owned(), "site"),
        ("{}".to_owned(), "site"),
        (r#"{"site":1}"#.to_owned(), "site"),
        (r#"{"site":"s"}"#.to_owned(), "event_name"),
        (r#"{"site":"s","event":""}"#.to_owned(), "event_name"),
        (r#"{"site":"s","event":7}"#.to_owned(), "event_name"),
        (r#"{"site":"s","event":"a\u0000b"}"#.to_owned(), "event_name"),
        (format!(r#"{{"site":"s","event":"{}"}}"#, "é".repeat(65)), "event_name"),
        (format!(r#"{{"site":"s","event":"e",{ids},"time":"2023-11-14"}}"#), "time"),
        (format!(r#"{{"site":"s","event":"e",{ids},"time":1e3}}"#), "time"),
        (format!(r#"{{"site":"s","event":"e",{ids},"time":true}}"#), "time"),
        (format!(r#"{{"site":"s","event":"e",{ids},"sentAt":"x"}}"#), "time"),
        (r#"{"site":"s","event":"e"}"#.to_owned(), "ids"),
        (r#"{"site":"s","event":"e","ids":[]}"#.to_owned(), "ids"),
        (r#"{"site":"s","event":"e","ids":{"user_id":12680}}"#.to_owned(), "ids"),
        (format!(r#"{{"site":"s","event":"e",{ids},"message_id":1}}"#), "ids"),
        (format!(r#"{{"site":"s","event":"e",{ids},"message_id":""}}"#), "ids"),
        (format!(r#"{{"site":"s","event":"e",{ids},"props":[]}}"#), "props"),
        (format!(r#"{{"site":"s","event":"e",{ids},"attrs":"x"}}"#), "props"),
        (format!(r#"{{"site":"s","event":"e",{ids},"props":{{"a":[{{"b":1e400}}]}}}}"#), "props"),
        (format!(r#"{{"site":"s","event":"e",{ids},"attrs":{{"a":-1e-401}}}}"#), "props"),
        (format!(r#"{{"site":"s","event":"e",{ids},"page":"x"}}"#), "props"),
        (format!(r#"{{"site":"s","event":"e",{ids},"page":{{"url":1}}}}"#), "props"),
        (format!(r#"{{"site":"s","event":"e",{ids},"locale":1}}"#), "props"),
        (format!(r#"{{"site":"s","event":"e",{ids},"props":{{"a":"\ud800"}}}}"#), "props"),
        (
            format!(
                r#"{{"site":"s","event":"e",{ids},"props":{{"a":"{}"}}}}"#,
                "x".repeat(MAX_EVENT)
            ),
            "size",
        ),
    ] {
        assert_eq!(code(&json), expected, "{}", &json[..json.len().min(100)]);
    }
    let many: Vec<_> = (0..=MAX_FIELDS).map(|n| format!(r#""p{n}":{n}"#)).collect();
    let json = format!(r#"{{"site":"s","event":"e",{ids},"props":{{{}}}}}"#, many.join(","));
    assert_eq!(code(&json), "size");
    let many: Vec<_> = (0..=MAX_IDS).map(|n| format!(r#""n{n}":"{n}""#)).collect();
    assert_eq!(code(&format!(r#"{{"site":"s","event":"e","ids":{{{}}}}}"#, many.join(","))), "ids");
}

#[test]
fn a_bad_identifier_is_dropped_and_its_event_kept_by_another() {
    let (event, dropped) = take(
        Source::Api,
        None,
        r#"{"site":"s","event":"e","ids":{"user_id":"u","Bad Space":"1","crm_id":"","gaid":"00000000-0000-0000-0000-000000000000",
        "email":"nobody","phone":"2065550100","ttd":5,
        "email_sha256":"E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"}}"#,
    );
    assert_eq!(names(&event.unwrap()), ["user_id"]);
    let counts: Vec<_> = dropped.iter().map(|(reason, n)| (reason.as_str(), n)).collect();
    assert_eq!(counts, [("namespace", 1), ("value", 3), ("zero", 1), ("email", 1), ("phone", 1)]);
}

#[test]
fn the_cookie_joins_unless_one_is_named_and_is_made_only_where_there_is_nothing_else() {
    let cookie = || Some(identifier("cookie", "c"));
    let ids = |json: &str, cookie, source| {
        let (event, _) = take(source, cookie, &format!(r#"{{"site":"s","event":"e",{json}}}"#));
        event.map(|event| {
            event
                .ids
                .iter()
                .map(|id| format!("{}={}", id.namespace, id.value()))
                .collect::<Vec<_>>()
        })
    };
    let made = "cookie=0123456789abcdef0123456789abcdef";
    assert_eq!(
        ids(r#""ids":{"user_id":"u"}"#, cookie(), Source::Js).unwrap(),
        ["cookie=c", "user_id=u"]
    );
    assert_eq!(ids(r#""ids":{"cookie":"mine"}"#, cookie(), Source::Js).unwrap(), ["cookie=mine"]);
    assert_eq!(ids(r#""ids":{"user_id":"u"}"#, None, Source::Js).unwrap(), ["user_id=u"]);
    assert_eq!(ids(r#""ids":{"idfa":"0000"}"#, None, Source::Js).unwrap(), [made]);
    assert_eq!(ids(r#""ids":{}"#, None, Source::Js).unwrap(), [made]);
    assert!(ids(r#""ids":{}"#, None, Source::Api).is_err());
}

#[test]
fn neither_addresses_nor_numbers_are_kept_or_told() {
    let (event, _) = take(
        Source::Api,
        None,
        r#"{"site":"s","event":"e","ids":{"email":"jane@example.com","phone":"+1 206 555 0100"}}"#,
    );
    let event = event.unwrap();
    let mut bytes = Vec::new();
    event.encode(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains("jane") && !text.contains("5550100"), "{text}");
    assert_eq!(event.ids.len(), 5);
    let error = api(r#"{"site":"s","event":"e","ids":{"email":"jane.example.com"}}"#).unwrap_err();
    assert!(!error.message.contains("jane"), "{error}");
}

#[test]
fn consent_is_read_from_the_event() {
    let sent = |json: &str| Sent::parse(format!(r#"{{"consent":{json}}}"#).as_bytes()).unwrap();
    let none = Signals::default();
    let gpp = |sections: &str| Signals { sections: Sections::parse(sections), ..none.clone() };
    for (json, expected) in [
        ("null", none.clone()),
        ("{}", none.clone()),
        (
            r#"{"us_privacy":"1YNN","gpp":"DBA","gpp_sid":[]}"#,
            Signals { gpp: "DBA".into(), ..none.clone() },
        ),
        (r#"{"us_privacy":"1YYN"}"#, Signals { sale_opt_out: true, ..none.clone() }),
        (r#"{"withdrawn":true}"#, Signals { withdrawn: true, ..none.clone() }),
        (r#"{"withdrawn":false}"#, none.clone()),
        (r#"{"tcf":"CP"}"#, Signals { tcf: "CP".into(), ..none.clone() }),
        (
            r#"{"tcf":"CP","gdpr":0}"#,
            Signals { gdpr: Some(false), tcf: "CP".into(), ..none.clone() },
        ),
        (r#"{"gdpr":1}"#, Signals { gdpr: Some(true), ..none.clone() }),
        (r#"{"gdpr":false}"#, Signals { gdpr: Some(false), ..none.clone() }),
        (r#"{"gdpr":""}"#, none.clone()),
        (r#"{"gdpr":"1"}"#, Signals { gdpr: Some(true), ..none.clone() }),
        (r#"{"gpp_sid":[7]}"#, gpp("7")),
        (r#"{"gpp_sid":[2,"6",-1]}"#, gpp("2,6")),
        (r#"{"gpp_sid":"2,6"}"#, gpp("2,6")),
        (r#"{"gpp_sid":7}"#, gpp("7")),
        (r#"{"gpp_sid":[7,null]}"#, gpp("7,x")),
        (r#"{"gpp_sid":[7.5]}"#, gpp("x")),
    ] {
        assert_eq!(sent(json).consent(), Ok(expected), "{json}");
    }
    for wrong in
        ["1", r#"{"us_privacy":1}"#, r#"{"gpp_sid":{}}"#, r#"{"tcf":[]}"#, r#"{"withdrawn":1}"#]
    {
        assert_eq!(sent(wrong).consent().unwrap_err().code, Code::Consent, "{wrong}");
    }
}

#[test]
fn text_that_no_reader_can_take_is_set_aside_and_broken_json_is_not() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
    for alone in [r#"{"a":"\ud83d"}"#, r#"{"a":"\ude00"}"#, deep.as_str()] {
        assert!(matches!(Sent::parse(alone.as_bytes()), Err(Unreadable::Rejected(_))), "{alone}");
    }
    assert!(matches!(Sent::parse(b"{\"a\":\"\xff\"}"), Err(Unreadable::Rejected(_))));
    for broken in ["{\"a\":}", "{\"a\":1 \"b\":2}", "{'a':1}", "{\"a\":01}"] {
        assert!(matches!(Sent::parse(broken.as_bytes()), Err(Unreadable::NotJson(_))), "{broken}");
    }
}

#[test]
fn lines_of_an_import_are_trusted_and_numbered() {
    let order = NamespaceOrder::default();
    let import =
        Import { name: "hash", received: NOW, order: &order, phone_countries: &[("gb", "GB")] };
    let text = concat!(
        "\u{feff}{\"site\":\"any site\",\"event\":\"e\",\"time\":-62167219200000,\"ids\":{\"loyalty\":\"1\"},\"consent\":\"?\"}\n",
        "\r\n",
        "{\"site\":\"gb\",\"event\":\"e\",\"message_id\":\"m\",\"time\":\"2999-01-01T00:00:00Z\",\"ids\":{\"phone\":\"020 7946 0000\"}}\r\n",
        "{\"site\":\"s\",\"event\":\"e\"}\n",
        "{broken\n",
    );
    let mut dropped = Dropped::default();
    let taken = import_lines(&import, 1, text.as_bytes(), &mut Agents::default(), &mut dropped);
    assert_eq!((taken.lines, taken.events.len(), taken.rejected.len()), (5, 2, 2));
    let first = &taken.events[0];
    assert_eq!((first.line, first.own_message_id), (1, false));
    assert_eq!(first.event.message_id.as_deref(), Some("hash:1"));
    assert_eq!((first.event.time, first.event.time_replaced), (-62_167_219_200_000, false));
    assert_eq!(first.event.source, Source::Import);
    let second = &taken.events[1];
    assert_eq!((second.line, second.own_message_id, second.event.ids.len()), (3, true, 3));
    assert!(second.event.time > NOW);
    let lines: Vec<_> = taken.rejected.iter().map(|r| (r.line, &*r.code)).collect();
    assert_eq!(lines, [(4, "ids"), (5, "props")]);

    let later = import_lines(&import, 6, b"\n\n{}", &mut Agents::default(), &mut dropped);
    assert_eq!((later.lines, later.rejected[0].line), (3, 8));
    assert_eq!(import_lines(&import, 9, b"", &mut Agents::default(), &mut dropped).lines, 0);
}
