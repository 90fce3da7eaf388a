//! Strings made from values, by the specifications: what the decoders are held against.

use crate::model::Purposes;

/// Bits on their way into text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writer {
    bits: Vec<bool>,
}

impl Writer {
    pub(crate) fn number(&mut self, value: u64, count: usize) -> &mut Self {
        assert!(count == 64 || value >> count == 0, "{value} in {count} bits");
        self.bits.extend((0..count).rev().map(|at| value >> at & 1 == 1));
        self
    }

    pub(crate) fn flag(&mut self, value: bool) -> &mut Self {
        self.number(value.into(), 1)
    }

    /// A bit for each of `count`, that of 1 first.
    pub(crate) fn set(&mut self, set: u64, count: usize) -> &mut Self {
        self.bits.extend((0..count).map(|at| set >> at & 1 == 1));
        self
    }

    pub(crate) fn purposes(&mut self, purposes: Purposes) -> &mut Self {
        self.set(purposes.bits().into(), 24)
    }

    pub(crate) fn letters(&mut self, letters: [char; 2]) -> &mut Self {
        for letter in letters {
            self.number(u64::from(u32::from(letter) - u32::from('A')), 6);
        }
        self
    }

    /// The sum of Fibonacci numbers that `value` is, the smallest first, and a one that ends it.
    pub(crate) fn fibonacci(&mut self, value: u16) -> &mut Self {
        let mut numbers = vec![1u32, 2];
        while let [.., a, b] = numbers[..]
            && a + b <= value.into()
        {
            numbers.push(a + b);
        }
        let mut left = u32::from(value);
        let mut bits = Vec::new();
        for number in numbers.into_iter().rev() {
            let is_in = number <= left;
            if is_in {
                left -= number;
            }
            if is_in || !bits.is_empty() {
                bits.push(is_in);
            }
        }
        bits.reverse();
        bits.push(true);
        self.bits.append(&mut bits);
        self
    }

    /// The ids as runs, each with its ends as `fibonacci` distances or in 16 bits.
    pub(crate) fn ranges(&mut self, ids: &[u16], fibonacci: bool) -> &mut Self {
        let runs: Vec<&[u16]> = ids.chunk_by(|a, b| a + 1 == *b).collect();
        self.number(runs.len() as u64, 12);
        let mut before = 0;
        for run in runs {
            let (first, last) = (run[0], run[run.len() - 1]);
            self.flag(first != last);
            let ends = if first == last { &[first][..] } else { &[first, last] };
            for end in ends {
                if fibonacci {
                    self.fibonacci(end - before);
                } else {
                    self.number((*end).into(), 16);
                }
                before = *end;
            }
        }
        self
    }

    /// The highest id, and the ids as bits, or as ranges.
    pub(crate) fn vendors(&mut self, ids: &[u16], form: Form) -> &mut Self {
        let max = ids.last().copied().unwrap_or(0);
        self.number(max.into(), 16).flag(form != Form::Bits);
        match form {
            Form::Bits => {
                let bits = (1..=max).map(|id| ids.binary_search(&id).is_ok());
                self.bits.extend(bits);
                self
            }
            Form::Fixed => self.ranges(ids, false),
            Form::Fibonacci => self.ranges(ids, true),
        }
    }

    /// The text, filled up with zeros to whole characters.
    pub(crate) fn text(&self) -> String {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let character = |bits: &[bool]| {
            let value = (0..6).fold(0, |value, at| {
                value << 1 | usize::from(bits.get(at).copied().unwrap_or(false))
            });
            char::from(alphabet[value])
        };
        self.bits.chunks(6).map(character).collect()
    }
}

/// How a set of vendors is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Bits,
    Fixed,
    Fibonacci,
}

/// What a string of the EU is made from. By default it allows everything to vendors 7 and 755.
#[derive(Debug, Clone)]
pub(crate) struct Eu {
    pub(crate) version: u8,
    pub(crate) created: i64,
    pub(crate) cmp: u16,
    pub(crate) policy: u8,
    pub(crate) is_service_specific: bool,
    pub(crate) special_features: u16,
    pub(crate) consents: Purposes,
    pub(crate) interests: Purposes,
    pub(crate) country: [char; 2],
    pub(crate) vendors: (Vec<u16>, Form),
    pub(crate) vendor_interests: (Vec<u16>, Form),
    /// Purpose, kind and vendors of each restriction.
    pub(crate) restrictions: Vec<(u8, u8, Vec<u16>)>,
    pub(crate) disclosed: Option<(Vec<u16>, Form)>,
    pub(crate) publisher: Option<(Purposes, Purposes, u8, u64, u64)>,
}

/// 2026-06-01T00:00:00Z.
pub(crate) const SUMMER: i64 = 1_780_272_000_000;

impl Default for Eu {
    fn default() -> Self {
        Self {
            version: 2,
            created: SUMMER,
            cmp: 10,
            policy: 5,
            is_service_specific: true,
            special_features: 0,
            consents: (1..=11).collect(),
            interests: Purposes::default(),
            country: ['F', 'R'],
            vendors: (vec![7, 755], Form::Fixed),
            vendor_interests: (Vec::new(), Form::Bits),
            restrictions: Vec::new(),
            disclosed: Some((vec![7, 755], Form::Fixed)),
            publisher: None,
        }
    }
}

impl Eu {
    pub(crate) fn text(&self) -> String {
        let deciseconds = u64::try_from(self.created / 100).unwrap();
        let mut core = Writer::default();
        core.number(self.version.into(), 6)
            .number(deciseconds, 36)
            .number(deciseconds, 36)
            .number(self.cmp.into(), 12)
            .number(1, 12)
            .number(2, 6)
            .letters(['E', 'N'])
            .number(3, 12)
            .number(self.policy.into(), 6)
            .flag(self.is_service_specific)
            .flag(false)
            .set(self.special_features.into(), 12)
            .purposes(self.consents)
            .purposes(self.interests)
            .flag(false)
            .letters(self.country)
            .vendors(&self.vendors.0, self.vendors.1)
            .vendors(&self.vendor_interests.0, self.vendor_interests.1)
            .number(self.restrictions.len() as u64, 12);
        for (purpose, kind, vendors) in &self.restrictions {
            core.number((*purpose).into(), 6).number((*kind).into(), 2).ranges(vendors, false);
        }
        let mut text = core.text();
        if let Some((vendors, form)) = &self.disclosed {
            let mut segment = Writer::default();
            text.push('.');
            text.push_str(&segment.number(1, 3).vendors(vendors, *form).text());
        }
        if let Some((consents, interests, custom, own_consents, own_interests)) = self.publisher {
            let mut segment = Writer::default();
            segment
                .number(3, 3)
                .purposes(consents)
                .purposes(interests)
                .number(custom.into(), 6)
                .set(own_consents, custom.into())
                .set(own_interests, custom.into());
            text.push('.');
            text.push_str(&segment.text());
        }
        text
    }
}

/// What a section of Canada is made from. By default vendors 7 and 755 have express consent to everything.
#[derive(Debug, Clone)]
pub(crate) struct CanadaSection {
    pub(crate) cmp: u16,
    pub(crate) express: Purposes,
    pub(crate) implied: Purposes,
    pub(crate) vendor_express: (Vec<u16>, Form),
    pub(crate) vendor_implied: (Vec<u16>, Form),
    pub(crate) restrictions: Vec<(u8, u8, Vec<u16>)>,
    pub(crate) disclosed: Option<(Vec<u16>, Form)>,
}

impl Default for CanadaSection {
    fn default() -> Self {
        Self {
            cmp: 10,
            express: (1..=11).collect(),
            implied: Purposes::default(),
            vendor_express: (vec![7, 755], Form::Fibonacci),
            vendor_implied: (Vec::new(), Form::Bits),
            restrictions: Vec::new(),
            disclosed: None,
        }
    }
}

impl CanadaSection {
    pub(crate) fn text(&self) -> String {
        let deciseconds = u64::try_from(SUMMER / 100).unwrap();
        let mut core = Writer::default();
        core.number(1, 6)
            .number(deciseconds, 36)
            .number(deciseconds, 36)
            .number(self.cmp.into(), 12)
            .number(1, 12)
            .number(2, 6)
            .letters(['F', 'R'])
            .number(3, 12)
            .number(2, 6)
            .flag(false)
            .set(0, 12)
            .purposes(self.express)
            .purposes(self.implied)
            .vendors(&self.vendor_express.0, self.vendor_express.1)
            .vendors(&self.vendor_implied.0, self.vendor_implied.1)
            .number(self.restrictions.len() as u64, 12);
        let is_old = self.vendor_express.1 == Form::Fixed;
        for (purpose, kind, vendors) in &self.restrictions {
            core.number((*purpose).into(), 6).number((*kind).into(), 2);
            if is_old {
                core.ranges(vendors, false);
            } else {
                core.vendors(vendors, Form::Fibonacci);
            }
        }
        let mut text = core.text();
        if let Some((vendors, form)) = &self.disclosed {
            let mut segment = Writer::default();
            text.push('.');
            text.push_str(&segment.number(1, 3).vendors(vendors, *form).text());
        }
        text
    }
}

/// A string of the platform with these sections, which are in the order of their ids.
pub(crate) fn gpp(sections: &[(u16, &str)]) -> String {
    let ids: Vec<u16> = sections.iter().map(|(id, _)| *id).collect();
    let mut header = Writer::default();
    let mut text = header.number(3, 6).number(1, 6).ranges(&ids, true).text();
    for (_, section) in sections {
        text.push('~');
        text.push_str(section);
    }
    text
}
