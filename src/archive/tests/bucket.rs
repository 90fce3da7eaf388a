//! The archive in a bucket of a real server.

use std::path::Path;
use std::sync::LazyLock;

use super::*;
use crate::archive::Bucket;
use crate::archive::tests::object_store::ACCESS;
use crate::archive::tests::object_store::BUCKET;
use crate::archive::tests::object_store::ObjectStore;
use crate::archive::tests::object_store::SECRET;
use crate::config;
use crate::config::BucketUrl;
use crate::config::SecretSource;

/// One server for the tests that leave it alone, each with a prefix of its own.
static SHARED: LazyLock<ObjectStore> = LazyLock::new(ObjectStore::start);

/// What reaches a server with keys.
fn home(server: &ObjectStore, dir: &Path, place: &str, access: &str, secret: &str) -> Home {
    let key = |name: &str, key: &str| {
        let path = dir.join(name);
        fs::write(&path, key).unwrap();
        Some(SecretSource::File(path))
    };
    let settings = config::Archive {
        endpoint: Some(server.endpoint()),
        allow_private: Some(true),
        access_key: key("access", access),
        secret_key: key("secret", secret),
        ..config::Archive::default()
    };
    let url = BucketUrl::parse(Path::new(place)).unwrap();
    Home::Bucket(Arc::new(Bucket::new(&url, &settings, &dir.join("uploads")).unwrap()))
}

fn house_in(server: &ObjectStore, prefix: &str) -> House {
    let dir = tempfile::tempdir().unwrap();
    let home = home(server, dir.path(), &format!("s3://{BUCKET}/{prefix}"), ACCESS, SECRET);
    House::with(dir, home)
}

fn bucket(house: &House) -> &Bucket {
    let Home::Bucket(bucket) = &house.home else { panic!("it is in a bucket") };
    bucket
}

/// The names of all objects, but that which says whose they are.
fn names(house: &House) -> BTreeSet<String> {
    let names = bucket(house).list().unwrap().into_iter().map(|(name, _)| name);
    names.filter(|name| name != "throng-archive").collect()
}

fn counted(house: &House) -> BTreeSet<String> {
    house.catalog.files().iter().map(|row| row.file.to_string()).collect()
}

#[test]
fn events_come_back_exactly_from_a_bucket_and_what_does_not_count_goes() {
    let mut house = house_in(&SHARED, "exact/a=b");
    let events = odd_events();
    house.append_events(events.clone());
    house.archive();
    assert_eq!(house.all(), (0..).map(no).zip(events).collect::<Vec<_>>());
    assert_eq!(names(&house), counted(&house));
    let left = fs::read_dir(house.dir.path().join("uploads")).unwrap().count();
    assert_eq!(left, 0, "nothing stays on the own disk");
    // What was never committed, of these shards and of others.
    let file = house.dir.path().join("x");
    fs::write(&file, b"x").unwrap();
    let own = "day=2001-01-01/shard=03/1-2-00000000.parquet";
    let of_another = "day=2001-01-01/shard=04/1-2-00000000.parquet";
    for name in [own, of_another, "README"] {
        bucket(&house).put(&file, name).unwrap();
    }
    house.restart();
    assert!(names(&house).contains(own), "a start asks nothing of the bucket");
    house.archiver(1 << 20).step().unwrap();
    let expected: BTreeSet<String> =
        counted(&house).into_iter().chain([of_another.into(), "README".into()]).collect();
    assert_eq!(names(&house), expected);
}

#[test]
fn files_of_a_bucket_are_merged_pinned_and_dropped() {
    let house = house_in(&SHARED, "merged");
    let mut archiver = house.archiver(1 << 20);
    for i in 0..16 {
        house.append_events([event("a", NOW + i * 1009), event("a", NOW + i * 1009 + DAY)]);
        archiver.flush().unwrap();
    }
    assert_eq!(names(&house).len(), 32);
    let (before, (pin, ())) = (house.all(), house.catalog.pin(&*house.journal, |_| ()));
    while let Step::Merged { .. } = archiver.step().unwrap() {}
    assert_eq!((house.all(), counted(&house).len()), (before, 2));
    assert_eq!(names(&house).len(), 34, "a pin holds the old ones");
    drop(pin);
    house.fold.first_day.store(day_of(NOW) + 1, Ordering::SeqCst);
    archiver.step().unwrap();
    assert_eq!(names(&house), counted(&house));
    assert_eq!(house.all().len(), 16);
}

#[test]
fn a_large_file_goes_in_parts_and_comes_back() {
    let house = house_in(&SHARED, "large");
    let path = house.dir.path().join("large");
    let mut bytes = vec![0; 40 << 20];
    let mut state = 1u32;
    for byte in &mut bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = state.to_be_bytes()[0];
    }
    fs::write(&path, &bytes).unwrap();
    let file = format!("day=2001-01-01/shard=09/1-2-{:08x}.parquet", crc32c::crc32c(&bytes));
    bucket(&house).put(&path, &file).unwrap();
    let row = crate::store::state::ManifestRow {
        file: file.into(),
        shard: 9,
        day: 0,
        from: Position(1),
        to: Position(2),
        rows: 1,
        bytes: bytes.len() as u64,
        names: None,
    };
    house.home.check(&row).unwrap();
    let back = house.dir.path().join("back");
    house.home.fetch(&row, &back).unwrap();
    assert!(fs::read(&back).unwrap() == bytes);
    let wrong = crate::store::state::ManifestRow { bytes: row.bytes - 1, ..row };
    assert!(matches!(house.home.check(&wrong), Err(ArchiveError::Damaged { .. })));
    let uploads = fs::read_dir(house.dir.path().join("uploads")).unwrap().count();
    assert_eq!(uploads, 0);
}

#[test]
fn what_is_wrong_with_a_bucket_is_said_and_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let there = format!("s3://{BUCKET}/wrong");
    for (place, access, secret, said) in [
        (
            &*there,
            ACCESS,
            "another-secret",
            "the store does not know these keys (SignatureDoesNotMatch)",
        ),
        (&*there, "nobody", SECRET, "the store does not know these keys (InvalidAccessKeyId)"),
        (
            "s3://another-bucket",
            ACCESS,
            SECRET,
            "there is no such bucket: make it, or correct the path",
        ),
    ] {
        let home = home(&SHARED, dir.path(), place, access, secret);
        let folder = tempfile::tempdir().unwrap();
        let house = House::with(folder, home);
        house.append_events([event("a", NOW)]);
        let error = house.archiver(1 << 20).flush().unwrap_err();
        let text = crate::store::chain(&error);
        assert!(text.contains(said) && text.contains(place), "{text}");
        assert!(!text.contains(secret) && !text.contains('\n'), "{text}");
        assert_eq!(house.catalog.reached(), ArchivePosition::default());
        assert!(house.home.try_out().unwrap_err().contains(said));
    }
}

#[test]
fn two_stores_do_not_share_a_prefix() {
    let (one, other) = (house_in(&SHARED, "shared"), house_in(&SHARED, "shared"));
    for house in [&one, &other] {
        house.append_events([event("a", NOW)]);
    }
    one.archive();
    let error = other.archiver(1 << 20).flush().unwrap_err().to_string();
    assert!(error.contains("another store") && error.contains("shared"), "{error}");
    assert_eq!(names(&one), counted(&one));
}

#[test]
fn a_server_that_is_killed_while_it_is_written_to_costs_no_event() {
    let server = ObjectStore::start();
    let mut house = house_in(&server, "");
    let mut events = Vec::new();
    let mut failures = 0;
    for round in 0..12 {
        let new: Vec<_> = (0..20).map(|i| event("a", NOW + round * 20 + i + i * DAY)).collect();
        house.append_events(new.clone());
        events.extend(new);
        if round % 4 == 3 {
            let (catalog, journal) = (house.catalog.clone(), house.journal.clone());
            // It dies at some point of the twenty puts.
            let pause = std::time::Duration::from_millis(u64::try_from(round).unwrap() * 2);
            let killed = std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(pause);
                    server.kill();
                });
                house.archiver(1 << 20).flush()
            });
            failures += usize::from(killed.is_err());
            drop((catalog, journal));
            server.restart();
            if round == 7 {
                house.restart();
            }
        }
        house.archive();
        assert_eq!(house.all(), (0..).map(no).zip(events.clone()).collect::<Vec<_>>());
    }
    assert!(failures > 0, "no kill came in time");
    house.restart();
    house.archiver(1 << 20).step().unwrap();
    assert_eq!(names(&house), counted(&house), "what the kills left behind is swept");
}
