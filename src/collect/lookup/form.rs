//! The forms in which audiences are told.

use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::Lookup as Telling;
use crate::rules::taxonomy::IAB_AUDIENCE_SEGTAX;
use crate::segment::Labels;

/// What an answer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Form {
    /// An array of ids.
    #[default]
    Ids,
    /// What Prebid's `ortb2` and OpenRTB 2.6 have of a user: [`segtax.md`] says which number stands for which taxonomy.
    ///
    /// [`segtax.md`]: https://github.com/InteractiveAdvertisingBureau/openrtb/blob/main/extensions/community_extensions/segtax.md
    Ortb2,
    /// What Prebid's `dgkeyword` reads: ids under `s`.
    Keywords,
}

/// What audiences are told by.
pub(super) struct Terms<'a> {
    pub(super) form: Form,
    pub(super) telling: &'a Telling,
    /// Of all live segments; empty where nothing is asked of them.
    pub(super) labels: &'a Labels,
    pub(super) provider: &'a str,
}

#[derive(Serialize)]
struct Ortb2<'a> {
    user: User<'a>,
}

#[derive(Serialize)]
struct User<'a> {
    data: Vec<Data<'a>>,
}

/// `Data` of OpenRTB 2.6: one for each taxonomy.
#[derive(Serialize)]
struct Data<'a> {
    id: &'a str,
    name: &'a str,
    ext: Ext,
    segment: Vec<Segment>,
}

#[derive(Serialize)]
struct Ext {
    segtax: u32,
}

#[derive(Serialize)]
struct Segment {
    id: String,
}

#[derive(Serialize)]
struct Keywords<'a> {
    s: &'a [&'a str],
    t: [&'a str; 0],
}

impl Form {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "ids" => Some(Self::Ids),
            "ortb2" => Some(Self::Ortb2),
            "keywords" => Some(Self::Keywords),
            _ => None,
        }
    }
}

impl Terms<'_> {
    /// Whether labels are needed, for somebody who may be a page.
    pub(super) fn need_labels(form: Form, telling: &Telling, is_page: bool) -> bool {
        form == Form::Ortb2 || (is_page && !telling.page_tags.is_empty())
    }

    /// Whether a page is told of a segment.
    pub(super) fn page_is_told(&self, segment: &str) -> bool {
        let wanted = &self.telling.page_tags;
        let tags = self.labels.get(segment).map_or(&[][..], |label| &label.tags);
        wanted.is_empty() || tags.iter().any(|tag| wanted.contains(tag))
    }

    /// Writes an answer: of audiences, in order.
    pub(super) fn write(&self, audiences: &[Arc<str>], out: &mut Vec<u8>) {
        let ids: Vec<&str> = audiences.iter().map(|id| &**id).collect();
        let written = match self.form {
            Form::Ids => serde_json::to_writer(out, &ids),
            Form::Keywords => serde_json::to_writer(out, &Keywords { s: &ids, t: [] }),
            Form::Ortb2 => {
                let user = User { data: self.data(&ids) };
                serde_json::to_writer(out, &Ortb2 { user })
            }
        };
        written.expect("texts and numbers are JSON");
    }

    fn data(&self, ids: &[&str]) -> Vec<Data<'_>> {
        let of_iab = |id: &&str| self.labels.get(*id)?.iab_audience;
        // Two segments may name the same place.
        let iab: BTreeSet<u32> = ids.iter().filter_map(of_iab).collect();
        let data = |segtax, segment: Vec<Segment>| {
            let provider = self.provider;
            (!segment.is_empty()).then_some(Data {
                id: provider,
                name: provider,
                ext: Ext { segtax },
                segment,
            })
        };
        let iab = iab.iter().map(|id| Segment { id: id.to_string() }).collect();
        let own = ids.iter().map(|id| Segment { id: (*id).to_owned() });
        let own = self.telling.segtax.and_then(|segtax| data(segtax, own.collect()));
        data(IAB_AUDIENCE_SEGTAX, iab).into_iter().chain(own).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Label;

    fn written(form: Form, telling: &Telling, audiences: &[&str]) -> String {
        let label = |iab_audience, tags: &[&str]| Label {
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            iab_audience,
        };
        let labels = Labels::from([
            ("a".to_owned(), label(Some(687), &["intent"])),
            ("b".to_owned(), label(Some(210), &[])),
            ("c".to_owned(), label(Some(687), &[])),
            ("d".to_owned(), label(None, &["page"])),
        ]);
        let terms = Terms { form, telling, labels: &labels, provider: "dmp.example" };
        let audiences: Vec<Arc<str>> = audiences.iter().map(|id| (*id).into()).collect();
        let mut out = Vec::new();
        terms.write(&audiences, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_form_is_what_its_reader_expects() {
        let telling = Telling::default();
        let all = ["a", "b", "c", "d", "unknown"];
        assert_eq!(written(Form::Ids, &telling, &all), r#"["a","b","c","d","unknown"]"#);
        assert_eq!(written(Form::Keywords, &telling, &all[..2]), r#"{"s":["a","b"],"t":[]}"#);
        assert_eq!(
            written(Form::Ortb2, &telling, &all),
            r#"{"user":{"data":[{"id":"dmp.example","name":"dmp.example","ext":{"segtax":4},"segment":[{"id":"210"},{"id":"687"}]}]}}"#
        );
        assert_eq!(written(Form::Ortb2, &telling, &["d"]), r#"{"user":{"data":[]}}"#);
        let own = Telling { segtax: Some(600), ..telling };
        assert_eq!(
            written(Form::Ortb2, &own, &["b", "d"]),
            r#"{"user":{"data":[{"id":"dmp.example","name":"dmp.example","ext":{"segtax":4},"segment":[{"id":"210"}]},{"id":"dmp.example","name":"dmp.example","ext":{"segtax":600},"segment":[{"id":"b"},{"id":"d"}]}]}}"#
        );
        for form in [Form::Ids, Form::Keywords, Form::Ortb2] {
            let nothing: serde_json::Value =
                serde_json::from_str(&written(form, &own, &[])).unwrap();
            assert!(!nothing.to_string().contains("dmp"), "{nothing}");
        }
    }

    #[test]
    fn pages_are_told_of_segments_with_a_tag_where_tags_are_set() {
        let labels = Labels::from([(
            "d".to_owned(),
            Label { tags: vec!["page".to_owned()], iab_audience: None },
        )]);
        let told = |page_tags: &[&str], id: &str| {
            let page_tags = page_tags.iter().map(|tag| (*tag).to_owned()).collect();
            let telling = Telling { page_tags, ..Telling::default() };
            let terms = Terms { form: Form::Ids, telling: &telling, labels: &labels, provider: "" };
            terms.page_is_told(id)
        };
        assert!(told(&[], "d") && told(&[], "e") && told(&["x", "page"], "d"));
        assert!(!told(&["x"], "d") && !told(&["page"], "e"));
    }
}
