//! Events are taken out of files for good, and who reads the old files reads them to the end.

use super::*;
use crate::archive::count;
use crate::archive::erase;

#[test]
fn who_is_erased_is_in_no_file_that_is_left_and_none_that_is_cut() {
    let house = House::new();
    let of = |who: &str, at: i64| Event { ids: vec![id("cookie", who)], ..event("view", NOW + at) };
    house.append_events(
        (0..30).map(|n| of(["ada", "bob", "carl"][usize::try_from(n).unwrap() % 3], n)),
    );
    house.archive();
    house.append_events([of("ada", 40)]);
    house.archive();
    let (pin, ()) = house.catalog.pin(&*house.journal, |_| ());
    let is_ada = |event: &Event| event.owner().value() == "ada";
    let goes_on = || true;
    assert_eq!(count(&house.catalog, &is_ada, &goes_on).unwrap(), Some(11));
    let swept = erase(&house.catalog, &is_ada, &goes_on).unwrap();
    assert_eq!((swept.events, house.all().len()), (11, 20));
    assert!(house.all().iter().all(|(_, event)| !is_ada(event)));
    assert_eq!(count(&house.catalog, &is_ada, &goes_on).unwrap(), Some(0));

    // What was pinned is there until it is read.
    let mut seen = 0;
    scan(&pin.home, &*pin.files, &ALL, &mut |_, _| {
        seen += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(seen, 31);
    assert!(!house.catalog.has_no_trash());
    drop(pin);
    assert!(house.catalog.has_no_trash());

    // What lies in the journal still does not come after it, and is cut at once where that is wanted.
    house.fold.erased.lock().insert(id("cookie", "ada"));
    house.append_events([of("ada", 50), of("bob", 51)]);
    let mut archiver = house.archiver(1 << 30);
    assert_eq!(archiver.step().unwrap(), Step::Idle);
    house.catalog.want(house.journal.end());
    assert_eq!(archiver.step().unwrap(), Step::Cut { rows: 1, files: 1 });
    assert_eq!(house.all().len(), 21);
}
