//! Counts and sums over roaring bitmaps, as one would without columns: numbers are kept as bitmaps of their binary
//! digits and added up day by day.

use crate::facts::{DAYS, Event};
use roaring::RoaringBitmap;
use std::collections::HashMap;

/// Bitmaps of the digits of a number for each visitor, the lowest digit first.
type Sliced = Vec<RoaringBitmap>;

/// For each day the numbers of all visitors, which `number` gives of each event.
pub(crate) fn days(events: &[Event], number: impl Fn(&Event) -> u32) -> Vec<Sliced> {
    let mut days: Vec<HashMap<u32, u32>> = vec![HashMap::new(); usize::from(DAYS)];
    for event in events {
        let number = number(event);
        if number > 0 {
            *days[usize::from(event.day)].entry(event.visitor).or_default() += number;
        }
    }
    let slice = |numbers: HashMap<u32, u32>| {
        let digits = 32 - numbers.values().max().copied().unwrap_or(0).leading_zeros();
        let digit = |digit: u32| {
            let visitors = numbers.iter().filter(|(_, number)| **number >> digit & 1 == 1);
            let mut visitors: Vec<u32> = visitors.map(|(visitor, _)| *visitor).collect();
            visitors.sort_unstable();
            RoaringBitmap::from_sorted_iter(visitors).expect("they are sorted")
        };
        (0..digits).map(digit).collect()
    };
    days.into_iter().map(slice).collect()
}

/// Those whose numbers of some days come to `least` or more.
pub(crate) fn at_least(days: &[Sliced], least: u32) -> RoaringBitmap {
    let mut sum = Sliced::new();
    for day in days {
        add(&mut sum, day);
    }
    let mut equal: RoaringBitmap = sum.iter().fold(RoaringBitmap::new(), |all, digit| all | digit);
    let mut greater = RoaringBitmap::new();
    for digit in (0..32).rev() {
        let none = RoaringBitmap::new();
        let ones = sum.get(digit).unwrap_or(&none);
        if least >> digit & 1 == 1 {
            equal &= ones;
        } else {
            greater |= &equal & ones;
            equal -= ones;
        }
    }
    greater | equal
}

fn add(sum: &mut Sliced, more: &Sliced) {
    let mut carry = RoaringBitmap::new();
    for digit in 0.. {
        let ones = more.get(digit);
        if ones.is_none() && carry.is_empty() {
            return;
        }
        if digit == sum.len() {
            sum.push(RoaringBitmap::new());
        }
        let own = &mut sum[digit];
        match ones {
            Some(ones) => {
                let both = &*own & ones;
                *own ^= ones;
                let carried = &*own & &carry;
                *own ^= &carry;
                carry = both | carried;
            }
            None => {
                let carried = &*own & &carry;
                *own ^= &carry;
                carry = carried;
            }
        }
    }
}
