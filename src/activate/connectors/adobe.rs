//! `format = "adobe"`: files as Adobe Audience Manager writes them for those who take its data, each with a control file.
//!
//! ```text
//! S3_<destination>_<data source>[_<alias>]_iter_<13 digits>-<seq>.sync[.gz]    u-17 14356        is in
//!                                                                             u-18  14356       is out
//! S3_<destination>_<data source>[_<alias>]_iter_<13 digits>-<seq>.info         what the file is to be, written last
//! ```
//! Written from the published description of outbound files; no one who reads such files was tried.

use md5::compute;
use serde_json::json;

use crate::activate::connector::Encoded;
use crate::config::AdobeStyle;
use crate::store::ledger::Batch;
use crate::store::ledger::Refusal;

/// A batch as lines, with those that are not in it, under its name.
pub(super) fn encode(style: &AdobeStyle, batch: &Batch) -> (String, Vec<u8>, Vec<Refusal>) {
    let AdobeStyle { method, destination_id, data_source, alias, namespace, segments } = style;
    let alias = alias.as_ref().map(|alias| format!("_{alias}")).unwrap_or_default();
    let Batch { target, true_for, seq, .. } = batch;
    let name =
        format!("{method}_{destination_id}_{data_source}{alias}_iter_{true_for:013}-{seq}.sync");
    let (mut body, mut refused) = (Vec::new(), Vec::new());
    let number = segments.get(&target.segment);
    let adds = batch.changes.adds.iter().map(|identifier| (" ", identifier));
    let removes = batch.changes.removes.iter().map(|identifier| ("  ", identifier));
    for (line, (gap, identifier)) in adds.chain(removes).enumerate() {
        let why = match number {
            None => Some("the segment has no number in `segments` of the destination"),
            _ if identifier.namespace.as_str() != namespace => {
                Some("ids of another namespace are not in the file")
            }
            _ if identifier.value().contains(' ') => Some("an id with a space breaks its line"),
            _ => None,
        };
        match (why, number) {
            (None, Some(number)) => {
                body.extend_from_slice(format!("{}{gap}{number}\n", identifier.value()).as_bytes());
            }
            (why, _) => {
                let why = why.unwrap_or_default().to_owned();
                refused.push(Refusal { line, why });
            }
        }
    }
    (format!("{}/{name}", target.segment), body, refused)
}

/// The control file of one that was encoded: its name and its bytes. Pure.
pub(super) fn control(encoded: &Encoded) -> Option<(String, Vec<u8>)> {
    let (root, _) = encoded.address.split_once(".sync")?;
    let name = encoded.address.rsplit('/').next()?;
    let of_root = root.rsplit('/').next()?;
    let info = json!({
        "Files": [{
            "FileName": name,
            "FileSequenceNumber": 1,
            "FileByteSize": encoded.body.len(),
            "FileLineCount": encoded.lines,
            "md5": format!("{:x}", compute(&encoded.body)),
        }],
        "Totals": {
            "FileName": format!("{of_root}.sync"),
            "TotalByteSize": encoded.body.len(),
            "TotalNumberFiles": 1,
            "TotalNumberLines": encoded.lines,
        },
    });
    Some((format!("{root}.info"), format!("{info}\n").into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::super::file::FileConnector;
    use super::super::testing::batch;
    use super::super::testing::identifier;
    use crate::activate::connector::Connector;
    use crate::activate::connector::Verdict;
    use crate::config::AdobeStyle;
    use crate::config::FileFormat;
    use crate::config::FileStyle;
    use std::collections::BTreeMap;
    use std::io::Read;

    fn style(gzip: bool) -> FileStyle {
        let adobe = AdobeStyle {
            method: "S3".into(),
            destination_id: "423".into(),
            data_source: "12".into(),
            alias: Some("crm".into()),
            namespace: "crm_id".into(),
            segments: BTreeMap::from([("buyers".to_owned(), "14356".to_owned())]),
        };
        FileStyle { format: FileFormat::Adobe, gzip, adobe: Some(adobe), liveramp: None }
    }

    #[test]
    fn a_file_says_who_is_in_and_out_and_its_control_file_what_it_is_to_be() {
        let batch = batch(
            vec![
                identifier("crm_id", "u-17"),
                identifier("user_id", "12680"),
                identifier("crm_id", "a b"),
            ],
            vec![identifier("crm_id", "u-18")],
        );
        let encoded = file::encode(&style(false), &batch);
        assert_eq!(encoded.address, "buyers/S3_423_12_crm_iter_1795500000123-3.sync");
        assert_eq!(String::from_utf8(encoded.body.clone()).unwrap(), "u-17 14356\nu-18  14356\n");
        let refused: Vec<usize> = encoded.refused.iter().map(|refusal| refusal.line).collect();
        assert_eq!((encoded.lines, refused), (2, vec![1, 2]));
        // printf 'u-17 14356\nu-18  14356\n' | md5sum
        let (name, info) = file::control(&style(false), &encoded).unwrap();
        assert_eq!(name, "buyers/S3_423_12_crm_iter_1795500000123-3.info");
        let info: serde_json::Value = serde_json::from_slice(&info).unwrap();
        let expected = serde_json::json!({
            "Files": [{ "FileName": "S3_423_12_crm_iter_1795500000123-3.sync", "FileSequenceNumber": 1,
                        "FileByteSize": 23, "FileLineCount": 2, "md5": "7060ce12d6ccdb97bf7ec671ec28604f" }],
            "Totals": { "FileName": "S3_423_12_crm_iter_1795500000123-3.sync", "TotalByteSize": 23,
                        "TotalNumberFiles": 1, "TotalNumberLines": 2 },
        });
        assert_eq!(info, expected);

        let packed = file::encode(&style(true), &batch);
        assert!(packed.address.ends_with("-3.sync.gz"));
        assert_eq!(packed, file::encode(&style(true), &batch));
        let mut text = String::new();
        flate2::read::GzDecoder::new(&packed.body[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, "u-17 14356\nu-18  14356\n");
        let (name, _) = file::control(&style(true), &packed).unwrap();
        assert_eq!(name, "buyers/S3_423_12_crm_iter_1795500000123-3.info");
    }

    #[test]
    fn a_control_file_is_written_last_and_made_up_for_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let connector = FileConnector::new(folder.path().to_owned(), style(false));
        let encoded = connector.encode(&batch(vec![identifier("crm_id", "u-17")], Vec::new()), "");
        assert_eq!(connector.deliver(&encoded, 0), Verdict::Accepted);
        assert!(connector.delivered(&encoded));
        let control = folder.path().join("buyers/S3_423_12_crm_iter_1795500000123-3.info");
        let before = std::fs::read(&control).unwrap();
        std::fs::remove_file(&control).unwrap();
        assert!(!connector.delivered(&encoded), "what lacks it is not there");
        assert_eq!(connector.deliver(&encoded, 0), Verdict::Accepted);
        assert_eq!(std::fs::read(&control).unwrap(), before);
    }

    #[test]
    fn a_segment_without_a_number_goes_nowhere_and_says_so() {
        let mut other = batch(vec![identifier("crm_id", "u-17")], Vec::new());
        other.target.segment = "lapsed".into();
        let encoded = file::encode(&style(false), &other);
        assert_eq!((encoded.lines, encoded.body.len()), (0, 0));
        assert!(encoded.refused[0].why.contains("no number in `segments`"));
    }
}
