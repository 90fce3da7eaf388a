//! Where a segment goes at a platform: its audience there, which is found or made once.

use super::Halt;
use super::Run;
use crate::activate::connector::Found;
use crate::activate::connector::Place;
use crate::activate::connector::Verdict;
use crate::activate::shared::Shared;

/// Said of an audience that is being made, in place of its name.
const MAKING: &str = "?";

impl Run<'_> {
    /// The platform's own name of where the segment goes; finds or makes it where it has to be.
    pub(super) fn place(&self) -> Result<&str, Halt> {
        if let Some(place) = self.place.get() {
            return Ok(place);
        }
        let place = match self.connector.place(&self.target.segment) {
            Place::None => String::new(),
            Place::Named(place) => place,
            Place::Made => self.made()?,
        };
        Ok(self.place.get_or_init(|| place))
    }

    fn made(&self) -> Result<String, Halt> {
        let Shared { ledger, clock, .. } = self.shared;
        let known = ledger.place(self.target)?.filter(|place| !place.is_empty());
        if let Some(place) = known.as_ref().filter(|place| *place != MAKING) {
            return Ok(place.clone());
        }
        let segment = &self.target.segment;
        let found = self.connector.find(segment, clock.now()).map_err(Halt::Verdict)?;
        let place = match found {
            Found::Place(place) => place,
            // It may be there twice otherwise.
            Found::Untold if known.is_some() => {
                return Err(Halt::Verdict(Verdict::Fatal(format!(
                    "an audience for {segment} was to be made, and its answer was lost: look whether it is there, and \
                     write its id into `audiences` of the destination"
                ))));
            }
            Found::Untold | Found::Nothing => {
                ledger.set_place(self.target, MAKING)?;
                self.connector.make(segment, clock.now()).map_err(|verdict| {
                    // What was not made for sure may be made again.
                    let undone = if verdict.is_unknown() {
                        Ok(())
                    } else {
                        ledger.set_place(self.target, "")
                    };
                    undone.map_or_else(Halt::Store, |()| Halt::Verdict(verdict))
                })?
            }
        };
        ledger.set_place(self.target, &place)?;
        Ok(place)
    }
}
