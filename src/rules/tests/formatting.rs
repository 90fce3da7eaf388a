//! How long rules break, and where comments go.

use crate::rules::comment::format_rule;

#[track_caller]
fn formats(written: &str, expected: &str) {
    let formatted = format_rule(written).expect("a rule without errors");
    assert_eq!(formatted, expected);
    assert_eq!(format_rule(&formatted).as_deref(), Some(expected), "printing is idempotent");
}

#[test]
fn a_short_rule_stands_on_one_line() {
    formats("did a\n and\n did b", "did a and did b");
}

#[test]
fn a_long_rule_breaks_at_its_operators() {
    formats(
        "count product_view[category = \"shoes\"] in 14d >= 3 and not did purchase in 30d \
         and profile.country in (\"DE\", \"AT\")",
        "count product_view[category = \"shoes\"] in 14d >= 3
  and not did purchase in 30d
  and profile.country in (\"DE\", \"AT\")",
    );
}

#[test]
fn groups_filters_and_lists_break_only_where_they_must() {
    formats(
        "did product_view[category = \"shoes\" and brand in (\"a\", \"b\") and price > 100 and sale = true] in 14d \
         and (did add_to_cart in 14d and segment a or did wishlist_add in 14d and segment bbbbbbbbbbbbbbbbbbbbbb) \
         and profile.country in (\"DE\", \"AT\", \"CH\", \"FR\", \"IT\", \"ES\", \"PT\", \"NL\", \"BE\", \"LU\", \"DK\")",
        "did product_view[
  category = \"shoes\"
  and brand in (\"a\", \"b\")
  and price > 100
  and sale = true
] in 14d
  and (
    did add_to_cart in 14d and segment a
    or did wishlist_add in 14d and segment bbbbbbbbbbbbbbbbbbbbbb
  )
  and profile.country in (
    \"DE\", \"AT\", \"CH\", \"FR\", \"IT\", \"ES\", \"PT\", \"NL\", \"BE\", \"LU\", \"DK\"
  )",
    );
}

#[test]
fn an_and_in_an_or_stands_deeper() {
    let long = "x".repeat(50);
    formats(
        &format!("did {long} and did {long} or did {long} and did {long}"),
        &format!("did {long}\n    and did {long}\n  or did {long}\n    and did {long}"),
    );
}

#[test]
fn comments_stay_with_what_they_speak_of() {
    formats(
        "# who\n  #   shops\ndid a #recent\n # but\n and   not did b  # bots\n\n# end",
        "# who
#   shops
did a  #recent
  # but
  and not did b  # bots
# end",
    );
    formats("did a # one", "did a  # one");
    formats("(did a # one\n)", "did a  # one");
    formats(
        "( # first\n did a) and did b[ # why\n x = 1 # because\n ]",
        "# first
did a
  and did b[  # why
    x = 1  # because
  ]",
    );
}

#[test]
fn a_wrong_rule_is_not_printed() {
    assert_eq!(format_rule("did a and"), None);
}
