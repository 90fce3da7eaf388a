//! Small counts of the ordinals of a block, in unary: a set of those with one fact at least, a set of those with two, and
//! so on. A day that is a set is added to them by words.

use super::kernels;
use super::packed::Form;
use super::set::BlockSet;
use super::set::words_of;

/// Counts that stop at some number.
#[derive(Debug, Default)]
pub struct Unary {
    /// The sets, those with one at least first.
    words: Vec<u64>,
    /// The words of one set.
    stride: usize,
}

impl Unary {
    /// The largest number that they are to stop at: beyond it bytes are better.
    pub const MOST: u8 = 6;

    /// Makes all counts of a population 0, to stop at `most`, which is at least 1.
    pub fn reset(&mut self, population: u32, most: u8) {
        self.stride = words_of(population);
        self.words.clear();
        self.words.resize(self.stride * usize::from(most), 0);
    }

    pub(super) fn add(&mut self, form: Form<'_>) {
        match form {
            Form::Set(words) => kernels::carry(&mut self.words, self.stride, words),
            Form::List(ordinals) => kernels::carry_each(&mut self.words, self.stride, ordinals),
        }
    }

    /// Makes `out` those with so many at least, no more than they stop at.
    pub fn at_least(&self, count: u8, out: &mut BlockSet) {
        let from = self.stride * usize::from(count.saturating_sub(1));
        out.copy_from_words(&self.words[from..from + self.stride]);
    }

    /// Takes from `out` those with so many at least.
    pub fn subtract_at_least(&self, count: u8, out: &mut BlockSet) {
        let from = self.stride * usize::from(count.saturating_sub(1));
        out.subtract_words(&self.words[from..from + self.stride]);
    }
}
