//! What every backend of a port must do, run by the tests of each.

use super::StoreError;
use super::journal::EventNo;
use super::journal::Position;
use super::state::ArchiveCommit;
use super::state::ArchivePosition;
use super::state::Checkpoint;
use super::state::Commit;
use super::state::Counters;
use super::state::DEAD_LETTER_AGE;
use super::state::DeadLetter;
use super::state::Images;
use super::state::ImportProgress;
use super::state::ManifestRow;
use super::state::Part;
use super::state::PartKind;
use super::state::Piece;
use super::state::SeenChange;
use super::state::SeenRun;
use super::state::SeenSet;
use super::state::SkipChunk;
use super::state::State;
use super::state::TraitRow;
use crate::model::Namespace;
use crate::model::RejectedLine;

/// All contracts of [`State`]; `fresh` makes an empty store of 4 shards.
pub(crate) fn state(fresh: &mut dyn FnMut() -> Box<dyn State>) {
    a_new_store_is_empty_and_keeps_its_identity(&*fresh());
    a_commit_comes_back_once(&*fresh());
    images_take_the_place_of_deltas(&*fresh());
    days_and_traits_are_dropped_in_every_shard(&*fresh());
    seen_sets_move_from_chunks_to_runs(&*fresh());
    dead_letters_are_listed_dropped_and_age(&*fresh());
    imports_keep_their_rejected_lines(&*fresh());
    the_archive_commits_beside_the_fold(&*fresh());
    generations_are_given_once(&*fresh());
}

fn commit(number: u64) -> Commit {
    let checkpoint = Checkpoint {
        commit: number,
        position: Position(number * 100),
        next_record: number * 10,
        received: 1_000,
        first_day: -3,
        counters: Counters { counted: number, ..Counters::default() },
    };
    Commit { checkpoint, ..Commit::default() }
}

fn part(block: u16, kind: PartKind) -> Part {
    Part { block, kind }
}

fn column(block: u16, id: u32, day: i64) -> Part {
    part(block, PartKind::Column { id, day })
}

fn pieces(state: &dyn State, shard: u16) -> Vec<(Option<Part>, u64, Vec<u8>)> {
    let mut found = Vec::new();
    let take = &mut |piece: Piece<'_>| {
        found.push(match piece {
            Piece::Image(part, bytes) => (Some(part), 0, bytes.to_vec()),
            Piece::Delta(commit, bytes) => (None, commit, bytes.to_vec()),
        });
        Ok(())
    };
    state.load_shard(shard, take).unwrap();
    found
}

fn a_new_store_is_empty_and_keeps_its_identity(state: &dyn State) {
    let loaded = state.load().unwrap();
    assert_eq!(loaded.identity.shards, 4);
    assert_eq!(loaded.checkpoint, Checkpoint::default());
    assert_eq!(loaded.next_trait, 1);
    assert_eq!(state.load().unwrap().identity, loaded.identity);
    assert!(pieces(state, 0).is_empty());
}

fn a_commit_comes_back_once(state: &dyn State) {
    let namespace = Namespace::new("cookie").unwrap();
    let row = TraitRow { id: 7, text: "did x".into(), whole: true, imaged: 3, unasked: Some(-5) };
    let skips = SkipChunk { first: 4, last: 9, bytes: vec![1] };
    let first = Commit {
        deltas: vec![(0, b"one".to_vec()), (3, b"two".to_vec())],
        namespaces: vec![(0, namespace.clone())],
        skips: Some(skips.clone()),
        traits: vec![row.clone()],
        schema: vec![("buy".into(), vec![5])],
        ..commit(1)
    };
    state.commit(&first).unwrap();
    // A commit whose answer was lost is done again.
    state.commit(&first).unwrap();
    state.commit(&Commit { deltas: vec![(0, b"three".to_vec())], ..commit(2) }).unwrap();
    let loaded = state.load().unwrap();
    assert_eq!(loaded.checkpoint, commit(2).checkpoint);
    assert_eq!(loaded.namespaces, [(0, namespace)]);
    assert_eq!(loaded.skips, [skips]);
    assert_eq!(loaded.traits, [row]);
    assert_eq!(loaded.next_trait, 8);
    assert_eq!(loaded.schema, [("buy".into(), vec![5])]);
    let shard = pieces(state, 0);
    assert_eq!(shard, [(None, 1, b"one".to_vec()), (None, 2, b"three".to_vec())]);
    let mut deltas = Vec::new();
    let take = &mut |commit, bytes: &[u8]| {
        deltas.push((commit, bytes.to_vec()));
        Ok(())
    };
    state.load_deltas(3, take).unwrap();
    assert_eq!(deltas, [(1, b"two".to_vec())]);
    let mut taken = 0;
    let give_up = &mut |_, _: &[u8]| {
        taken += 1;
        Err(StoreError::Malformed { what: String::new(), hint: String::new(), source: None })
    };
    assert!(state.load_deltas(0, give_up).is_err());
    assert_eq!(taken, 1);
}

fn images_take_the_place_of_deltas(state: &dyn State) {
    for number in 1..=3 {
        state.commit(&Commit { deltas: vec![(1, vec![1; 10])], ..commit(number) }).unwrap();
    }
    let parts = vec![
        (part(0, PartKind::Owners), b"owners".to_vec()),
        (part(0, PartKind::Others), b"others".to_vec()),
        (part(0, PartKind::Profiles), b"profiles".to_vec()),
        (column(0, 5, -1), b"column".to_vec()),
    ];
    let images = Images { shard: 1, up_to: 2, parts: parts.clone() };
    assert_eq!(state.commit_images(&images).unwrap(), 26);
    let mut found = pieces(state, 1);
    assert_eq!(found.pop(), Some((None, 3, vec![1; 10])));
    let expected: Vec<_> = parts.into_iter().map(|(part, bytes)| (Some(part), 0, bytes)).collect();
    assert_eq!(found, expected);
    let parts = vec![
        (column(0, 5, -1), Vec::new()),
        (column(0, 5, 0), b"new".to_vec()),
        (part(0, PartKind::Owners), b"more owners".to_vec()),
    ];
    let images = Images { shard: 1, up_to: 3, parts };
    assert_eq!(state.commit_images(&images).unwrap(), 5 + 3 - 6);
    let found: Vec<_> = pieces(state, 1).into_iter().map(|(_, _, bytes)| bytes).collect();
    assert_eq!(found, [&b"more owners"[..], b"others", b"profiles", b"new"]);
    assert!(pieces(state, 0).is_empty() && pieces(state, 2).is_empty());
}

fn days_and_traits_are_dropped_in_every_shard(state: &dyn State) {
    let columns = [(1, -5), (1, 7), (2, -5), (2, 6), (2, 7)];
    let mut images = Vec::new();
    for shard in 0..4 {
        images.extend(columns.map(|(id, day)| (shard, column(1, id, day), vec![1])));
        images.push((shard, part(1, PartKind::Profiles), vec![2]));
    }
    let row = |id| TraitRow { id, text: "did x".into(), whole: true, imaged: 0, unasked: None };
    state.commit(&Commit { images, traits: vec![row(1), row(2)], ..commit(1) }).unwrap();
    let dropping = Commit { dropped_traits: vec![1], drop_before: Some(7), ..commit(2) };
    state.commit(&dropping).unwrap();
    for shard in 0..4 {
        let parts: Vec<_> = pieces(state, shard).into_iter().map(|(part, ..)| part).collect();
        assert_eq!(parts, [Some(part(1, PartKind::Profiles)), Some(column(1, 2, 7))]);
    }
    let loaded = state.load().unwrap();
    assert_eq!(loaded.traits, [row(2)]);
    // A number is never given again, not even that of the latest trait.
    state.commit(&Commit { dropped_traits: vec![2], ..commit(3) }).unwrap();
    assert_eq!(state.load().unwrap().next_trait, 3);
}

fn seen_sets_move_from_chunks_to_runs(state: &dyn State) {
    let change = |set, chunk: &[u8]| SeenChange {
        set,
        chunk: Some(chunk.to_vec()),
        dropped_chunks: Vec::new(),
        run: None,
        dropped_runs: Vec::new(),
    };
    let load = |set| {
        let (mut chunks, mut runs) = (Vec::new(), Vec::new());
        let chunk = &mut |commit, bytes: &[u8]| {
            chunks.push((commit, bytes.to_vec()));
            Ok(())
        };
        let run = &mut |number, bytes: &[u8]| {
            runs.push((number, bytes.to_vec()));
            Ok(())
        };
        state.load_seen(set, chunk, run).unwrap();
        (chunks, runs)
    };
    let seen = vec![change(SeenSet::Recent, b"a"), change(SeenSet::Imported, b"b")];
    state.commit(&Commit { seen, ..commit(1) }).unwrap();
    state.commit(&Commit { seen: vec![change(SeenSet::Recent, b"c")], ..commit(2) }).unwrap();
    let chunks = vec![(1, b"a".to_vec()), (2, b"c".to_vec())];
    assert_eq!(load(SeenSet::Recent), (chunks, Vec::new()));
    let pages = vec![b"p0".to_vec(), b"p1".to_vec()];
    let seen = vec![SeenChange {
        set: SeenSet::Recent,
        chunk: None,
        dropped_chunks: vec![1, 2],
        run: Some(SeenRun { number: 4, header: b"head".to_vec(), pages }),
        dropped_runs: Vec::new(),
    }];
    state.commit(&Commit { seen, ..commit(3) }).unwrap();
    assert_eq!(load(SeenSet::Recent), (Vec::new(), vec![(4, b"head".to_vec())]));
    assert_eq!(load(SeenSet::Imported), (vec![(1, b"b".to_vec())], Vec::new()));
    assert_eq!(state.seen_page(SeenSet::Recent, 4, 1).unwrap(), Some(b"p1".to_vec()));
    assert_eq!(state.seen_page(SeenSet::Recent, 4, 2).unwrap(), None);
    assert_eq!(state.seen_page(SeenSet::Imported, 4, 0).unwrap(), None);
    let seen = vec![SeenChange {
        set: SeenSet::Recent,
        chunk: None,
        dropped_chunks: Vec::new(),
        run: None,
        dropped_runs: vec![4],
    }];
    state.commit(&Commit { seen, ..commit(4) }).unwrap();
    assert_eq!(load(SeenSet::Recent), (Vec::new(), Vec::new()));
    assert_eq!(state.seen_page(SeenSet::Recent, 4, 0).unwrap(), None);
}

fn dead_letters_are_listed_dropped_and_age(state: &dyn State) {
    let letter = |record, part, time| DeadLetter {
        event: EventNo { record, part },
        time,
        reason: "no".into(),
        bytes: vec![1, 2, 3],
    };
    let letters = vec![letter(1, 0, 900), letter(1, u32::MAX, 900), letter(2, 0, 950)];
    state.commit(&Commit { dead_letters: letters.clone(), ..commit(1) }).unwrap();
    assert_eq!(state.dead_letters(None, 2).unwrap(), letters[..2]);
    assert_eq!(state.dead_letters(Some(letters[0].event), 9).unwrap(), letters[1..]);
    assert_eq!(state.dead_letters(Some(letters[1].event), 9).unwrap(), letters[2..]);
    assert_eq!(state.dead_letter(letters[2].event).unwrap().as_ref(), letters.get(2));
    let events = [letters[1].event, EventNo { record: 77, part: 0 }];
    assert_eq!(state.drop_dead_letters(&events).unwrap(), 1);
    assert_eq!(state.dead_letter(letters[1].event).unwrap(), None);
    let mut later = commit(2);
    later.checkpoint.received = 901 + DEAD_LETTER_AGE;
    state.commit(&later).unwrap();
    assert_eq!(state.dead_letters(None, 9).unwrap(), letters[2..]);
}

fn imports_keep_their_rejected_lines(state: &dyn State) {
    let line = |line| RejectedLine { line, code: "time".into(), message: "no".into() };
    let progress = |taken, rejected| ImportProgress {
        import: "file".into(),
        taken,
        counted: 3,
        duplicates: 1,
        rejected,
        erased: 2,
    };
    let rejected =
        vec![("file".into(), line(2)), ("file".into(), line(9)), ("other".into(), line(1))];
    state.commit(&Commit { imports: vec![progress(9, 2)], rejected, ..commit(1) }).unwrap();
    let rejected = vec![("file".into(), line(12))];
    state.commit(&Commit { imports: vec![progress(12, 3)], rejected, ..commit(2) }).unwrap();
    assert_eq!(state.load().unwrap().imports, [progress(12, 3)]);
    assert_eq!(state.rejected("file", 0, 2).unwrap(), [line(2), line(9)]);
    assert_eq!(state.rejected("file", 2, 9).unwrap(), [line(9), line(12)]);
    assert_eq!(state.rejected("file", u64::MAX, 9).unwrap(), []);
    assert_eq!(state.rejected("none", 0, 9).unwrap(), []);
}

fn the_archive_commits_beside_the_fold(state: &dyn State) {
    for (number, first, last) in [(1, 0, 5), (2, 6, 9), (3, 10, 30)] {
        let skips = SkipChunk { first, last, bytes: vec![] };
        state.commit(&Commit { skips: Some(skips), ..commit(number) }).unwrap();
    }
    let row = |file: &str| ManifestRow {
        file: file.into(),
        shard: 3,
        day: -1,
        from: Position(1),
        to: Position(2),
        rows: 4,
        bytes: 5,
        names: (file != "a").then_some([1, u64::MAX, 0, 7]),
    };
    let reached = ArchivePosition { position: Position(50), next_record: 10 };
    let added = vec![row("a"), row("b")];
    state.commit_archive(&ArchiveCommit { added, removed: Vec::new(), reached }).unwrap();
    let added = vec![row("c")];
    state.commit_archive(&ArchiveCommit { added, removed: vec!["a".into()], reached }).unwrap();
    let loaded = state.load().unwrap();
    assert_eq!(loaded.manifest, [row("b"), row("c")]);
    assert_eq!(loaded.archived, reached);
    assert_eq!(loaded.skips.iter().map(|chunk| chunk.first).collect::<Vec<_>>(), [10]);
    assert_eq!(loaded.checkpoint, commit(3).checkpoint);
}

fn generations_are_given_once(state: &dyn State) {
    let first = state.reserve_generations(10).unwrap();
    assert_eq!(state.reserve_generations(1).unwrap(), first + 10);
    assert_eq!(state.reserve_generations(1).unwrap(), first + 11);
}
