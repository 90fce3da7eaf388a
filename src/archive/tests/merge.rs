//! Small files become large ones, and a scan passes over what holds nothing of what it is asked for.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::archive::Scanned;
use crate::archive::write::Files;
use crate::store::state::ManifestRow;

/// What a scan finds, and what it has done.
fn found(house: &House, files: &[ManifestRow], asked: &Scan<'_>) -> (Vec<Event>, Scanned) {
    let mut events = Vec::new();
    let scanned = scan(house.catalog.home(), files, asked, &mut |_, event| {
        events.push(event);
        ControlFlow::Continue(())
    });
    events.sort_by(|a, b| (&a.name, a.time).cmp(&(&b.name, b.time)));
    (events, scanned.unwrap())
}

#[test]
fn a_scan_passes_over_files_and_row_groups_that_hold_nothing_of_it() {
    let house = House::new();
    let mut batch = Batch::new();
    let mut all = Vec::new();
    for i in 0..40_000i64 {
        let name = match i % 1_000 {
            0 if i < 20_000 => "zeta",
            n if n % 2 == 0 => "add",
            n if n % 4 == 1 => "middle",
            _ => "view",
        };
        let mut event = event(name, NOW + i * 2_000);
        event.ids = vec![id("cookie", "same")];
        batch.push_event(&event).unwrap();
        all.push(event);
    }
    house.journal.append(&batch).unwrap();
    house.commit();
    house.archive();
    let files = house.catalog.files();
    assert_eq!(files.len(), 1);
    let unknown = [ManifestRow { names: None, ..files[0].clone() }];
    let (_, scanned) = found(&house, &files, &ALL);
    let groups = scanned.groups;
    assert!(groups >= 4 && scanned.groups_skipped == 0, "{scanned:?}");
    let asked = |names: &[&str], times: std::ops::RangeInclusive<Millis>| {
        let wanted = |name: &str| names.contains(&name);
        let asked = Scan { names: Some(names), times: times.clone(), wanted: &wanted, ..ALL };
        let mut expected: Vec<Event> = all
            .iter()
            .filter(|event| names.contains(&&*event.name) && times.contains(&event.time))
            .cloned()
            .collect();
        expected.sort_by(|a, b| (&a.name, a.time).cmp(&(&b.name, b.time)));
        [&files[..], &unknown].map(|files| {
            let (mut events, scanned) = found(&house, files, &asked);
            events.retain(|event| times.contains(&event.time));
            assert!(events == expected, "{names:?} {times:?}");
            scanned
        })
    };
    let ever = Millis::MIN..=Millis::MAX;
    for names in [&["middle"][..], &["zeta"], &["add", "zeta"], &["view"]] {
        for scanned in asked(names, ever.clone()) {
            assert!(scanned.groups_skipped > 0, "{names:?}: {scanned:?}");
            assert_eq!((scanned.groups + scanned.groups_skipped, scanned.files), (groups, 1));
        }
    }
    // Of a name that is not there the manifest says so, or else the statistics: between others, and beyond.
    for name in ["buy", "purchase", "zzz", "", "lead"] {
        let [known, unknown] = asked(&[name], ever.clone());
        assert_eq!((known.files_skipped, known.files), (1, 0), "{name}");
        assert_eq!((unknown.files, unknown.groups_skipped), (1, groups), "{name}");
    }
    // And of a time: the last name came early.
    let late = NOW + 60_000_000..=NOW + 60_010_000;
    for scanned in asked(&["add", "middle", "view", "zeta"], late) {
        assert!(scanned.groups_skipped > 0, "{scanned:?}");
    }
    for scanned in asked(&["add"], NOW - DAY..=NOW - 1) {
        assert_eq!(scanned.groups, 0, "{scanned:?}");
    }
}

#[test]
fn a_merge_that_is_killed_at_any_step_loses_and_doubles_nothing() {
    let mut house = House::new();
    let mut events = Vec::new();
    for i in 0..12 {
        let mut new = vec![event(["a", "b"][i % 2], i64::try_from(i).unwrap()), event("c", 5)];
        new.iter_mut().for_each(|event| event.ids = vec![id("cookie", "same")]);
        house.append_events(new.clone());
        events.extend(new);
        house.archive();
    }
    let expected: Vec<_> = (0..).map(no).zip(events).collect();
    let home = house.catalog.home().clone();
    let before = house.files();
    assert_eq!(before.len(), 12);
    // The new file is written aside.
    fs::write(before[0].with_file_name("0-1.new"), b"half of it").unwrap();
    assert_eq!((house.restart(), house.all() == expected), (1, true));
    // It has its name, and does not count.
    let group = Group::find(&house.catalog, TODAY).unwrap();
    group.write(&home, &mut Files::new(&home), &Pace::hurried()).unwrap();
    drop(group);
    assert_eq!((house.restart(), house.all() == expected), (1, true));
    assert_eq!(house.files(), before);
    // It counts, and the old ones are not deleted.
    let group = Group::find(&house.catalog, TODAY).unwrap();
    let added = group.write(&home, &mut Files::new(&home), &Pace::hurried()).unwrap();
    assert!(house.catalog.replace(added, &group.rows).unwrap());
    drop(group);
    assert_eq!(house.all(), expected);
    assert!(before.iter().all(|path| path.exists()));
    assert_eq!((house.restart(), house.all() == expected), (12, true));
    assert_eq!(house.files().len(), 1);
    assert_eq!(house.archiver(1 << 20).step().unwrap(), Step::Idle);
}

#[test]
fn who_reads_while_files_are_merged_sees_each_event_once() {
    let house = House::new();
    let stop = AtomicBool::new(false);
    let reads = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !stop.load(Ordering::SeqCst) || reads < 3 {
                let (mut pin, end) =
                    house.catalog.pin(&*house.journal, |_| house.journal.next_record());
                let mut seen = Vec::new();
                scan(&pin.home, &*pin.files, &ALL, &mut |no, _| {
                    seen.push(no.record);
                    ControlFlow::Continue(())
                })
                .unwrap();
                while let Some(frame) = pin.tail.next().unwrap() {
                    seen.extend((frame.first..).take(frame.count as usize));
                }
                seen.sort_unstable();
                seen.truncate(usize::try_from(end).unwrap());
                assert!(seen.iter().copied().eq(0..end), "{end}: {seen:?}");
                reads += 1;
            }
            reads
        });
        let mut archiver = house.archiver(1 << 20);
        let mut merged = 0;
        for i in 0..60 {
            house.append_events([event("a", i % 3), event("b", NOW + i)]);
            archiver.flush().unwrap();
            while let Step::Merged { files } = archiver.step().unwrap() {
                merged += files;
            }
        }
        stop.store(true, Ordering::SeqCst);
        assert!(merged > 40, "{merged}");
        reader.join().unwrap()
    });
    assert!(reads >= 3);
}
