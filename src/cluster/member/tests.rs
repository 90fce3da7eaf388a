use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use super::*;
use crate::store::embedded::Registry;
use crate::store::nodes::Role;

const START: Millis = 1_000_000;
/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

#[derive(Default)]
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now(&self) -> Millis {
        START + self.0.load(Ordering::SeqCst)
    }
}

/// A register that is out of reach for so many calls.
struct Flaky {
    inner: Registry,
    fails: AtomicU32,
}

impl Flaky {
    fn reach(&self) -> Result<&Registry, StoreError> {
        let less = |left: u32| left.checked_sub(1);
        match self.fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(_) => {
                Err(StoreError::Unavailable { what: "the store".into(), source: "it is".into() })
            }
            Err(_) => Ok(&self.inner),
        }
    }
}

impl Nodes for Flaky {
    fn beat(&self, node: &Node, clock: Millis) -> Result<(), StoreError> {
        self.reach()?.beat(node, clock)
    }

    fn list(&self) -> Result<Listed, StoreError> {
        self.reach()?.list()
    }

    fn leave(&self, id: &str) -> Result<(), StoreError> {
        self.reach()?.leave(id)
    }

    fn retire(&self, id: &str) -> Result<bool, StoreError> {
        self.reach()?.retire(id)
    }

    fn strike(&self, id: &str, heard: Millis) -> Result<bool, StoreError> {
        self.reach()?.strike(id, heard)
    }

    fn lead(&self, id: &str, ttl: Duration) -> Result<Option<u64>, StoreError> {
        self.reach()?.lead(id, ttl)
    }

    fn leader(&self) -> Result<Option<(String, u64)>, StoreError> {
        self.reach()?.leader()
    }

    fn resign(&self, id: &str) -> Result<(), StoreError> {
        self.reach()?.resign(id)
    }
}

/// A store with its clock, and the members of it that a test makes.
struct World {
    clock: Arc<Hands>,
    nodes: Arc<Flaky>,
    metrics: Metrics,
    mark: Arc<AtomicI64>,
    shipped: Arc<AtomicBool>,
    pace: Pace,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(Hands::default());
        let inner = Registry::new(clock.clone());
        let pace = Pace { every: Duration::from_millis(1), lease: LONG, patience: LONG };
        Self {
            clock,
            nodes: Arc::new(Flaky { inner, fails: AtomicU32::new(0) }),
            metrics: Metrics::new(),
            mark: Arc::new(AtomicI64::new(START)),
            shipped: Arc::new(AtomicBool::new(true)),
            pace,
        }
    }

    fn member(&self, id: &str, roles: Roles) -> Arc<Member> {
        let (mark, shipped) = (self.mark.clone(), self.shipped.clone());
        let takes_events = roles.has(Role::Collect);
        let tell = move || Told {
            mark: takes_events.then(|| mark.load(Ordering::SeqCst)),
            lanes: vec![1, 2],
        };
        let parts = Parts {
            nodes: self.nodes.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            pace: self.pace,
            tell: Box::new(tell),
            has_shipped: Box::new(move || shipped.load(Ordering::SeqCst)),
            leaves: Box::new(|| Ok(())),
        };
        let address = Some("10.0.0.7:8081".to_owned());
        Member::new(Me { id: id.to_owned(), roles, address }, parts)
    }

    fn ids(&self) -> Vec<String> {
        let listed = self.nodes.inner.list().unwrap();
        listed.nodes.into_iter().map(|heard| heard.node.id).collect()
    }
}

fn only(role: Role) -> Roles {
    Roles::from_iter([role])
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "it never happened: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_member_is_known_while_it_beats_and_leaves_when_it_stops() {
    let world = World::new();
    let member = world.member("a", Roles::ALL);
    assert_eq!((member.listed().nodes.len(), member.leader(), member.term()), (0, None, None));
    let beating = member.start(&Workers::new(world.metrics.clone())).unwrap();
    until("it beats", || member.is_leader() && !member.listed().nodes.is_empty());
    let listed = member.listed();
    assert_eq!(listed.nodes[0].node.lanes, [1, 2]);
    assert_eq!(listed.nodes[0].node.version, env!("CARGO_PKG_VERSION"));
    until("it sees itself lead", || member.leader().map(|(_, term)| term) == member.term());
    world.mark.store(START + 70, Ordering::SeqCst);
    until("what it tells is known", || member.horizon().t == Some(START + 70));
    drop(beating);
    assert_eq!(world.ids(), Vec::<String>::new());
    assert_eq!(world.nodes.inner.leader().unwrap(), None);
    assert!(!member.is_leader());
    assert_eq!(world.metrics.cluster_leader.get(), 0);
    assert_eq!(world.metrics.cluster_beat_errors.get(), 0);
}

#[test]
fn a_member_with_something_left_to_ship_does_not_leave() {
    let world = World::new();
    world.shipped.store(false, Ordering::SeqCst);
    let member = world.member("a", Roles::ALL);
    member.beat().unwrap();
    drop(member.start(&Workers::new(world.metrics.clone())).unwrap());
    assert_eq!(world.ids(), ["a"]);
    assert_eq!(world.nodes.inner.leader().unwrap(), None);
}

#[test]
fn who_only_takes_events_does_not_lead_and_knows_who_does() {
    let world = World::new();
    let [collector, worker, console] =
        [(Role::Collect, "c"), (Role::Work, "w"), (Role::Console, "x")]
            .map(|(role, id)| world.member(id, only(role)));
    for _ in 0..2 {
        for member in [&collector, &worker, &console] {
            member.beat().unwrap();
        }
    }
    let term = worker.term().unwrap();
    assert_eq!((collector.term(), console.term()), (None, None));
    for member in [&collector, &worker, &console] {
        assert_eq!(member.leader(), Some(("w".to_owned(), term)));
        assert_eq!(member.listed().nodes.len(), 3);
        assert_eq!(member.horizon().t, Some(START));
    }
}

#[test]
fn a_store_out_of_reach_is_tried_again_and_counted() {
    let world = World::new();
    let member = world.member("a", Roles::ALL);
    member.beat().unwrap();
    // The first call of a beat fails, then one of each of the others.
    world.nodes.fails.store(4, Ordering::SeqCst);
    let beating = member.start(&Workers::new(world.metrics.clone())).unwrap();
    world.mark.store(START + 1, Ordering::SeqCst);
    until("it beats again", || member.horizon().t == Some(START + 1));
    assert_eq!(world.metrics.cluster_beat_errors.get(), 4);
    assert!(member.is_leader());
    // One that cannot say goodbye stops all the same.
    world.nodes.fails.store(u32::MAX, Ordering::SeqCst);
    drop(beating);
    assert_eq!(world.ids(), ["a"]);
}

#[test]
fn the_pause_after_a_failure_grows_to_a_second() {
    let mut world = World::new();
    world.pace.every = Duration::from_millis(100);
    let member = world.member("a", Roles::ALL);
    world.nodes.fails.store(6, Ordering::SeqCst);
    let mut pause = world.pace.every;
    let mut pauses = Vec::new();
    for _ in 0..7 {
        pause = member.step(pause);
        pauses.push(pause.as_millis());
    }
    assert_eq!(pauses, [200, 400, 800, 1_000, 1_000, 1_000, 100]);
}

#[test]
fn a_leader_that_cannot_renew_its_lease_leads_no_more() {
    let mut world = World::new();
    world.pace.lease = Duration::from_millis(20);
    let member = world.member("a", Roles::ALL);
    member.beat().unwrap();
    world.nodes.fails.store(u32::MAX, Ordering::SeqCst);
    // By its own clock, though the store's stands still.
    until("its lease is over", || !member.is_leader());
    assert!(world.nodes.inner.leader().unwrap().is_some());
}

#[test]
fn a_question_waits_until_everything_before_it_is_there() {
    let world = World::new();
    let member = world.member("a", Roles::ALL);
    member.beat().unwrap();
    assert_eq!(member.wait_until(START, || false), Ok(START));
    assert_eq!(member.wait_until(START + 5, || false), Err(Behind::Unwanted));
    std::thread::scope(|scope| {
        let (began, waiting) = std::sync::mpsc::channel();
        let asking = &member;
        let asked = scope.spawn(move || {
            // Asked only where T is not there yet.
            asking.wait_until(START + 5, || began.send(()).is_ok())
        });
        waiting.recv().unwrap();
        world.mark.store(START + 4, Ordering::SeqCst);
        member.beat().unwrap();
        assert!(!asked.is_finished());
        world.mark.store(START + 9, Ordering::SeqCst);
        member.beat().unwrap();
        assert_eq!(asked.join().unwrap(), Ok(START + 9));
    });
}

#[test]
fn a_question_does_not_wait_for_ever_and_says_for_whom_it_did() {
    let mut world = World::new();
    world.pace.patience = Duration::ZERO;
    let member = world.member("a", Roles::ALL);
    let unknown = member.wait_until(START, || true).unwrap_err();
    assert_eq!(unknown, Behind::Late { by: None, silent: vec![] });
    world.member("gone", only(Role::Collect)).beat().unwrap();
    world.clock.0.store(10_000, Ordering::SeqCst);
    world.mark.store(START + 10_000, Ordering::SeqCst);
    member.step(world.pace.every);
    let behind = member.wait_until(START + 10_000, || true).unwrap_err();
    assert_eq!(behind, Behind::Late { by: Some(10_000), silent: vec!["gone".to_owned()] });
    assert!(behind.to_string().ends_with("not heard of: gone"), "{behind}");
    let metrics = &world.metrics;
    assert_eq!((metrics.cluster_nodes.get(), metrics.cluster_nodes_silent.get()), (1, 1));
    assert!((metrics.cluster_t_age.get() - 10.0).abs() < 1e-9);
    assert_eq!(metrics.cluster_leader.get(), 1);
    // Struck off, it is not waited for.
    assert!(world.nodes.inner.retire("gone").unwrap());
    member.step(world.pace.every);
    assert_eq!(member.wait_until(START + 10_000, || true), Ok(START + 10_000));
    assert!((metrics.cluster_t_age.get()).abs() < 1e-9);
}

#[test]
fn where_nobody_takes_events_nothing_is_missing() {
    let world = World::new();
    let worker = world.member("w", only(Role::Work));
    worker.beat().unwrap();
    // The list is older than the question: somebody may have begun.
    assert_eq!(worker.wait_until(START, || false), Err(Behind::Unwanted));
    let beating = worker.start(&Workers::new(world.metrics.clone())).unwrap();
    assert_eq!(worker.wait_until(START + 3, || true), Ok(START + 3));
    drop(beating);
}
