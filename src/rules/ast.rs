//! The tree of a rule, as written. It knows where each part stands, and nothing of what names mean.
//!
//! Two trees are equal when they say the same thing in the same shape, wherever they stand: spans do
//! not take part in `==`. Every part owns its text, so a tree outlives its source.

use crate::model::time::{Day, Millis};
use crate::model::{Decimal, Namespace};

/// A range of bytes in a rule's text.
#[derive(Debug, Clone, Copy, Default, Eq)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

/// Spans do not take part in the comparison of trees.
impl PartialEq for Span {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Like `==`, hashing leaves spans out.
impl std::hash::Hash for Span {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

/// A rule, or a part of one that is true or false of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What it says.
    pub kind: RuleKind,
    /// Where it stands, without parentheses around it.
    pub span: Span,
}

/// What a rule says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RuleKind {
    /// `a or b or c`, two parts or more.
    Or(Vec<Rule>),
    /// `a and b and c`, two parts or more.
    And(Vec<Rule>),
    /// `not a`
    Not(Box<Rule>),
    /// `everyone`
    Everyone,
    /// `segment top-10`
    Segment(Name),
    /// `has gaid`. The name is checked for the form of a namespace when the rule is planned.
    Has(Name),
    /// `profile.country = "FR"`
    Attribute {
        /// The attribute's exact name.
        name: Name,
        /// The test of its value.
        test: Test,
    },
    /// `did purchase in 30d`
    Did {
        /// The events asked for.
        selector: Selector,
        /// When.
        window: Option<Window>,
    },
    /// `did a then b within 2h in 30d`
    Sequence {
        /// The earlier event.
        first: Selector,
        /// The later event, which the window applies to.
        then: Selector,
        /// How long after, in milliseconds.
        within: Duration,
        /// When.
        window: Option<Window>,
    },
    /// `count purchase in 30d >= 3`, `days page_view < 2`, `sum purchase.value > 99.5`
    Measure {
        /// How the events are measured, and of which property.
        measure: MeasureKind,
        /// The events asked for.
        selector: Selector,
        /// When.
        window: Option<Window>,
        /// The comparison with the number.
        cmp: Cmp,
        /// What it is compared with.
        number: Literal,
    },
    /// `first purchase in 7d`
    First {
        /// The events asked for.
        selector: Selector,
        /// When.
        window: Window,
    },
    /// `last cart after last purchase`
    LastAfter {
        /// The event that came last.
        selector: Selector,
        /// The event that did not come since.
        after: Selector,
    },
    /// A part that could not be read; a diagnostic says why.
    Error,
}

/// How a `Measure` adds up its events.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MeasureKind {
    /// How many.
    Count,
    /// On how many UTC days.
    Days,
    /// The sum of a property.
    Sum(Property),
    /// The least value of a property.
    Min(Property),
    /// The greatest value of a property.
    Max(Property),
    /// The mean value of a property.
    Avg(Property),
}

/// A name with the place it stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    /// The name, without backquotes.
    pub text: Box<str>,
    /// Where it stands, with backquotes.
    pub span: Span,
}

/// The events a clause asks for: a name and perhaps a filter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selector {
    /// The event's exact name.
    pub event: Name,
    /// What its properties must be.
    pub filter: Option<Filter>,
    /// From the name to the closing bracket.
    pub span: Span,
}

/// A condition on one event's properties.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    /// What it says.
    pub kind: FilterKind,
    /// Where it stands.
    pub span: Span,
}

/// What a filter says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FilterKind {
    /// Two parts or more.
    Or(Vec<Filter>),
    /// Two parts or more.
    And(Vec<Filter>),
    /// The opposite.
    Not(Box<Filter>),
    /// A test of a property.
    Test(Property, Test),
    /// A part that could not be read; a diagnostic says why.
    Error,
}

/// A property's path: `page.host`, `` cart.`a.b` ``. Each name is one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Property {
    /// One name or more.
    pub path: Vec<Box<str>>,
    /// Where it stands.
    pub span: Span,
}

/// A test of one value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Test {
    /// What it says.
    pub kind: TestKind,
    /// From the operator to the end of its literal.
    pub span: Span,
}

/// What a test says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TestKind {
    /// `= 3`, `!= "a"`, `< 10`
    Compare(Cmp, Literal),
    /// `in ("a", "b")`
    In(Vec<Literal>),
    /// `not in ("a", "b")`
    NotIn(Vec<Literal>),
    /// `contains "a"`
    Contains(Box<str>),
    /// `starts with "a"`
    StartsWith(Box<str>),
    /// `ends with "a"`
    EndsWith(Box<str>),
    /// `matches "^a"`; a bad expression is a diagnostic of the check.
    Matches(Box<str>),
    /// `exists`
    Exists,
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cmp {
    /// `=`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

impl Cmp {
    /// The operator as written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        }
    }

    /// Whether the comparison holds of an ordering (left against right).
    pub fn holds(self, ordering: std::cmp::Ordering) -> bool {
        match self {
            Self::Eq => ordering.is_eq(),
            Self::Ne => ordering.is_ne(),
            Self::Lt => ordering.is_lt(),
            Self::Le => ordering.is_le(),
            Self::Gt => ordering.is_gt(),
            Self::Ge => ordering.is_ge(),
        }
    }
}

/// A literal of a test or a measure.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Literal {
    /// Its value.
    pub kind: LiteralKind,
    /// Where it stands.
    pub span: Span,
}

/// A literal's value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LiteralKind {
    /// A string, unescaped.
    String(Box<str>),
    /// A number.
    Number(Decimal),
    /// `true` or `false`.
    Bool(bool),
}

/// A length of time, kept in the unit it was written in so that it prints as it was written.
#[derive(Debug, Clone, Copy, Eq)]
pub struct Duration {
    /// How many of the unit, at least 1.
    pub count: u64,
    /// The unit.
    pub unit: DurationUnit,
    /// Where it stands.
    pub span: Span,
}

/// Durations are equal when they last equally long: `7d` is `1w`.
impl PartialEq for Duration {
    fn eq(&self, other: &Self) -> bool {
        self.millis() == other.millis()
    }
}

/// Hashes the length.
impl std::hash::Hash for Duration {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.millis().hash(state);
    }
}

/// A unit of durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DurationUnit {
    /// `s`, only after `within`.
    Second,
    /// `m`
    Minute,
    /// `h`
    Hour,
    /// `d`, 24 hours.
    Day,
    /// `w`, 7 days.
    Week,
}

impl Duration {
    /// The longest duration a rule may name: 36500 days.
    pub const MAX: Millis = 36_500 * crate::model::time::DAY;

    /// The length in milliseconds, at most `i64::MAX`.
    pub fn millis(&self) -> Millis {
        use crate::model::time::{DAY, HOUR, MINUTE, SECOND};
        let unit = match self.unit {
            DurationUnit::Second => SECOND,
            DurationUnit::Minute => MINUTE,
            DurationUnit::Hour => HOUR,
            DurationUnit::Day => DAY,
            DurationUnit::Week => 7 * DAY,
        };
        i64::try_from(self.count).unwrap_or(i64::MAX).saturating_mul(unit)
    }
}

/// A window of time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Window {
    /// Which.
    pub kind: WindowKind,
    /// Where it stands.
    pub span: Span,
}

/// Which window.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WindowKind {
    /// `in 14d`
    In(Duration),
    /// `between 30d and 7d ago`
    Between(Duration, Duration),
    /// `since 2024-01-31`
    Since(Day),
    /// `from 2024-01-01 to 2024-01-31`, both days included.
    FromTo(Day, Day),
}

/// The namespace a `has` names, where its form is one.
pub fn namespace(name: &Name) -> Option<Namespace> {
    Namespace::new(&name.text).ok()
}
