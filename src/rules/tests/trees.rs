//! Random trees, random text, and what holds of all of them.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::model::Decimal;
use crate::rules::ast::*;
use crate::rules::comment::format_rule;
use crate::rules::has_errors;
use crate::rules::lexer::lex;
use crate::rules::parse;
use crate::rules::print;
use crate::rules::print_inline;
use crate::rules::token::KEYWORDS;

fn name() -> impl Strategy<Value = Name> {
    name_text().prop_map(|text| Name { text: text.into(), span: Span::default() })
}

fn name_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[A-Za-z_][A-Za-z0-9_]{0,8}",
        1 => select(KEYWORDS.to_vec()).prop_map(str::to_owned),
        1 => "[^`\r\n]{1,12}",
    ]
}

fn text() -> impl Strategy<Value = Box<str>> {
    prop_oneof!["[a-z ]{0,8}", any::<String>()].prop_map(Into::into)
}

fn number() -> impl Strategy<Value = Literal> {
    "-?(0|[1-9][0-9]{0,17})([.][0-9]{1,18})?".prop_map(|text| Literal {
        kind: LiteralKind::Number(Decimal::from_text(&text).unwrap()),
        span: Span::default(),
    })
}

fn literal() -> impl Strategy<Value = Literal> {
    let other = prop_oneof![
        text().prop_map(LiteralKind::String),
        any::<bool>().prop_map(LiteralKind::Bool)
    ];
    prop_oneof![other.prop_map(|kind| Literal { kind, span: Span::default() }), number()]
}

fn cmp() -> impl Strategy<Value = Cmp> {
    select(vec![Cmp::Eq, Cmp::Ne, Cmp::Lt, Cmp::Le, Cmp::Gt, Cmp::Ge])
}

fn test() -> impl Strategy<Value = Test> {
    prop_oneof![
        4 => (cmp(), literal()).prop_map(|(cmp, literal)| TestKind::Compare(cmp, literal)),
        1 => vec(literal(), 1..12).prop_map(TestKind::In),
        1 => vec(literal(), 1..4).prop_map(TestKind::NotIn),
        1 => text().prop_map(TestKind::Contains),
        1 => text().prop_map(TestKind::StartsWith),
        1 => text().prop_map(TestKind::EndsWith),
        1 => text().prop_map(TestKind::Matches),
        1 => Just(TestKind::Exists),
    ]
    .prop_map(|kind| Test { kind, span: Span::default() })
}

fn property() -> impl Strategy<Value = Property> {
    vec(name_text().prop_map(Into::into), 1..4)
        .prop_map(|path| Property { path, span: Span::default() })
}

fn filter() -> impl Strategy<Value = Filter> {
    let leaf = (property(), test()).prop_map(|(property, test)| FilterKind::Test(property, test));
    let at = |kind| Filter { kind, span: Span::default() };
    leaf.prop_map(at).prop_recursive(4, 12, 3, move |inner| {
        prop_oneof![
            vec(inner.clone(), 2..4).prop_map(move |parts| at(FilterKind::And(
                parts.into_iter().map(|part| ungroup(part, true)).collect()
            ))),
            vec(inner.clone(), 2..4).prop_map(move |parts| at(FilterKind::Or(
                parts.into_iter().map(|part| ungroup(part, false)).collect()
            ))),
            inner.prop_map(move |part| at(FilterKind::Not(Box::new(part)))),
        ]
    })
}

/// No group is a part of one of its own kind.
fn ungroup(part: Filter, in_and: bool) -> Filter {
    match &part.kind {
        FilterKind::And(_) if in_and => {
            Filter { kind: FilterKind::Not(part.into()), span: Span::default() }
        }
        FilterKind::Or(_) if !in_and => {
            Filter { kind: FilterKind::Not(part.into()), span: Span::default() }
        }
        _ => part,
    }
}

fn selector() -> impl Strategy<Value = Selector> {
    (name(), option::weighted(0.4, filter())).prop_map(|(event, filter)| Selector {
        event,
        filter,
        span: Span::default(),
    })
}

fn duration(seconds: bool) -> impl Strategy<Value = Duration> {
    let unit = select(vec![
        if seconds { DurationUnit::Second } else { DurationUnit::Minute },
        DurationUnit::Minute,
        DurationUnit::Hour,
        DurationUnit::Day,
        DurationUnit::Week,
    ]);
    (1u64..5_000, unit).prop_map(|(count, unit)| Duration { count, unit, span: Span::default() })
}

fn window() -> impl Strategy<Value = Window> {
    let day = -719_528i64..2_932_897;
    prop_oneof![
        duration(false).prop_map(WindowKind::In),
        (duration(false), duration(false)).prop_map(|(a, b)| {
            match a.millis().cmp(&b.millis()) {
                std::cmp::Ordering::Less => WindowKind::Between(b, a),
                std::cmp::Ordering::Greater => WindowKind::Between(a, b),
                std::cmp::Ordering::Equal => WindowKind::In(a),
            }
        }),
        day.clone().prop_map(WindowKind::Since),
        (day.clone(), day).prop_map(|(a, b)| WindowKind::FromTo(a.min(b), a.max(b))),
    ]
    .prop_map(|kind| Window { kind, span: Span::default() })
}

fn measure() -> impl Strategy<Value = MeasureKind> {
    prop_oneof![
        Just(MeasureKind::Count),
        Just(MeasureKind::Days),
        property().prop_map(MeasureKind::Sum),
        property().prop_map(MeasureKind::Min),
        property().prop_map(MeasureKind::Max),
        property().prop_map(MeasureKind::Avg),
    ]
}

fn clause() -> impl Strategy<Value = RuleKind> {
    let slug = "[a-z0-9][a-z0-9-]{0,12}"
        .prop_map(|text| RuleKind::Segment(Name { text: text.into(), span: Span::default() }));
    prop_oneof![
        Just(RuleKind::Everyone),
        slug,
        name().prop_map(RuleKind::Has),
        (name(), test()).prop_map(|(name, test)| RuleKind::Attribute { name, test }),
        (selector(), option::of(window()))
            .prop_map(|(selector, window)| RuleKind::Did { selector, window }),
        (selector(), selector(), duration(true), option::of(window())).prop_map(
            |(first, then, within, window)| RuleKind::Sequence { first, then, within, window }
        ),
        (measure(), selector(), option::of(window()), cmp(), number()).prop_map(
            |(measure, selector, window, cmp, number)| RuleKind::Measure {
                measure,
                selector,
                window,
                cmp,
                number
            }
        ),
        (selector(), window()).prop_map(|(selector, window)| RuleKind::First { selector, window }),
        (selector(), selector())
            .prop_map(|(selector, after)| RuleKind::LastAfter { selector, after }),
    ]
}

/// Every tree the parser can make.
pub(super) fn rule() -> impl Strategy<Value = Rule> {
    let at = |kind| Rule { kind, span: Span::default() };
    let ungrouped = move |parts: Vec<Rule>, in_and: bool| -> Vec<Rule> {
        let same = |kind: &RuleKind| match kind {
            RuleKind::And(_) => in_and,
            RuleKind::Or(_) => !in_and,
            _ => false,
        };
        let part = |part: Rule| {
            if same(&part.kind) { at(RuleKind::Not(Box::new(part))) } else { part }
        };
        parts.into_iter().map(part).collect()
    };
    clause().prop_map(at).prop_recursive(4, 16, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 2..5)
                .prop_map(move |parts| at(RuleKind::And(ungrouped(parts, true)))),
            vec(inner.clone(), 2..5)
                .prop_map(move |parts| at(RuleKind::Or(ungrouped(parts, false)))),
            inner.prop_map(move |part| at(RuleKind::Not(Box::new(part)))),
        ]
    })
}

/// Pieces that rules are made of, and some that they are not.
fn soup() -> impl Strategy<Value = String> {
    let pieces = [
        "did",
        "count",
        "purchase",
        "`Order Completed`",
        "in 30d",
        "[",
        "]",
        "(",
        ")",
        "=",
        "3",
        "\"a\"",
        "and",
        "or",
        "not",
        "then",
        "within 2h",
        "segment",
        "top-10",
        "7d-buyers",
        "profile",
        ".",
        "country",
        ",",
        "in",
        "between",
        "9d",
        "ago",
        "since",
        "2024-01-31",
        "from",
        "to",
        "first",
        "last",
        "after",
        "exists",
        "matches",
        "starts",
        "with",
        "-",
        "-3",
        "1e5",
        "30 m",
        "'a'",
        "`",
        "\"",
        "\\",
        "# note\n",
        "\n",
        "\t",
        "&&",
        "=>",
        "é",
        "\u{0}",
        "AND",
        "everyone",
        "has",
        "sum",
        "12.50",
        "36501d",
        "9999999999999999999",
        "\"\\u{d800}\"",
        "{",
    ];
    vec((select(pieces.to_vec()), select(vec![" ", "", "\n"])), 0..40)
        .prop_map(|pieces| pieces.into_iter().map(|(a, b)| format!("{a}{b}")).collect())
}

fn is_error(rule: &Rule) -> bool {
    match &rule.kind {
        RuleKind::Error => true,
        RuleKind::And(parts) | RuleKind::Or(parts) => parts.iter().any(is_error),
        RuleKind::Not(inner) => is_error(inner),
        _ => false,
    }
}

/// What holds of every text, whatever it says.
fn check_text(text: &str) {
    let (rule, diagnostics) = parse(text);
    for told in &diagnostics {
        let span = told.span.unwrap();
        assert!(span.start <= span.end, "{told:?}");
        assert!(text.get(span.start as usize..span.end as usize).is_some(), "{told:?}");
        assert!(!told.message.is_empty());
    }
    if !has_errors(&diagnostics) {
        assert!(!is_error(&rule), "an error was not told: {text:?}");
        assert_eq!(parse(&print(&rule)), (rule.clone(), Vec::new()));
        let formatted = format_rule(text).expect("a rule without errors is printed");
        assert_eq!(format_rule(&formatted).as_ref(), Some(&formatted));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_is_read_back(tree in rule()) {
        for printed in [print(&tree), print_inline(&tree)] {
            let (read, diagnostics) = parse(&printed);
            prop_assert!(diagnostics.is_empty(), "{printed}\n{diagnostics:?}");
            prop_assert_eq!(&read, &tree, "{}", printed);
        }
        let printed = print(&tree);
        prop_assert_eq!(format_rule(&printed), Some(printed));
    }

    #[test]
    fn comments_survive_between_any_two_tokens(
        tree in rule(),
        places in vec((any::<prop::sample::Index>(), any::<bool>()), 1..6),
    ) {
        let printed = print_inline(&tree);
        let mut commented = String::new();
        let tokens = lex(&printed).tokens;
        let at: Vec<(usize, bool)> =
            places.iter().map(|(place, own)| (place.index(tokens.len()), *own)).collect();
        let mut cut = 0;
        let mut comments = 0;
        for (number, token) in tokens.iter().enumerate() {
            commented.push_str(&printed[cut..token.span.start as usize]);
            cut = token.span.start as usize;
            for (_, own) in at.iter().filter(|(place, _)| *place == number) {
                comments += 1;
                let line = if *own { "\n" } else { " " };
                commented.push_str(&format!("{line}# comment {comments}\n"));
            }
        }
        commented.push_str(&printed[cut..]);
        let formatted = format_rule(&commented);
        prop_assert!(formatted.is_some(), "{}", commented);
        let formatted = formatted.unwrap();
        prop_assert_eq!(&parse(&formatted).0, &tree);
        for comment in 1..=comments {
            prop_assert!(formatted.contains(&format!("# comment {comment}")), "{}", formatted);
        }
        let again = format_rule(&formatted);
        prop_assert_eq!(again.as_ref(), Some(&formatted), "{}", formatted);
    }

    #[test]
    fn any_text_is_read_without_panic(text in any::<String>()) {
        check_text(&text);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..200)) {
        check_text(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_soup_of_tokens_is_read_without_panic(text in soup()) {
        check_text(&text);
    }
}

#[test]
fn nesting_is_bounded() {
    for text in [
        "(".repeat(60_000),
        "not ".repeat(16_000),
        format!("did x[{}", "not ".repeat(16_000)),
        format!("did x[{}a = 1", "(".repeat(60_000)),
        format!("{}everyone{}", "(".repeat(201), ")".repeat(201)),
    ] {
        let (_, diagnostics) = parse(&text);
        assert_eq!(diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), ["depth"]);
    }
    let deep = format!("{}everyone{}", "(".repeat(200), ")".repeat(200));
    assert_eq!(print(&parse(&deep).0), "everyone");
    assert!(parse(&deep).1.is_empty());
}

#[test]
fn length_is_bounded() {
    let long = format!("everyone #{}", "x".repeat(64 * 1024));
    assert_eq!(parse(&long).1[0].code, "length");
    let (_, diagnostics) = parse(&"? ".repeat(30_000));
    assert!(diagnostics.len() <= 101);
}
