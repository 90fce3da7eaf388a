use std::sync::Arc;

use super::*;
use crate::store::embedded::file::META;
use crate::store::embedded::state_tests::Fault;
use crate::store::embedded::state_tests::Faulty;
use crate::store::ledger::conformance;

#[test]
fn the_embedded_ledger_keeps_the_contract() {
    for contract in conformance::ALL {
        let ledger = Arc::new(EmbeddedLedger::in_memory());
        contract(&|| Arc::clone(&ledger) as Arc<dyn Ledger>);
    }
    for contract in conformance::ACROSS_PROCESSES {
        let folder = tempfile::tempdir().unwrap();
        contract(&|| Arc::new(EmbeddedLedger::open(&folder.path().join("ledger.redb")).unwrap()));
    }
}

#[test]
fn an_unknown_version_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    drop(EmbeddedLedger::open(&path).unwrap());
    {
        let database = redb::Database::create(&path).unwrap();
        let txn = database.begin_write().unwrap();
        txn.open_table(META).unwrap().insert("format", &b"throng-ledger-3"[..]).unwrap();
        txn.commit().unwrap();
    }
    let error = EmbeddedLedger::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Malformed { .. }));
    assert!(error.to_string().contains("everything is sent again"), "{error}");
}

#[test]
fn what_could_not_be_made_durable_is_not_tried_again_and_a_full_disk_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    let disk = Faulty::default();
    let ledger = EmbeddedLedger::open_with(&path, disk.access()).unwrap();
    let target = Target::new("crm", "buyers");
    let prepare = || ledger.prepare(&target, 1, 0, Changes::default(), 0);
    disk.is_full(true);
    assert!(matches!(prepare(), Err(StoreError::Full { .. })));
    disk.is_full(false);
    prepare().unwrap();
    assert_eq!(disk.ends(), 0);
    disk.has(Fault::SyncFails);
    prepare().unwrap_err();
    disk.has(None);
    prepare().unwrap_err();
    assert_eq!(disk.ends(), 1);
}

#[test]
fn a_file_that_is_no_ledger_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    std::fs::write(&path, "not a ledger at all".repeat(1_000)).unwrap();
    let error = EmbeddedLedger::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Malformed { .. }), "{error:?}");
}

#[test]
fn rows_read_back_as_written_and_damage_is_an_error() {
    let identifier =
        Identifier::new(crate::model::Namespace::new("user_id").unwrap(), "é 1").unwrap();
    let posted = Posted {
        order: 7,
        true_for: -5,
        prepared_at: 9,
        changes: Changes { adds: vec![identifier.clone()], removes: vec![identifier.clone(); 2] },
    };
    let bytes = posted.encode();
    assert_eq!(Posted::decode(&bytes), Ok(posted));
    for cut in 0..bytes.len() {
        assert!(Posted::decode(&bytes[..cut]).is_err());
    }
    let key = codec::held_key(3, &identifier);
    assert_eq!(codec::held_identifier(&key), Ok(identifier));
    assert!(codec::held_identifier(&key[..2]).is_err());
    let row = TargetRow { number: 1, generation: u64::MAX, seq: 300, held: 0 };
    assert_eq!(TargetRow::decode(&row.encode()), Ok(row));
}
