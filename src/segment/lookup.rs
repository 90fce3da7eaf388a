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
    pub audiences: Vec<Arc<str>>,
    /// Whether it opted out or is a bot, where it is in any: nobody but the operator is told then.
    pub is_barred: bool,
    /// The generation that this is of.
    pub generation: u64,
    /// The time that it is true for.
    pub true_for: Millis,
}

impl Segments {
    /// The audiences that a profile is in, found by the identifier that owns it; none where it owns no profile. Audiences
    /// follow from rules alone: who may be told of them is what [`InAudiences::is_barred`] says.
    pub fn audiences_of(&self, identifier: &Identifier) -> Result<InAudiences, AskError> {
        let found = self.audiences_of_all(std::slice::from_ref(identifier))?;
        found.into_iter().next().ok_or(AskError::Behind)
    }

    /// The same of many, in their order.
    pub fn audiences_of_all(
        &self,
        identifiers: &[Identifier],
    ) -> Result<Vec<InAudiences>, AskError> {
        let Finder { lookups, whose } = &self.parts.finder;
        let all: Vec<Whose> = identifiers.iter().map(whose).collect();
        let (newest, mut cut) = (self.generation(), None::<Option<(u64, Millis)>>);
        let mut found = Vec::with_capacity(all.len());
        for one in lookups.look_all(&all)? {
            let Found { of, segments: audiences, is_barred } = one.ok_or(AskError::Behind)?;
            // Where nothing has changed since, that was said of the generation and not of each list.
            let later = match newest.number == of.generation {
                true => Some(newest.true_for),
                false => {
                    let cut = match cut {
                        Some(cut) => cut,
                        None => *cut.insert(last_cut(&*self.parts.head)?),
                    };
                    cut.filter(|(number, _)| *number == of.generation).map(|(_, true_for)| true_for)
                }
            };
            let true_for = later.unwrap_or(Millis::MIN).max(of.true_for);
            found.push(InAudiences { audiences, is_barred, generation: of.generation, true_for });
        }
        Ok(found)
    }

    /// Whether what a profile is in is found in this process's memory, so that nobody waits for it.
    pub fn finds_at_once(&self) -> bool {
        self.parts.finder.lookups.is_at_hand()
    }
}
