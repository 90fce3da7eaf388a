//! Random worlds and rules that collide a lot: few names, few values, times on every edge.

use proptest::prelude::*;
use proptest::sample::select;

use crate::model::Decimal;
use crate::model::Device;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::Namespace;
use crate::model::Page;
use crate::model::Source;
use crate::model::Value;
use crate::model::time::DAY;
use crate::model::time::HOUR;
use crate::model::time::MINUTE;
use crate::model::value::parse_json;
use crate::rules::Rule;
use crate::rules::Span;
use crate::rules::ast::Cmp;
use crate::rules::ast::Duration;
use crate::rules::ast::DurationUnit;
use crate::rules::ast::Filter;
use crate::rules::ast::FilterKind;
use crate::rules::ast::Literal;
use crate::rules::ast::LiteralKind;
use crate::rules::ast::MeasureKind;
use crate::rules::ast::Name;
use crate::rules::ast::Property;
use crate::rules::ast::RuleKind;
use crate::rules::ast::Selector;
use crate::rules::ast::Test;
use crate::rules::ast::TestKind;
use crate::rules::ast::Window;
use crate::rules::ast::WindowKind;

const SPAN: Span = Span { start: 0, end: 0 };
const EVENTS: [&str; 6] = ["view", "view", "view", "buy", "buy", "Order Completed"];
const ATTRIBUTES: [&str; 2] = ["country", "plan"];
const SPANS: [i64; 9] = [0, MINUTE, 2 * MINUTE, HOUR, DAY, 2 * DAY, 3 * DAY, 7 * DAY, 10 * DAY];

/// One instant at which one store is asked.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) true_for: i64,
    pub(super) now: i64,
    pub(super) retention: i64,
    pub(super) events: Vec<Event>,
    pub(super) rules: Vec<Rule>,
    pub(super) segments: [Rule; 2],
}

pub(super) fn scenario() -> BoxedStrategy<Scenario> {
    let clock = (
        select(vec![0, -3 * DAY + 12_345, 15_000 * DAY + 43_261_001, 15_000 * DAY]),
        select(vec![10 * DAY, 3 * DAY, 36 * HOUR]),
        prop_oneof![
            3 => Just(0),
            2 => select(SPANS.to_vec()).prop_map(|span| -span),
            1 => select(SPANS.to_vec()),
        ],
        jitter(),
    );
    clock
        .prop_flat_map(|(true_for, retention, shift, jitter)| {
            let now = true_for + shift + if shift == 0 { 0 } else { jitter };
            (
                proptest::collection::vec(event(true_for, now, retention), 0..32),
                proptest::collection::vec(proptest::option::weighted(0.4, gap()), 32),
                proptest::collection::vec(rule(true_for, retention, 2), 1..5),
                rule(true_for, retention, 0),
                rule(true_for, retention, 1),
            )
                .prop_map(move |(mut events, gaps, rules, first, second)| {
                    for place in 1..events.len() {
                        // Some follow another at just the distance that a `within` or a tie looks at.
                        if let (Some(gap), time) = (gaps[place], events[place - 1].time) {
                            events[place].time = time + gap;
                            events[place].ids = events[place - 1].ids.clone();
                        }
                    }
                    (events, rules, first, second)
                })
                .prop_map(move |(events, rules, first, second)| Scenario {
                    true_for,
                    now,
                    retention,
                    events,
                    rules,
                    segments: [first, second],
                })
        })
        .boxed()
}

/// One store that is asked again and again while events come.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) retention: i64,
    /// The instants, in order but where a clock is set back.
    pub(crate) instants: Vec<i64>,
    /// Events in the order of receipt, each with the place of the instant that it is there for first.
    pub(crate) events: Vec<(usize, Event)>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) segments: [Rule; 2],
}

pub(crate) fn history() -> BoxedStrategy<History> {
    select(vec![0, -3 * DAY + 12_345, 15_000 * DAY + 43_261_001, 15_000 * DAY])
        .prop_flat_map(history_at)
        .boxed()
}

/// One whose first instant is this.
pub(crate) fn history_at(begin: i64) -> BoxedStrategy<History> {
    let steps = prop_oneof![
        4 => select(vec![0, 1, 999, 59_999, MINUTE, MINUTE + 1, 2 * MINUTE]),
        3 => (select(SPANS.to_vec()), jitter()).prop_map(|(span, jitter)| span + jitter),
        1 => select(vec![-1, -MINUTE, 40 * DAY]),
    ];
    let clock =
        (select(vec![10 * DAY, 3 * DAY, 36 * HOUR]), proptest::collection::vec(steps, 1..7));
    clock
        .prop_flat_map(move |(retention, steps)| {
            let mut instants = vec![begin];
            instants.extend(steps.iter().scan(begin, |now, step| {
                *now += step;
                Some(*now)
            }));
            let count = instants.len();
            let event = (select(instants.clone()), select(instants.clone()))
                .prop_flat_map(move |(one, other)| event(one, other, retention));
            (
                proptest::collection::vec((0..count, event), 0..24),
                proptest::collection::vec(proptest::option::weighted(0.3, gap()), 24),
                proptest::collection::vec(rule(begin, retention, 2), 1..5),
                rule(begin, retention, 0),
                rule(begin, retention, 1),
            )
                .prop_map(move |(mut events, gaps, rules, first, second)| {
                    for place in 1..events.len() {
                        if let (Some(gap), time) = (gaps[place], events[place - 1].1.time) {
                            events[place].1.time = time + gap;
                            events[place].1.ids = events[place - 1].1.ids.clone();
                        }
                    }
                    events.sort_by_key(|(place, _)| *place);
                    let instants = instants.clone();
                    History { retention, instants, events, rules, segments: [first, second] }
                })
        })
        .boxed()
}

fn gap() -> BoxedStrategy<i64> {
    let exact = vec![0, 0, 1, 1000, 2000, MINUTE, 2 * MINUTE, HOUR, DAY];
    (select(exact), select(vec![0, 0, 1])).prop_map(|(exact, more)| exact + more).boxed()
}

fn jitter() -> BoxedStrategy<i64> {
    select(vec![0, 0, 0, 1, -1, 59_999, -59_999, MINUTE, -MINUTE, 30_500]).boxed()
}

/// One event and one filter, for comparing tests of values alone.
pub(super) fn filtered() -> BoxedStrategy<(Event, Vec<Filter>, Vec<Property>)> {
    let filters = proptest::collection::vec(filter(), 1..8);
    let properties = proptest::collection::vec(property(), 1..8);
    (event(0, 0, DAY), filters, properties).boxed()
}

/// A time at, or just beside, an edge of a window, a minute, a day or the retention.
fn time(true_for: i64, now: i64, retention: i64) -> BoxedStrategy<i64> {
    let mut spans = SPANS.to_vec();
    spans.push(retention);
    (select(vec![true_for, now, now]), select(spans.clone()), select(spans), 0..4u8, jitter())
        .prop_map(|(anchor, span, more, snap, jitter)| {
            let time = anchor - span - if snap == 3 { more } else { 0 };
            let unit = match snap {
                0 => 1,
                1 => DAY,
                _ => MINUTE,
            };
            time.div_euclid(unit) * unit + jitter
        })
        .boxed()
}

fn identifier() -> BoxedStrategy<Identifier> {
    select(vec![
        ("cookie", "1"),
        ("cookie", "1"),
        ("gaid", "1"),
        ("user_id", "1"),
        ("user_id", "1"),
        ("email_sha256", "1"),
    ])
    .prop_map(|(namespace, value)| {
        Identifier::new(Namespace::new(namespace).unwrap(), value).unwrap()
    })
    .boxed()
}

fn value() -> BoxedStrategy<Value> {
    let scalar = select(vec![
        "null",
        "true",
        "false",
        "0",
        "1",
        "2",
        "-1",
        "1.5",
        "1.50",
        "12.50",
        "1e2",
        "-0",
        "0.00005",
        "0.00015",
        "0.00025",
        "-0.00005",
        "9007199254740993",
        "9007199254740992",
        "900000000000000",
        "900000000000000.0001",
        "-900000000000001",
        "1e20",
        "1e-9",
        "3e0",
        r#""x""#,
        r#""xy""#,
        r#""X""#,
        r#""1""#,
        r#""2.0""#,
        r#""true""#,
        r#""1.50""#,
        r#""""#,
        r#""+1""#,
        r#""1e2""#,
        r#""é""#,
        r#""-0""#,
        r#""1.""#,
        r#"" 1""#,
        r#""007""#,
    ])
    .prop_map(|text| parse_json(text.as_bytes()).unwrap());
    scalar
        .prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
                fields(select(vec!["a", "b", "p", "a.b", "kind"]), inner).prop_map(Value::Object),
            ]
        })
        .boxed()
}

/// Properties of an event: most often `a` and `b` with something that measures can take.
fn properties() -> BoxedStrategy<Vec<(Box<str>, Value)>> {
    let numbers = ["1", "2", "1.5", "-1", "0", "0.00015", r#""1""#, r#""2.0""#, "900000000000000"];
    let number = || {
        prop_oneof![
            4 => select(numbers.to_vec()).prop_map(|text| parse_json(text.as_bytes()).unwrap()),
            1 => value(),
        ]
    };
    let names = vec!["items", "a.b", "page", "page.kind", "source", "locale", "utm"];
    let maybe = |strategy| proptest::option::weighted(0.7, strategy);
    let tricky = select(vec![
        r#"{"a.b":null,"a":{"b":1}}"#,
        r#"{"a.b":"x","a":{"b":1}}"#,
        r#"{"a":{"b":null}}"#,
        r#"{"a":[{"b":1},{"b":null},2,[{"b":"x"}]]}"#,
        r#"{"a":[{"b":null}]}"#,
        r#"{"a":[]}"#,
        r#"{"a":[null]}"#,
        r#"{"a":{"a":1}}"#,
        r#"{"a":[[1,"x"],{"b":2}]}"#,
        r#"{"items":[{"p":[]},{"p":null}]}"#,
        r#"{"items":[{"p":1},{"p":"x"}]}"#,
        r#"{"items":[{"a":{"b":1}},{"a.b":2}]}"#,
        r#"{"items":{"p":{"p":1}}}"#,
        r#"{"page":{"host":"x","kind":"x"},"site":"x","source":null,"utm":{"kind":1}}"#,
        r#"{"page.kind":null,"page":{"kind":"x"},"page.host":"x"}"#,
    ])
    .prop_map(|text| match parse_json(text.as_bytes()) {
        Ok(Value::Object(fields)) => fields,
        other => panic!("an object, not {other:?}"),
    });
    let plain = (maybe(number()), maybe(number()), fields(select(names), value())).prop_map(
        |(a, b, mut fields)| {
            fields.extend(a.map(|value| ("a".into(), value)));
            fields.extend(b.map(|value| ("b".into(), value)));
            fields
        },
    );
    prop_oneof![2 => plain, 1 => tricky].boxed()
}

fn fields(
    names: impl Strategy<Value = &'static str> + 'static,
    values: impl Strategy<Value = Value> + 'static,
) -> BoxedStrategy<Vec<(Box<str>, Value)>> {
    proptest::collection::vec((names, values), 0..4)
        .prop_map(|fields| {
            let mut kept: Vec<(Box<str>, Value)> = Vec::new();
            for (name, value) in fields {
                if kept.iter().all(|(other, _)| **other != *name) {
                    kept.push((name.into(), value));
                }
            }
            kept
        })
        .boxed()
}

fn url() -> BoxedStrategy<Option<Box<str>>> {
    select(vec![
        None,
        Some("https://Shop.example/"),
        Some("https://shop.example:8443"),
        Some("http://me:pw@shop.example:80/a%20b/C?utm_source=x&utm_source=y#utm_medium=no"),
        Some("https://shop.example?utm_source=&utm_source=x&utm_medium=a+b%26%C3%A9"),
        Some("https://shop.example/a?b=?utm_source=x&utm_campaign=1"),
        Some("/a?utm_source=x"),
        Some("shop.example/a"),
        Some("1http://shop.example/a"),
        Some("app+x://[::1]:80/p?%75tm_source=x"),
        Some("mailto:me@shop.example"),
        Some("https:///a"),
    ])
    .prop_map(|url| url.map(Into::into))
    .boxed()
}

fn maybe(texts: &'static [&'static str]) -> BoxedStrategy<Option<Box<str>>> {
    proptest::option::of(select(texts)).prop_map(|text| text.map(Into::into)).boxed()
}

fn event(true_for: i64, now: i64, retention: i64) -> BoxedStrategy<Event> {
    let what = (
        select(EVENTS.to_vec()),
        time(true_for, now, retention),
        proptest::collection::vec(identifier(), 1..3),
        properties(),
        fields(select(ATTRIBUTES.to_vec()), value()),
    );
    let around = (
        select(vec![Source::Pixel, Source::Js, Source::Api, Source::Import]),
        url(),
        url(),
        maybe(&["mobile", "desktop"]),
        maybe(&["FR", "DE"]),
        maybe(&["fr-FR"]),
        select(vec!["shop", "x"]),
    );
    (what, around)
        .prop_map(|((name, time, mut ids, props, attrs), around)| {
            crate::model::NamespaceOrder::default().sort(&mut ids);
            let (source, url, referrer, kind, country, locale, site) = around;
            Event {
                site: site.into(),
                name: name.into(),
                time,
                received: 0,
                time_replaced: false,
                source,
                message_id: None,
                ids,
                props,
                attrs,
                page: Page { url, referrer, title: None },
                device: Device { kind, ..Device::default() },
                bot: false,
                country,
                locale,
                consent: None,
            }
        })
        .boxed()
}

fn name(text: &str) -> Name {
    Name { text: text.into(), span: SPAN }
}

fn property() -> BoxedStrategy<Property> {
    select(vec![
        vec!["a"],
        vec!["a"],
        vec!["b"],
        vec!["b"],
        vec!["a", "b"],
        vec!["a.b"],
        vec!["items", "p"],
        vec!["items", "a", "b"],
        vec!["items", "a.b"],
        vec!["page", "host"],
        vec!["page.host"],
        vec!["page", "path"],
        vec!["page", "kind"],
        vec!["page", "referrer_host"],
        vec!["page", "url"],
        vec!["page", "title"],
        vec!["utm", "source"],
        vec!["utm", "medium"],
        vec!["utm", "campaign"],
        vec!["utm", "kind"],
        vec!["source"],
        vec!["site"],
        vec!["locale"],
        vec!["geo", "country"],
        vec!["device", "kind"],
    ])
    .prop_map(|path| Property { path: path.into_iter().map(Into::into).collect(), span: SPAN })
    .boxed()
}

fn number(texts: &'static [&'static str]) -> BoxedStrategy<Literal> {
    select(texts)
        .prop_map(|text| Literal {
            kind: LiteralKind::Number(Decimal::from_text(text).unwrap()),
            span: SPAN,
        })
        .boxed()
}

fn text() -> BoxedStrategy<Box<str>> {
    select(vec![
        "x",
        "X",
        "xy",
        "1",
        "1.5",
        "true",
        "",
        "2",
        "é",
        "0",
        "0.00005",
        "shop.example",
        "/a",
        "/",
        "mobile",
        "FR",
        "pixel",
        "100",
        "a b&é",
        "[::1]",
    ])
    .prop_map(Into::into)
    .boxed()
}

fn literal() -> BoxedStrategy<Literal> {
    prop_oneof![
        number(&[
            "0",
            "1",
            "1.0",
            "2",
            "-1",
            "1.5",
            "12.5",
            "100",
            "7",
            "9007199254740993",
            "0.00005",
            "3",
        ]),
        text().prop_map(|text| Literal { kind: LiteralKind::String(text), span: SPAN }),
        any::<bool>().prop_map(|value| Literal { kind: LiteralKind::Bool(value), span: SPAN }),
    ]
    .boxed()
}

fn cmp() -> BoxedStrategy<Cmp> {
    select(vec![Cmp::Eq, Cmp::Ne, Cmp::Lt, Cmp::Le, Cmp::Gt, Cmp::Ge]).boxed()
}

fn test() -> BoxedStrategy<Test> {
    let list = || proptest::collection::vec(literal(), 1..4);
    let patterns = vec!["^x", "x|1", r"\d\.5$", "", "^$", r"\p{L}"];
    prop_oneof![
        4 => (cmp(), literal()).prop_map(|(cmp, literal)| TestKind::Compare(cmp, literal)),
        1 => list().prop_map(TestKind::In),
        1 => list().prop_map(TestKind::NotIn),
        1 => text().prop_map(TestKind::Contains),
        1 => text().prop_map(TestKind::StartsWith),
        1 => text().prop_map(TestKind::EndsWith),
        1 => select(patterns).prop_map(|pattern| TestKind::Matches(pattern.into())),
        1 => Just(TestKind::Exists),
    ]
    .prop_map(|kind| Test { kind, span: SPAN })
    .boxed()
}

fn filter() -> BoxedStrategy<Filter> {
    let leaf = (property(), test())
        .prop_map(|(property, test)| Filter { kind: FilterKind::Test(property, test), span: SPAN });
    leaf.prop_recursive(2, 6, 3, |inner| {
        let parts = || proptest::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            parts().prop_map(FilterKind::And),
            parts().prop_map(FilterKind::Or),
            inner.clone().prop_map(|filter| FilterKind::Not(Box::new(filter))),
        ]
        .prop_map(|kind| Filter { kind, span: SPAN })
    })
    .boxed()
}

fn selector() -> BoxedStrategy<Selector> {
    (select(EVENTS.to_vec()), proptest::option::weighted(0.3, filter()))
        .prop_map(|(event, filter)| Selector { event: name(event), filter, span: SPAN })
        .boxed()
}

fn duration(longest: i64) -> BoxedStrategy<Duration> {
    select(SPANS[1..].to_vec())
        .prop_map(move |length| {
            let count = u64::try_from(length.min(longest) / MINUTE).unwrap();
            match count % 1440 {
                0 => Duration { count: count / 1440, unit: DurationUnit::Day, span: SPAN },
                _ => Duration { count, unit: DurationUnit::Minute, span: SPAN },
            }
        })
        .boxed()
}

fn window(true_for: i64, retention: i64) -> BoxedStrategy<Window> {
    let date = move || (-13i64..4).prop_map(move |days| true_for.div_euclid(DAY) + days);
    let between = (duration(retention), duration(retention)).prop_map(|(a, b)| {
        match a.millis().cmp(&b.millis()) {
            std::cmp::Ordering::Greater => WindowKind::Between(a, b),
            std::cmp::Ordering::Less => WindowKind::Between(b, a),
            std::cmp::Ordering::Equal => WindowKind::In(a),
        }
    });
    prop_oneof![
        3 => duration(retention).prop_map(WindowKind::In),
        2 => between,
        1 => date().prop_map(WindowKind::Since),
        1 => (date(), date()).prop_map(|(a, b)| WindowKind::FromTo(a.min(b), a.max(b))),
    ]
    .prop_map(|kind| Window { kind, span: SPAN })
    .boxed()
}

/// A rule that may name the first `segments` of the scenario's segments.
fn rule(true_for: i64, retention: i64, segments: usize) -> BoxedStrategy<Rule> {
    let window = move || window(true_for, retention);
    let maybe_window = move || proptest::option::weighted(0.7, window());
    let within = prop_oneof![
        duration(30 * DAY),
        (1..3u64).prop_map(|count| Duration { count, unit: DurationUnit::Second, span: SPAN }),
    ];
    let limits: &[&str] = &["0", "1", "2", "3", "0.5", "-1", "1.5", "300"];
    let measured: &[&str] = &[
        "0",
        "1",
        "2",
        "-1",
        "1.5",
        "0.75",
        "0.333333333333333333",
        "0.0001",
        "0.0002",
        "900000000000000",
        "9007199254740992",
        "100",
        "0.00005",
        "999999999999999999",
    ];
    let measured_property = prop_oneof![
        2 => select(vec!["a", "b"]).prop_map(|name| Property { path: vec![name.into()], span: SPAN }),
        1 => property(),
    ];
    let aggregate = (0..4u8, measured_property).prop_map(|(kind, property)| match kind {
        0 => MeasureKind::Sum(property),
        1 => MeasureKind::Min(property),
        2 => MeasureKind::Max(property),
        _ => MeasureKind::Avg(property),
    });
    let kinds = vec![MeasureKind::Count, MeasureKind::Count, MeasureKind::Days];
    let measure = prop_oneof![(select(kinds), number(limits)), (aggregate, number(measured)),];
    let attribute = (select(ATTRIBUTES.to_vec()), test())
        .prop_map(|(attribute, test)| RuleKind::Attribute { name: name(attribute), test });
    let namespaces = vec!["cookie", "gaid", "user_id", "email_sha256", "ttd"];
    let mut others = vec![RuleKind::Everyone];
    others.extend((0..segments).map(|i| RuleKind::Segment(name(&format!("s-{i}")))));
    let leaf = prop_oneof![
        3 => (selector(), maybe_window())
            .prop_map(|(selector, window)| RuleKind::Did { selector, window }),
        2 => (selector(), selector(), within, maybe_window()).prop_map(
            |(first, then, within, window)| RuleKind::Sequence { first, then, within, window }
        ),
        5 => (measure, selector(), maybe_window(), cmp()).prop_map(
            |((measure, number), selector, window, cmp)| RuleKind::Measure {
                measure, selector, window, cmp, number
            }
        ),
        2 => (selector(), window())
            .prop_map(|(selector, window)| RuleKind::First { selector, window }),
        2 => (selector(), selector())
            .prop_map(|(selector, after)| RuleKind::LastAfter { selector, after }),
        2 => attribute,
        1 => select(namespaces).prop_map(|namespace| RuleKind::Has(name(namespace))),
        1 => select(others),
    ]
    .prop_map(|kind| Rule { kind, span: SPAN });
    leaf.prop_recursive(3, 10, 3, |inner| {
        let parts = || proptest::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            parts().prop_map(RuleKind::And),
            parts().prop_map(RuleKind::Or),
            inner.clone().prop_map(|rule| RuleKind::Not(Box::new(rule))),
        ]
        .prop_map(|kind| Rule { kind, span: SPAN })
    })
    .boxed()
}
