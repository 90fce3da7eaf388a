//! What the seed's own rule asks for: it would only find the seed again.

use std::collections::BTreeSet;

use super::feature::Feature;
use crate::plan::Library;
use crate::plan::TraitSpec;
use crate::plan::library::each_part;
use crate::plan::library::references;
use crate::plan::traits_of;
use crate::rules::Body;
use crate::rules::Rule;
use crate::rules::ast::RuleKind;

/// The traits and attributes that a rule asks for, those of the segments it names included.
#[derive(Debug, Clone, Default)]
pub struct AskedBy {
    /// The texts of traits without what they measure.
    traits: BTreeSet<String>,
    attributes: BTreeSet<String>,
}

impl AskedBy {
    /// Those of a rule.
    pub fn rule(rule: &Rule, library: &Library) -> Self {
        let specs = traits_of([rule], library).unwrap_or_default();
        let traits = specs.iter().map(|spec| spec.unmeasured().to_string()).collect();
        let mut all = Self { traits, attributes: BTreeSet::new() };
        let mut seen = BTreeSet::new();
        let mut open = vec![rule];
        while let Some(rule) = open.pop() {
            each_part(rule, &mut |part| {
                if let RuleKind::Attribute { name, .. } = &part.kind {
                    all.attributes.insert(name.text.to_string());
                }
            });
            for name in references(rule) {
                if let Some(Body::Rule(named)) = library.body(&name.text)
                    && seen.insert(&*name.text)
                {
                    open.push(named);
                }
            }
        }
        all
    }

    /// Whether a feature is of one of these.
    pub fn takes(&self, feature: &Feature) -> bool {
        match feature {
            Feature::Did(text) => TraitSpec::parse(text)
                .is_some_and(|spec| self.traits.contains(&spec.unmeasured().to_string())),
            Feature::Value { attribute, .. } | Feature::Number { attribute, .. } => {
                self.attributes.contains(attribute)
            }
        }
    }
}
