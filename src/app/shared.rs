//! One process of several that share a store on Redis.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;

use super::CLOCK_PATIENCE;
use super::base::Base;
use super::base::Ground;
use super::base::Stop;
use super::base::tell_clock;
use super::intake;
use super::intake::Intake;
use super::known::Known;
use super::known::ListedFile;
use super::reachable;
use crate::backup::Backups;
use crate::cluster::Beating;
use crate::cluster::House;
use crate::cluster::Inheriting;
use crate::cluster::Keeper;
use crate::cluster::Me;
use crate::cluster::Member;
use crate::cluster::Pace;
use crate::cluster::Parts;
use crate::cluster::Share;
use crate::cluster::Told;
use crate::collect;
use crate::config::Backend;
use crate::config::Config;
use crate::config::Durability;
use crate::console;
use crate::console::AuditKey;
use crate::console::Leader;
use crate::console::Peering;
use crate::ingest;
use crate::ingest::Lanes;
use crate::ingest::ship;
use crate::model::Millis;
use crate::model::hex;
use crate::model::time::SECOND;
use crate::net::Clock;
use crate::net::PeerSecret;
use crate::net::Peers;
use crate::net::SystemClock;
use crate::net::Workers;
use crate::segment::AskError;
use crate::segment::Finder;
use crate::segment::Gather;
use crate::segment::Holder;
use crate::segment::Local;
use crate::segment::OtherNode;
use crate::segment::Remote;
use crate::segment::Serve;
use crate::segment::Shards;
use crate::segment::Watermark;
use crate::store::StoreError;
use crate::store::audit::AuditLog as _;
use crate::store::chain;
use crate::store::health::Checkup;
use crate::store::nodes::Heard;
use crate::store::nodes::Nodes;
use crate::store::nodes::Role;
use crate::store::redis::AuditLog;
use crate::store::redis::Checkup as RedisCheckup;
use crate::store::redis::Claims;
use crate::store::redis::Keys;
use crate::store::redis::Ledger;
use crate::store::redis::Link;
use crate::store::redis::Lookups;
use crate::store::redis::Mode;
use crate::store::redis::Registry;
use crate::store::redis::Shelf as RedisShelf;
use crate::store::redis::Sizes;
use crate::store::redis::Store;
use crate::store::redis::Times;
use crate::store::shelf::Shelf;
use crate::transfer::RunningStore;

/// A node that was not heard of for so long is asked nothing, and its lanes are free to take once their leases end.
const HEARD: Millis = 3 * SECOND;
/// How long between two looks for a store that is out of reach.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a checkup waits for what it asks.
const GLANCE: Duration = Duration::from_secs(3);
/// The secret of the nodes on the shelf.
const SECRET: &str = "peer.secret";

/// This process among the nodes, once it is known where it listens.
type Cell = Arc<OnceLock<Arc<Member>>>;

/// Opens the store, and waits for it where it is out of reach.
pub(super) fn open(ground: Ground) -> anyhow::Result<Base> {
    let config = ground.config.clone();
    let link = Link::open_trusting(&config.store.url, &config.store.trust(), Times::default())?;
    let open =
        |link: &Link| Store::open(link.clone(), Keys::default(), config.shards(), config.lanes());
    let id = intake::node_id(&ground.data)?;
    let known = may_begin_alone(&ground).then(|| Known::read(&ground.data)).transpose()?.flatten();
    let nodes = |store: &Store| -> Arc<dyn Nodes> { Arc::new(Registry::new(store.clone())) };
    let alone = known.filter(|known| is_away(&config, known));
    let (store, known, last) = match &alone {
        Some(known) => {
            let Known { identity, layout, instance, .. } = known.clone();
            let store = Store::known(link.clone(), Keys::default(), identity, layout, instance);
            (store, known.clone(), Millis::MIN)
        }
        None => {
            let store = patient(&ground, || open(&link))?;
            tell_layout(&ground, &store);
            verify(&ground, &link)?;
            let before = patient(&ground, || nodes(&store).list())?;
            let before = before.nodes.iter().find(|heard| heard.node.id == id);
            let last = before.and_then(|heard| heard.node.mark).unwrap_or(Millis::MIN);
            let shelf = RedisShelf::new(store.clone());
            let known = Known {
                identity: store.identity(),
                layout: store.layout(),
                instance: store.instance().to_owned(),
                cookies: patient(&ground, || cookie_secret(&shelf))??,
                peers: patient(&ground, || peer_secret(&ground, &shelf))??,
            };
            known.write(&ground.data)?;
            (store, known, last)
        }
    };
    let layout = store.layout();
    let shelf: Arc<dyn Shelf> = Arc::new(RedisShelf::new(store.clone()));
    let nodes = nodes(&store);
    // Where the register answers it knows better: a node that was retired may begin anew by a clock that was set right.
    let marked = alone.is_some().then(|| ship::marked(&ground.data)).transpose()?.flatten();
    let last = last.max(marked.unwrap_or(Millis::MIN));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::after(last, CLOCK_PATIENCE));
    tell_clock(&*clock);
    let secret = match &ground.config.cluster.secret {
        Some(source) => PeerSecret::read(source).context("cluster.secret")?,
        None => PeerSecret::new(&known.peers).context("the secret of the nodes in the store")?,
    };
    let cookies = collect::Secret::new(known.cookies);
    let intake = Arc::new(Intake::open(&ground, &store, &id, clock.clone())?);

    let lanes = Arc::new(Lanes::new(layout.shards()));
    let local = Arc::new(Local::new(
        lanes.clone(),
        &config,
        ground.metrics.clone(),
        ground.workers.clone(),
        Some(&ground.data),
    ));
    let cell: Cell = Arc::default();
    let peers = Peers::new(secret.clone());
    let holders = Holders {
        me: id.clone(),
        cell: cell.clone(),
        lanes: lanes.clone(),
        local: local.clone(),
        peers: peers.clone(),
        count: layout.shards(),
        nonce: hex(&random()?),
        others: Mutex::default(),
    };
    let gather = Gather::new(layout, Box::new(move || holders.now()));
    let peering = Peering {
        secret,
        peers,
        serve: Arc::new(Serve::new(local.clone(), layout.shards())),
        nodes: nodes.clone(),
        lanes: layout.lanes(),
        leader: Box::new({
            let (cell, id) = (cell.clone(), id.clone());
            move || leader(&cell, &id)
        }),
    };
    let checkup = look_at(&config)?;
    let watermark =
        Nodewise { cell: cell.clone(), clock: clock.clone(), may_lead: ground.roles.may_lead() };
    let ledger = Arc::new(Ledger::new(store.clone()));
    let sizes = Arc::new(Sizes::new(store.clone()));
    let identity = store.identity();
    let finder = Finder {
        lookups: Arc::new(Lookups::new(store.clone())),
        whose: Box::new(move |identifier| ingest::whose(identity, identifier)),
    };
    let numbers = store.clone();
    let audit = Arc::new(AuditLog::new(store.clone()));
    let history = RedisShelf::history(store.clone());
    let privacy: Arc<dyn Shelf> = Arc::new(RedisShelf::privacy(store.clone()));
    let backups = Backups::new(RunningStore {
        store: store.clone(),
        member: cell.clone(),
        node: id.clone(),
        data: ground.data.clone(),
        archive: ground.archive.clone(),
        policy: ground.policy(),
        fold: ground.fold(),
        clock: clock.clone(),
        patience: RunningStore::PATIENCE,
        draining: ground.draining.clone(),
    });
    let start = Starting {
        me: id,
        nodes,
        store,
        cell,
        lanes: lanes.clone(),
        clock: clock.clone(),
        intake: intake.clone(),
        alone,
        ground,
    };
    Ok(Base {
        clock,
        count: layout.shards(),
        lanes,
        local,
        shards: Arc::new(gather),
        watermark: Arc::new(watermark),
        shelf: Some(shelf.clone()),
        audit_key: audit_key(shelf.clone(), audit.clone()),
        audit,
        finder,
        sizes,
        head: shelf,
        history: Arc::new(history),
        privacy,
        identity,
        reserve: Box::new(move |count| numbers.reserve_generations(count)),
        ledger,
        sink: intake.sink(),
        secret: cookies,
        backups,
        peering: Some(peering),
        checkup: Some(checkup),
        start: Box::new(move |console| start.run(console)),
    })
}

/// Tries until the store answers, or the process is to stop.
fn patient<T>(ground: &Ground, call: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let mut told = false;
    loop {
        match call() {
            Err(error) if error.is_retryable() => {
                if ground.draining.load(std::sync::atomic::Ordering::Acquire) {
                    return Err(error);
                }
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(error = %chain(&error), "waiting for the store");
                }
                std::thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}

/// Whether this node takes events while the store is out of reach, from its start on: it does nothing else, keeps them
/// on its disk, and the others wait for it.
fn may_begin_alone(ground: &Ground) -> bool {
    let on_disk =
        matches!(ground.config.journal.durability, Durability::Disk | Durability::DiskBuffered);
    on_disk
        && !ground.roles.has(Role::Work)
        && ground.roles.has(Role::Collect)
        && ListedFile::new(&ground.data).is_there()
}

/// Whether the store is out of reach now; asked once.
fn is_away(config: &Config, known: &Known) -> bool {
    let times = Times { patience: Duration::ZERO, ..Times::default() };
    let opened = Link::open_trusting(&config.store.url, &config.store.trust(), times)
        .and_then(|link| Store::open(link, Keys::default(), known.identity.shards, 1));
    match opened {
        Err(error) if error.is_retryable() => {
            tracing::warn!(
                error = %chain(&error),
                "the store is out of reach: events are taken meanwhile, and shipped when it is back"
            );
            true
        }
        // What is wrong with it is told by who opens it.
        _ => false,
    }
}

fn tell_layout(ground: &Ground, store: &Store) {
    let (asked, layout) = (&ground.config.store, store.layout());
    if asked.shards.is_some_and(|shards| shards != layout.shards()) {
        tracing::warn!("the store was made with {} shards, which stay", layout.shards());
    }
    if asked.lanes.is_some_and(|lanes| lanes != layout.lanes()) {
        tracing::warn!("the store was made with {} lanes, which stay", layout.lanes());
    }
}

/// What the servers have to keep.
fn promised(config: &Config) -> Mode {
    match config.journal.durability {
        // What is shipped is given up on the disk here, so a server has to keep it in any case.
        Durability::Disk | Durability::DiskBuffered => Mode::Everysec,
        Durability::Redis(mode) => mode,
    }
}

/// Looks at the servers that the settings name; `None` where they name none.
pub(crate) fn checkup(config: &Config) -> Option<Result<Arc<dyn Checkup>, StoreError>> {
    match config.store.backend {
        Backend::Embedded => None,
        Backend::Redis | Backend::RedisCluster => Some(look_at(config)),
    }
}

fn look_at(config: &Config) -> Result<Arc<dyn Checkup>, StoreError> {
    let times = Times { patience: GLANCE, ..Times::default() };
    let link = Link::open_trusting(&config.store.url, &config.store.trust(), times)?;
    Ok(Arc::new(RedisCheckup::new(link, promised(config))))
}

/// Whether the servers are set up to keep what the durability mode promises.
fn verify(ground: &Ground, link: &Link) -> anyhow::Result<()> {
    match promised(&ground.config).verify(link) {
        Ok(advice) if advice.is_empty() => Ok(()),
        Ok(advice) => anyhow::bail!(
            "Redis does not keep what journal.durability promises:\n  {}",
            advice.join("\n  ")
        ),
        Err(error) => {
            tracing::warn!(
                error = %chain(&error),
                "it cannot be verified that Redis keeps what journal.durability promises"
            );
            Ok(())
        }
    }
}

fn random() -> anyhow::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    Ok(bytes)
}

/// What the nodes show to each other, as the store holds it since its first node; nothing where the settings say it.
fn peer_secret(ground: &Ground, shelf: &dyn Shelf) -> Result<anyhow::Result<String>, StoreError> {
    if ground.config.cluster.secret.is_some() {
        return Ok(Ok(String::new()));
    }
    let fresh = match random() {
        Ok(fresh) => hex(&fresh),
        Err(error) => return Ok(Err(error)),
    };
    let stands = shelf.keep(SECRET, fresh.as_bytes())?;
    Ok(Ok(String::from_utf8_lossy(&stands).into_owned()))
}

/// The key of the audit log, as the store holds it since it was first asked for. A log with neither a record nor a seal
/// gets its first one: of several nodes that start at once none knows whether it is the one that made the key, and who
/// could remove both can read the key.
fn audit_key(shelf: Arc<dyn Shelf>, log: Arc<AuditLog>) -> AuditKey {
    Box::new(move || {
        let unavailable = |source: Box<dyn std::error::Error + Send + Sync>| {
            StoreError::Unavailable { what: "the key of the audit log".to_owned(), source }
        };
        let fresh = console::fresh_audit_key().map_err(|error| unavailable(error.into()))?;
        let stands = shelf.keep(console::AUDIT_KEY, &fresh)?;
        let key =
            stands.try_into().map_err(|_| unavailable("it is damaged in the store".into()))?;
        if log.last()?.is_none() && log.seal()?.is_none() {
            log.put_seal(&console::first_audit_seal(&key))?;
        }
        Ok(key)
    })
}

/// The secret of cookies, the same on every node.
fn cookie_secret(shelf: &dyn Shelf) -> Result<anyhow::Result<[u8; 32]>, StoreError> {
    let mut fresh = [0; 32];
    if getrandom::fill(&mut fresh).is_err() {
        return Ok(Err(anyhow::anyhow!("the system gives no random bytes")));
    }
    let stands = shelf.keep(collect::Secret::FILE, &fresh)?;
    let stands: Result<[u8; 32], _> = stands.try_into();
    Ok(stands.map_err(|_| anyhow::anyhow!("the secret of cookies in the store is damaged")))
}

/// The other nodes that were heard of lately.
fn heard_lately(member: &Member) -> Vec<Heard> {
    let listed = member.listed();
    let lately = |heard: &&Heard| listed.store_time.saturating_sub(heard.heard) <= HEARD;
    listed.nodes.iter().filter(lately).cloned().collect()
}

fn leader(cell: &Cell, me: &str) -> Leader {
    let Some(member) = cell.get() else { return Leader::Unknown };
    if member.is_leader() {
        return Leader::Here;
    }
    let Some((id, _)) = member.leader().filter(|(id, _)| id != me) else {
        return Leader::Unknown;
    };
    let listed = member.listed();
    let found = listed.nodes.iter().find(|heard| heard.node.id == id);
    match found.and_then(|heard| heard.node.address.clone()) {
        Some(address) => Leader::At(address),
        None => Leader::Unknown,
    }
}

/// T over all nodes, and whether this one publishes.
struct Nodewise {
    cell: Cell,
    clock: Arc<dyn Clock>,
    may_lead: bool,
}

impl Watermark for Nodewise {
    fn t(&self) -> Option<Millis> {
        let member = self.cell.get()?;
        let horizon = member.horizon();
        // Where no node holds anything back, all is appended that was acknowledged before any node's clock
        // showed what this one shows.
        horizon.t.or_else(|| Some(self.clock.now().saturating_sub(horizon.spread)))
    }

    fn appended(
        &self,
        still_wanted: &dyn Fn() -> Result<(), AskError>,
    ) -> Result<Millis, AskError> {
        let Some(member) = self.cell.get() else { return Err(AskError::Behind) };
        let asked = member.asked_now();
        match member.wait_until(asked, || still_wanted().is_ok()) {
            Ok(_) => Ok(asked),
            Err(crate::cluster::Behind::Unwanted) => Err(AskError::Cancelled),
            Err(late) => Err(AskError::Away(late.to_string())),
        }
    }

    fn leads(&self) -> bool {
        self.may_lead && self.cell.get().is_some_and(|member| member.is_leader())
    }
}

/// Who holds lanes.
struct Holders {
    me: String,
    cell: Cell,
    lanes: Arc<Lanes>,
    local: Arc<Local>,
    peers: Peers,
    /// How many shards the store has.
    count: u16,
    /// Tells this process from those before it.
    nonce: String,
    /// The other nodes, by address.
    others: Mutex<HashMap<String, Arc<dyn Shards>>>,
}

impl Holders {
    fn now(&self) -> Vec<Holder> {
        let here: Vec<u16> = self.lanes.held().keys().copied().collect();
        let mut holders = vec![Holder { lanes: here, shards: self.local.clone() }];
        let Some(member) = self.cell.get() else { return holders };
        let mut others = self.others.lock();
        for heard in heard_lately(member) {
            let node = heard.node;
            let Some(address) = node.address.filter(|_| node.id != self.me) else { continue };
            if node.lanes.is_empty() {
                continue;
            }
            let shards = others.entry(address.clone()).or_insert_with(|| {
                let peer = OtherNode::new(self.peers.clone(), address);
                Arc::new(Remote::new(Box::new(peer), self.count, self.nonce.clone()))
            });
            holders.push(Holder { lanes: node.lanes, shards: shards.clone() });
        }
        holders
    }
}

/// What is started once it is known where the private listener is.
struct Starting {
    me: String,
    nodes: Arc<dyn Nodes>,
    store: Store,
    cell: Cell,
    lanes: Arc<Lanes>,
    clock: Arc<dyn Clock>,
    intake: Arc<Intake>,
    /// What is known of a store that was out of reach.
    alone: Option<Known>,
    ground: Ground,
}

/// What is left to do once the store has answered.
struct Joining {
    beating: Arc<Mutex<Option<Beating>>>,
    member: Arc<Member>,
    cell: Cell,
    intake: Arc<Intake>,
    listed: ListedFile,
    workers: Workers,
}

impl Joining {
    /// Goes on as one of the nodes; it has beaten once.
    fn join(self) -> anyhow::Result<()> {
        self.listed.set(true).context("cannot write to the data directory")?;
        let _ = self.cell.set(self.member.clone());
        let beating = self.member.start(&self.workers).context("cannot start the beat")?;
        *self.beating.lock() = Some(beating);
        self.intake.start(&self.workers).context("cannot start shipping")
    }

    /// Waits for the store, and joins the others where it is the one that is known.
    fn join_when_there(self, ground: &Ground, known: &Known) {
        let joined = self.try_join(ground, known);
        if ground.draining.load(std::sync::atomic::Ordering::Acquire) {
            return;
        }
        if let Err(error) = joined {
            // As where it is found out at the start. What was taken stays on this disk.
            tracing::error!("stopping: {error:#}");
            std::process::exit(3);
        }
        tracing::info!("the store is there: shipping");
    }

    fn try_join(self, ground: &Ground, known: &Known) -> anyhow::Result<()> {
        let config = &ground.config;
        let link = Link::open_trusting(&config.store.url, &config.store.trust(), Times::default())?;
        let store = patient(ground, || {
            Store::open(link.clone(), Keys::default(), config.shards(), config.lanes())
        })?;
        if !known.is(&store) {
            anyhow::bail!(
                "{link} holds another store than the one that this node was on; set store.url to that, or start \
                 with another data directory: {} has events that are not shipped",
                ground.data.display()
            );
        }
        verify(ground, &link)?;
        patient(ground, || self.intake.clear())?;
        patient(ground, || self.member.beat())?;
        self.join()
    }
}

impl Starting {
    fn run(self, console: SocketAddr) -> anyhow::Result<Stop> {
        let Ground { config, metrics, workers, roles, .. } = &self.ground;
        let address = config.cluster.address.clone();
        let me = Me {
            id: self.me.clone(),
            roles: *roles,
            address: Some(address.unwrap_or_else(|| reachable(console).to_string())),
        };
        let (marking, lanes) = (self.intake.clone(), self.lanes.clone());
        let shipped = self.intake.clone();
        let listed = ListedFile::new(&self.ground.data);
        let leaving = listed.clone();
        let parts = Parts {
            nodes: self.nodes.clone(),
            clock: self.clock.clone(),
            metrics: metrics.clone(),
            pace: Pace::default(),
            tell: Box::new(move || Told {
                mark: marking.mark(),
                lanes: lanes.held().keys().copied().collect(),
            }),
            has_shipped: Box::new(move || shipped.has_shipped()),
            leaves: Box::new(move || leaving.set(false)),
        };
        let member = Member::new(me, parts);
        let leading = member.clone();
        let joining = Joining {
            beating: Arc::default(),
            member: member.clone(),
            cell: self.cell.clone(),
            intake: self.intake.clone(),
            listed,
            workers: workers.clone(),
        };
        let beating = joining.beating.clone();
        let keeper = match &self.alone {
            None => {
                patient(&self.ground, || self.intake.clear())?;
                patient(&self.ground, || member.beat())?;
                joining.join()?;
                roles.has(Role::Work).then(|| self.keep(member)).transpose()?
            }
            Some(known) => {
                let (known, ground) = (known.clone(), self.ground.clone());
                workers
                    .spawn("join", move || joining.join_when_there(&ground, &known))
                    .context("cannot wait for the store")?;
                None
            }
        };
        let (intake, heir) = (self.intake.clone(), self.intake.heir().clone());
        let inheriting = match roles.may_lead() {
            true => Some(Inheriting::start(leading, self.nodes.clone(), heir, workers)),
            false => None,
        };
        let inheriting = inheriting.transpose().context("cannot start the heir")?;
        Ok(Box::new(move || {
            drop(inheriting);
            if let Some(keeper) = keeper {
                keeper.stop();
            }
            intake.stop();
            drop(beating.lock().take());
        }))
    }

    /// Keeps this process's share of the lanes.
    fn keep(&self, member: Arc<Member>) -> anyhow::Result<Keeper> {
        let ground = &self.ground;
        let house = House {
            store: Arc::new(self.store.clone()),
            node: self.me.clone(),
            lanes: self.lanes.clone(),
            claims: Arc::new(Claims::new(self.store.clone())),
            archive: ground.archive.clone(),
            privacy: Arc::new(RedisShelf::privacy(self.store.clone())),
            policy: ground.policy(),
            options: ground.fold(),
            hold_fold: ground.config.ingest.hold_fold,
            clock: self.clock.clone(),
            metrics: ground.metrics.clone(),
            workers: ground.workers.clone(),
        };
        let me = self.me.clone();
        let share = move || {
            let others = heard_lately(&member).into_iter().map(|heard| heard.node);
            let others: Vec<_> = others.filter(|node| node.id != me).collect();
            let workers = others.iter().filter(|node| node.roles.has(Role::Work)).count();
            let taken = others.into_iter().flat_map(|node| node.lanes).collect();
            Share { workers: workers + 1, taken }
        };
        Keeper::start(house, share).context("cannot keep lanes")
    }
}
