//! Tests of values and filters of events, compiled: what the rule language says under "Tests".

use std::borrow::Cow;

use regex::Regex;
use regex::RegexBuilder;

use super::property::Found;
use super::property::Path;
use crate::model::Decimal;
use crate::model::Event;
use crate::model::Value;
use crate::rules::ast;
use crate::rules::ast::Cmp;
use crate::rules::ast::FilterKind;
use crate::rules::ast::LiteralKind;
use crate::rules::ast::TestKind;

/// How large a compiled regular expression may be, in bytes.
const REGEX_SIZE: usize = 1 << 20;

/// Why a rule's part cannot be compiled. A rule that passed its check has no such part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTest {
    /// The regular expression is none, or too large.
    #[error("{0}")]
    Regex(String),
    /// The part could not be read.
    #[error("a part of the rule could not be read")]
    Unread,
}

/// Compiles a regular expression within the size that a rule may use.
pub fn compile_regex(pattern: &str) -> Result<Regex, BadTest> {
    RegexBuilder::new(pattern)
        .size_limit(REGEX_SIZE)
        .build()
        .map_err(|error| BadTest::Regex(error.to_string()))
}

/// A test of one value.
#[derive(Debug, Clone)]
pub enum Test {
    /// `=` and `in`: equal to any.
    Equal(Vec<LiteralKind>),
    /// `!=` and `not in`: equal to none.
    Unequal(Vec<LiteralKind>),
    /// `<` and its kin.
    Order(Cmp, LiteralKind),
    /// `contains`
    Contains(Box<str>),
    /// `starts with`
    StartsWith(Box<str>),
    /// `ends with`
    EndsWith(Box<str>),
    /// `matches`
    Matches(Regex),
    /// `exists`
    Exists,
}

impl Test {
    /// Compiles a test.
    pub fn new(test: &ast::Test) -> Result<Self, BadTest> {
        let kinds =
            |literals: &[ast::Literal]| literals.iter().map(|l| l.kind.clone()).collect::<Vec<_>>();
        Ok(match &test.kind {
            TestKind::Compare(Cmp::Eq, literal) => Self::Equal(vec![literal.kind.clone()]),
            TestKind::Compare(Cmp::Ne, literal) => Self::Unequal(vec![literal.kind.clone()]),
            TestKind::Compare(cmp, literal) => Self::Order(*cmp, literal.kind.clone()),
            TestKind::In(literals) => Self::Equal(kinds(literals)),
            TestKind::NotIn(literals) => Self::Unequal(kinds(literals)),
            TestKind::Contains(text) => Self::Contains(text.clone()),
            TestKind::StartsWith(text) => Self::StartsWith(text.clone()),
            TestKind::EndsWith(text) => Self::EndsWith(text.clone()),
            TestKind::Matches(pattern) => Self::Matches(compile_regex(pattern)?),
            TestKind::Exists => Self::Exists,
        })
    }

    /// Whether what a path found passes.
    pub fn passes(&self, found: &Found<'_>) -> bool {
        match found {
            Found::Missing => false,
            Found::Text(text) => self.passes_scalar(&Scalar::Text(text)),
            Found::One(value) => self.passes_value(value),
            // They count as one array, which is there since one was found.
            Found::Many(values) => {
                matches!(self, Self::Exists) || values.iter().any(|value| self.passes_value(value))
            }
        }
    }

    /// Whether a value passes: null never, an array where an element does.
    pub fn passes_value(&self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null) => false,
            (Self::Exists, _) => true,
            (_, Value::Array(items)) => items.iter().any(|item| self.passes_value(item)),
            (_, Value::Object(_)) => matches!(self, Self::Unequal(_)),
            (_, Value::Bool(value)) => self.passes_scalar(&Scalar::Bool(*value)),
            (_, Value::String(text)) => self.passes_scalar(&Scalar::Text(text)),
            (_, Value::Number(number)) => match number.decimal() {
                Some(decimal) => self.passes_scalar(&Scalar::Number(decimal)),
                // Too long to be a number; its event is refused on the way in.
                None => matches!(self, Self::Unequal(_)),
            },
        }
    }

    fn passes_scalar(&self, scalar: &Scalar<'_>) -> bool {
        match self {
            Self::Equal(literals) => literals.iter().any(|literal| scalar.equals(literal)),
            Self::Unequal(literals) => !literals.iter().any(|literal| scalar.equals(literal)),
            Self::Order(cmp, LiteralKind::Number(number)) => {
                scalar.decimal().is_some_and(|value| cmp.holds(value.as_ref().cmp(number)))
            }
            Self::Order(cmp, LiteralKind::String(text)) => {
                cmp.holds(scalar.text().as_bytes().cmp(text.as_bytes()))
            }
            Self::Order(_, LiteralKind::Bool(_)) => false,
            Self::Contains(part) => scalar.text().contains(&**part),
            Self::StartsWith(part) => scalar.text().starts_with(&**part),
            Self::EndsWith(part) => scalar.text().ends_with(&**part),
            Self::Matches(regex) => regex.is_match(&scalar.text()),
            Self::Exists => true,
        }
    }
}

/// A value that has a text.
enum Scalar<'a> {
    Text(&'a str),
    Bool(bool),
    Number(Decimal),
}

impl Scalar<'_> {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
            Self::Number(number) => Cow::Owned(number.to_string()),
        }
    }

    /// The number that `=` takes it for.
    fn decimal(&self) -> Option<Cow<'_, Decimal>> {
        match self {
            Self::Text(text) => Decimal::from_text(text).map(Cow::Owned),
            Self::Bool(_) => None,
            Self::Number(number) => Some(Cow::Borrowed(number)),
        }
    }

    fn equals(&self, literal: &LiteralKind) -> bool {
        match literal {
            LiteralKind::String(text) => self.text() == **text,
            LiteralKind::Number(number) => {
                self.decimal().is_some_and(|value| value.as_ref() == number)
            }
            LiteralKind::Bool(value) => match self {
                Self::Bool(own) => own == value,
                Self::Text(text) => *text == if *value { "true" } else { "false" },
                Self::Number(_) => false,
            },
        }
    }
}

/// A condition on an event's properties.
#[derive(Debug, Clone)]
pub enum Filter {
    /// Any.
    Or(Vec<Filter>),
    /// All.
    And(Vec<Filter>),
    /// The opposite, also of a test of what is missing.
    Not(Box<Filter>),
    /// A test of what a path finds.
    Test(Path, Test),
}

impl Filter {
    /// Compiles a filter.
    pub fn new(filter: &ast::Filter) -> Result<Self, BadTest> {
        let all = |parts: &[ast::Filter]| parts.iter().map(Self::new).collect::<Result<_, _>>();
        Ok(match &filter.kind {
            FilterKind::Or(parts) => Self::Or(all(parts)?),
            FilterKind::And(parts) => Self::And(all(parts)?),
            FilterKind::Not(part) => Self::Not(Box::new(Self::new(part)?)),
            FilterKind::Test(property, test) => {
                Self::Test(Path::new(&property.path), Test::new(test)?)
            }
            FilterKind::Error => return Err(BadTest::Unread),
        })
    }

    /// Whether an event meets the condition.
    pub fn takes(&self, event: &Event) -> bool {
        match self {
            Self::Or(parts) => parts.iter().any(|part| part.takes(event)),
            Self::And(parts) => parts.iter().all(|part| part.takes(event)),
            Self::Not(part) => !part.takes(event),
            Self::Test(path, test) => test.passes(&path.find(event)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::value::parse_json;
    use crate::rules::ast::RuleKind;

    /// The values, as JSON, that pass a test.
    fn passing<'a>(test: &str, values: &[&'a str]) -> Vec<&'a str> {
        let (rule, diagnostics) = crate::rules::parse(&format!("profile.x {test}"));
        assert_eq!(diagnostics, [], "{test}");
        let RuleKind::Attribute { test, .. } = &rule.kind else { panic!() };
        let test = Test::new(test).unwrap();
        let passes = |json: &&&str| test.passes_value(&parse_json(json.as_bytes()).unwrap());
        values.iter().filter(passes).copied().collect()
    }

    const VALUES: [&str; 16] = [
        "null",
        "true",
        "1",
        "1.50",
        "-0",
        "15e-1",
        r#""1.5""#,
        r#""1.50""#,
        r#""x""#,
        r#""true""#,
        r#""""#,
        "{}",
        "[]",
        "[null]",
        r#"[[1],"x"]"#,
        r#""+1""#,
    ];

    #[test]
    fn equality_follows_the_literal() {
        let all = |test: &str| passing(test, &VALUES);
        assert_eq!(all("= 1.5"), ["1.50", "15e-1", r#""1.5""#, r#""1.50""#]);
        assert_eq!(all(r#"= "1.5""#), ["1.50", "15e-1", r#""1.5""#]);
        assert_eq!(all("= true"), ["true", r#""true""#]);
        assert_eq!(all(r#"= "0""#), ["-0"]);
        assert_eq!(all("= 1"), ["1", r#"[[1],"x"]"#]);
        assert_eq!(all(r#"in (1, "")"#), ["1", r#""""#, r#"[[1],"x"]"#]);
    }

    #[test]
    fn inequality_asks_each_element_that_is_there() {
        let not_one = passing("!= 1", &VALUES);
        assert!(!not_one.contains(&"null") && !not_one.contains(&"[]"));
        assert!(!not_one.contains(&"[null]") && !not_one.contains(&"1"));
        assert!(not_one.contains(&"{}") && not_one.contains(&r#"[[1],"x"]"#));
        assert_eq!(
            passing("not in (1, true)", &["1", "true", "2", "[1,2]", "[1]", "null"]),
            ["2", "[1,2]"]
        );
    }

    #[test]
    fn order_is_of_numbers_or_of_bytes() {
        assert_eq!(passing("< 1.5", &VALUES), ["1", "-0", r#"[[1],"x"]"#]);
        assert_eq!(
            passing(r#"< "1""#, &["0.5", "-1", "1", "10", r#""""#, "true"]),
            ["0.5", "-1", r#""""#]
        );
        assert_eq!(passing("< true", &VALUES), [""; 0]);
        let big = ["9007199254740992", "9007199254740993"];
        assert_eq!(passing("> 9007199254740992", &big), ["9007199254740993"]);
    }

    #[test]
    fn texts_and_existence() {
        assert_eq!(passing(r#"contains "5""#, &VALUES), ["1.50", "15e-1", r#""1.5""#, r#""1.50""#]);
        assert_eq!(passing(r#"ends with "5""#, &VALUES), ["1.50", "15e-1", r#""1.5""#]);
        assert_eq!(passing(r#"matches "^t""#, &VALUES), ["true", r#""true""#]);
        assert_eq!(
            passing("exists", &["null", "0", "{}", "[]", "[null]", r#""""#]),
            ["0", "{}", "[]", "[null]", r#""""#]
        );
    }
}
