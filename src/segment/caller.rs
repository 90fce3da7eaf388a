//! Who asked: whether the answer is still wanted, and how far it is.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;

use super::AskError;

/// Shared by a question, on a thread of its own, and whoever waits for its answer.
#[derive(Debug)]
pub struct Caller {
    gone: AtomicBool,
    /// Percent of the archive that have been read, or one of the two below.
    at: AtomicU8,
}

const WAITING: u8 = 200;
const EVALUATING: u8 = 201;

/// How far an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The fold is not as far yet as the journal was when it was asked; or others read the same.
    Waiting,
    /// So many percent of the archive have been read.
    Reading(u8),
    /// The rule is evaluated.
    Evaluating,
}

impl Stage {
    /// So large a share of the archive has been read.
    pub(super) fn read(share: f32) -> Self {
        Self::Reading(percent(share))
    }
}

/// A share in whole percent.
pub(super) fn percent(share: f32) -> u8 {
    let percent = (share * 100.0).clamp(0.0, 100.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
    let percent = percent as u8;
    percent
}

impl Default for Caller {
    fn default() -> Self {
        Self { gone: AtomicBool::new(false), at: AtomicU8::new(WAITING) }
    }
}

impl Caller {
    /// Says that the answer is not wanted any more.
    pub fn leave(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// How far the answer is.
    pub fn stage(&self) -> Stage {
        match self.at.load(Ordering::Relaxed) {
            WAITING => Stage::Waiting,
            EVALUATING => Stage::Evaluating,
            percent => Stage::Reading(percent),
        }
    }

    /// Set when the answer is not wanted any more.
    pub(super) fn gone(&self) -> &AtomicBool {
        &self.gone
    }

    /// Ends a wait where nobody wants the answer any more.
    pub fn still_wanted(&self) -> Result<(), AskError> {
        if self.gone.load(Ordering::Relaxed) { Err(AskError::Cancelled) } else { Ok(()) }
    }

    pub(super) fn note(&self, stage: Stage) {
        let at = match stage {
            Stage::Waiting => WAITING,
            Stage::Reading(percent) => percent.min(100),
            Stage::Evaluating => EVALUATING,
        };
        self.at.store(at, Ordering::Relaxed);
    }
}
