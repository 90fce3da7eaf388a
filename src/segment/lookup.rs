//! Which audiences an identifier is in: one read, on any node, and no rule is evaluated.

use std::sync::Arc;

use super::AskError;
use super::Segments;
use super::head::last_cut;
use crate::model::Identifier;
use crate::model::Millis;
use crate::store::audiences::Found;
use crate::store::audiences::Lookups;
use crate::store::audiences::Whose;

/// Finds the lists of profiles by the identifiers that own them.
pub struct Finder {
    /// The lists.
    pub lookups: Arc<dyn Lookups>,
    /// Tells whose list an identifier has.
    pub whose: Box<dyn Fn(&Identifier) -> Whose + Send + Sync>,
}

/// The audiences that a profile is in.
#[derive(Debug, Clone, PartialEq)]
pub struct InAudiences {
    /// The ids of their segments, in order.
    pub audiences: Vec<Box<str>>,
    /// The generation that this is of.
    pub generation: u64,
    /// The time that it is true for.
    pub true_for: Millis,
}

impl Segments {
    /// The audiences that a profile is in, found by the identifier that owns it; none where it owns no profile. Who may
    /// be activated is another question: audiences follow from rules alone.
    pub fn audiences_of(&self, identifier: &Identifier) -> Result<InAudiences, AskError> {
        let Finder { lookups, whose } = &self.parts.finder;
        let found = lookups.look(whose(identifier))?.ok_or(AskError::Behind)?;
        let Found { of, segments } = found;
        // Where nothing has changed since, that was said of the generation and not of each list.
        let newest = self.generation();
        let later = match newest.number == of.generation {
            true => Some(newest.true_for),
            false => last_cut(&*self.parts.head)?
                .filter(|(number, _)| *number == of.generation)
                .map(|(_, true_for)| true_for),
        };
        let true_for = later.unwrap_or(Millis::MIN).max(of.true_for);
        Ok(InAudiences { audiences: segments, generation: of.generation, true_for })
    }
}
