//! `format = "liveramp"`: whole audiences as LiveRamp takes them, in files of `file`, `s3`, `gcs` or `sftp`.
//!
//! ```text
//! <segment>_<generation>-<seq>.csv[.gz]      audience_key,email,phone
//!                                            "5f…","f41439…",
//!                                            "9a…",,"414739…"
//! ```
//! A line is one identifier, and its key follows from it, so it is the same in each file. A batch goes to the ledger alone; the
//! file that follows is named by the last one, and says what the ledger then holds.
//!
//! Written from the published form of files that others send there; it never met LiveRamp itself.

use sha2::Digest;
use sha2::Sha256;
use std::path::Path;

use super::fit;
use crate::activate::connector::Caps;
use crate::activate::connector::Connector;
use crate::activate::connector::Encoded;
use crate::activate::connector::Verdict;
use crate::config::LiveRampStyle;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::hex;
use crate::store::ledger::Batch;
use crate::store::ledger::LastBatch;
use crate::store::ledger::Refusal;

/// LiveRamp takes no file with fewer lines.
pub const MIN_ROWS: u64 = 25;
/// Batches go to the ledger alone: so many lines are a transaction of a few MiB.
const MAX_ROWS: usize = 50_000;

/// How a whole audience is written.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The columns after the key in order of name, each with its namespace.
    columns: Vec<(String, String)>,
    /// Whether it is packed.
    pub gzip: bool,
}

/// Writes whole audiences, to wherever files are put.
pub struct LiveRampConnector {
    layout: Layout,
    files: Box<dyn Connector>,
    caps: Caps,
}

impl Layout {
    fn new(style: &LiveRampStyle, gzip: bool) -> Self {
        let columns = style.columns.iter();
        Self { columns: columns.map(|(name, known)| (name.clone(), known.clone())).collect(), gzip }
    }

    /// The name of the file that a batch is the last of: never that of another one.
    pub fn name(&self, last: &LastBatch) -> String {
        let LastBatch { segment, generation, seq } = last;
        let packed = if self.gzip { ".gz" } else { "" };
        format!("{segment}_{generation}-{seq}.csv{packed}")
    }

    /// The first line, without its end.
    pub fn head(&self) -> String {
        let columns = self.columns.iter().map(|(name, _)| name.as_str());
        std::iter::once("audience_key").chain(columns).collect::<Vec<_>>().join(",")
    }

    /// A further line, with the end of the one before it; none of what has no column.
    pub fn row(&self, identifier: &Identifier) -> Option<String> {
        let at = self.column(identifier)?;
        let value = identifier.value().replace('"', "\"\"");
        let rest = self.columns.len() - at - 1;
        let key = key(identifier);
        Some(format!("\n\"{key}\",{}\"{value}\"{}", ",".repeat(at), ",".repeat(rest)))
    }

    fn column(&self, identifier: &Identifier) -> Option<usize> {
        let namespace = identifier.namespace.as_str();
        self.columns.iter().position(|(_, known)| known == namespace)
    }

    /// Why an identifier is in no file, where it is in none.
    fn unfit(&self, identifier: &Identifier) -> Option<&'static str> {
        let value = identifier.value();
        match identifier.namespace.as_str() {
            _ if self.column(identifier).is_none() => Some("ids of its namespace have no column"),
            "email_sha256" => fit::unfit_hash(value),
            "phone_national_sha1" => fit::unfit_sha1(value),
            _ => None,
        }
    }
}

/// What LiveRamp knows a line by: 128 bits, which say nothing of the identifier to who does not have it.
fn key(identifier: &Identifier) -> String {
    let mut hash = Sha256::new();
    hash.update(identifier.namespace.as_str());
    hash.update([0]);
    hash.update(identifier.value());
    hex(&hash.finalize()[..16])
}

impl LiveRampConnector {
    /// A connector whose files are put by another.
    pub fn new(style: &LiveRampStyle, gzip: bool, files: Box<dyn Connector>) -> Self {
        let layout = Layout::new(style, gzip);
        // A connector lives as long as the process.
        let namespaces = layout.columns.iter().map(|(_, known)| &*String::leak(known.clone()));
        let caps = Caps {
            max_rows: MAX_ROWS,
            namespaces: Some(Vec::leak(namespaces.collect())),
            mixes: true,
            ttl: None,
            min_size: Some(MIN_ROWS),
        };
        Self { layout, files, caps }
    }

    /// Bounds the lines of a batch.
    #[cfg(test)]
    pub(in crate::activate) fn with_max_rows(mut self, max_rows: usize) -> Self {
        self.caps.max_rows = max_rows;
        self
    }
}

impl Connector for LiveRampConnector {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn check(&self, now: Millis) -> Result<(), String> {
        self.files.check(now)
    }

    /// What is in no file is refused; to be in none any more is nothing that could be.
    fn encode(&self, batch: &Batch, _place: &str) -> Encoded {
        let refused = batch.changes.adds.iter().enumerate().filter_map(|(line, identifier)| {
            let why = self.layout.unfit(identifier)?.to_owned();
            Some(Refusal { line, why })
        });
        let refused: Vec<_> = refused.collect();
        let lines = batch.changes.len() - refused.len();
        let (address, body) = (String::new(), Vec::new());
        Encoded { batch: batch.id(), method: "", address, body, lines, refused }
    }

    /// It is in the next file, whatever became of the attempt.
    fn delivered(&self, _encoded: &Encoded) -> bool {
        true
    }

    fn deliver(&self, _encoded: &Encoded, _now: Millis) -> Verdict {
        Verdict::Accepted
    }

    fn whole(&self) -> Option<&Layout> {
        Some(&self.layout)
    }

    fn put_file(&self, name: &str, from: &Path, now: Millis) -> Verdict {
        self.files.put_file(name, from, now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::FileConnector;
    use super::super::testing::batch;
    use super::super::testing::identifier;
    use super::*;
    use crate::config::FileFormat;
    use crate::config::FileStyle;
    use std::collections::BTreeMap;

    const EMAIL: &str = "f41439c944a763c9812d700a779941cec169de13c9ccd13aaf9424ba5231620a";
    const PHONE: &str = "4147a9251399181cf7aee7bfdc969ab835aa5d89";

    fn style() -> LiveRampStyle {
        let columns =
            [("phone", "phone_national_sha1"), ("email", "email_sha256"), ("crm", "crm_id")];
        let columns = columns.map(|(name, known)| (name.to_owned(), known.to_owned()));
        LiveRampStyle { columns: BTreeMap::from(columns) }
    }

    #[test]
    fn a_line_is_one_identifier_under_a_key_of_its_own() {
        let layout = Layout::new(&style(), false);
        let ids = [
            identifier("email_sha256", EMAIL),
            identifier("phone_national_sha1", PHONE),
            identifier("crm_id", "a \"b\", c"),
            identifier("cookie", "c1"),
        ];
        let mut text = layout.head();
        text.extend(ids.iter().filter_map(|one| layout.row(one)));
        let keys = ids.each_ref().map(key);
        // printf 'email_sha256\0f41439…' | sha256sum
        assert_eq!(keys[0], "6a81c524ec97c626cdcd882b77720702");
        assert_eq!(
            text,
            format!(
                "audience_key,crm,email,phone\n\"{}\",,\"{EMAIL}\",\n\"{}\",,,\"{PHONE}\"\n\"{}\",\"a \"\"b\"\", c\",,",
                keys[0], keys[1], keys[2]
            )
        );
        let mut read = csv::Reader::from_reader(text.as_bytes());
        let rows: Vec<Vec<String>> =
            read.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect();
        assert_eq!(rows[1], [&keys[1], "", "", PHONE]);
        assert_eq!(rows[2][1], "a \"b\", c");
        let last = LastBatch { segment: "buyers".into(), generation: 12, seq: 3 };
        assert_eq!(layout.name(&last), "buyers_12-3.csv");
        assert_eq!(Layout::new(&style(), true).name(&last), "buyers_12-3.csv.gz");
    }

    #[test]
    fn what_liveramp_does_not_know_is_refused_and_to_leave_is_nothing_to_refuse() {
        let folder = tempfile::tempdir().unwrap();
        let files =
            FileStyle { format: FileFormat::LiveRamp, gzip: false, adobe: None, liveramp: None };
        let files = Box::new(FileConnector::new(folder.path().join("out"), files));
        let connector = LiveRampConnector::new(&style(), false, files);
        assert_eq!(
            connector.caps().namespaces,
            Some(&["crm_id", "email_sha256", "phone_national_sha1"][..])
        );
        let adds = vec![
            identifier("cookie", "c1"),
            identifier("crm_id", "7"),
            identifier("email_sha256", "jane@example.com"),
            identifier("email_sha256", EMAIL),
            identifier("phone_national_sha1", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            identifier("phone_national_sha1", &PHONE.to_uppercase()),
            identifier("phone_national_sha1", PHONE),
        ];
        let encoded = connector.encode(&batch(adds, vec![identifier("cookie", "c2")]), "");
        let refused: Vec<usize> = encoded.refused.iter().map(|refusal| refusal.line).collect();
        assert_eq!((refused, encoded.lines), (vec![0, 2, 4, 5], 4));
        assert_eq!(connector.deliver(&encoded, 0), Verdict::Accepted);
        assert!(!folder.path().join("out").exists(), "a batch writes nothing");
    }
}
