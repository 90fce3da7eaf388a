//! What rules mean as trees, and how they print.

use crate::model::Decimal;
use crate::rules::ast::*;
use crate::rules::parse;
use crate::rules::print_inline;

/// Reads a rule that has no errors.
fn read(text: &str) -> Rule {
    let (rule, diagnostics) = parse(text);
    assert!(diagnostics.is_empty(), "{text}\n{diagnostics:#?}");
    rule
}

fn name(text: &str) -> Name {
    Name { text: text.into(), span: Span::default() }
}

fn at(kind: RuleKind) -> Rule {
    Rule { kind, span: Span::default() }
}

fn selector(event: &str) -> Selector {
    Selector { event: name(event), filter: None, span: Span::default() }
}

fn number(text: &str) -> Literal {
    let kind = LiteralKind::Number(Decimal::from_text(text).unwrap());
    Literal { kind, span: Span::default() }
}

fn days(count: u64) -> Duration {
    Duration { count, unit: DurationUnit::Day, span: Span::default() }
}

fn did(event: &str) -> Rule {
    at(RuleKind::Did { selector: selector(event), window: None })
}

#[test]
fn and_binds_tighter_than_or_and_not_tightest() {
    let expected = at(RuleKind::Or(vec![
        did("a"),
        at(RuleKind::And(vec![at(RuleKind::Not(Box::new(did("b")))), did("c")])),
    ]));
    assert_eq!(read("did a or not did b and did c"), expected);
    assert_eq!(read("did a or ((not did b) and (did c))"), expected);
}

#[test]
fn a_measure_has_selector_property_window_and_comparison() {
    let test = Test { kind: TestKind::Compare(Cmp::Eq, number("3")), span: Span::default() };
    let property = |path: &[&str]| Property {
        path: path.iter().map(|name| (*name).into()).collect(),
        span: Span::default(),
    };
    let filter =
        Filter { kind: FilterKind::Test(property(&["a", "b.c"]), test), span: Span::default() };
    let window = Window { kind: WindowKind::Between(days(30), days(7)), span: Span::default() };
    assert_eq!(
        read("sum order[a.`b.c` = 3].line.total between 30d and 1w ago > -0.50"),
        at(RuleKind::Measure {
            measure: MeasureKind::Sum(property(&["line", "total"])),
            selector: Selector {
                event: name("order"),
                filter: Some(filter),
                span: Span::default()
            },
            window: Some(window),
            cmp: Cmp::Gt,
            number: number("-0.5"),
        })
    );
}

#[test]
fn every_construct_is_read_and_printed_the_canonical_way() {
    for (written, printed) in [
        ("everyone", "everyone"),
        ("(( everyone ))", "everyone"),
        ("not(not everyone)", "not not everyone"),
        ("segment top-10", "segment top-10"),
        ("segment 7d-buyers and segment 2024-sale", "segment 7d-buyers and segment 2024-sale"),
        ("segment 30m or segment not", "segment 30m or segment not"),
        ("not segment and and segment or", "not segment and and segment or"),
        ("segment # the id follows\n 3", "segment 3"),
        ("has gaid", "has gaid"),
        ("has `last`", "has `last`"),
        ("profile.country = \"FR\"", "profile.country = \"FR\""),
        ("profile . `a b` exists", "profile.`a b` exists"),
        ("profile.`last` != true", "profile.`last` != true"),
        ("profile.age>=18 and profile.age<65.50", "profile.age >= 18 and profile.age < 65.5"),
        ("profile.x in(\"a\",-1.0,true)", "profile.x in (\"a\", -1, true)"),
        ("profile.x not in (007)", "profile.x not in (7)"),
        ("profile.x starts\n with \"a\"", "profile.x starts with \"a\""),
        ("profile.x ends with \"\\u{e9}\\\\\\\"\"", "profile.x ends with \"é\\\\\\\"\""),
        ("profile.x contains \"\\u{7}\\n\"", "profile.x contains \"\\u{7}\\n\""),
        ("profile.x matches \"^\\\\d+$\"", "profile.x matches \"^\\\\d+$\""),
        ("did purchase", "did purchase"),
        ("did `Order Completed` in 30d", "did `Order Completed` in 30d"),
        ("did `purchase` in 30d", "did purchase in 30d"),
        ("did a[x=1 or y=2 and not z=3]", "did a[x = 1 or y = 2 and not z = 3]"),
        ("did a[(x = 1 or y = 2) and z exists]", "did a[(x = 1 or y = 2) and z exists]"),
        ("did a[not (x = 1)] since 2024-02-29", "did a[not x = 1] since 2024-02-29"),
        ("did a then b within 90s", "did a then b within 90s"),
        ("did a then b within 2h in 7d", "did a then b within 2h in 7d"),
        ("did a from 2024-01-01 to 2024-01-01", "did a from 2024-01-01 to 2024-01-01"),
        ("count a in 14d>=3", "count a in 14d >= 3"),
        ("days a between 4w and 7d ago != 2", "days a between 4w and 7d ago != 2"),
        ("min a.b < 1", "min a.b < 1"),
        ("max a.b = 1", "max a.b = 1"),
        ("avg a[b exists].`c d`.e <= 1", "avg a[b exists].`c d`.e <= 1"),
        ("sum order.`count` in 36500d > 0", "sum order.`count` in 36500d > 0"),
        ("first purchase in 7d", "first purchase in 7d"),
        ("last cart after last purchase", "last cart after last purchase"),
        ("did d in 3d", "did d in 3d"),
        ("\tdid\r\na\n# end", "did a"),
    ] {
        let rule = read(written);
        assert_eq!(print_inline(&rule), printed, "{written}");
    }
}

#[test]
fn eighteen_digits_on_either_side_of_the_point_are_kept() {
    let text = "sum a.b > -999999999999999999.999999999999999999";
    assert_eq!(print_inline(&read(text)), text);
}

#[test]
fn spans_point_at_what_they_name() {
    let text = "did a and (count `b c`[x = 1] in 7d >= 3)";
    let RuleKind::And(parts) = read(text).kind else { panic!("two parts") };
    let of = |span: Span| &text[span.start as usize..span.end as usize];
    assert_eq!(of(parts[1].span), "count `b c`[x = 1] in 7d >= 3");
    let RuleKind::Measure { selector, window, number, .. } = &parts[1].kind else {
        panic!("a measure")
    };
    assert_eq!(of(selector.event.span), "`b c`");
    assert_eq!(of(selector.span), "`b c`[x = 1]");
    assert_eq!(of(window.as_ref().unwrap().span), "in 7d");
    assert_eq!(of(number.span), "3");
}
