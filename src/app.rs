//! Builds everything, in order, and stops it in the opposite one.

use anyhow::Context as _;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::UnboundedSender;

use crate::activate::LiveAudiences;
use crate::activate::Pusher;
use crate::archive;
use crate::archive::Archiver;
use crate::archive::Catalog;
use crate::backup;
use crate::backup::Backups;
use crate::collect;
use crate::config;
use crate::config::Config;
use crate::console;
use crate::ingest;
use crate::ingest::Engine;
use crate::ingest::Importer;
use crate::ingest::Lane;
use crate::ingest::Lanes;
use crate::metrics::Metrics;
use crate::net::Clock;
use crate::net::SystemClock;
use crate::net::Workers;
use crate::segment;
use crate::segment::Local;
use crate::segment::Segments;
use crate::store::embedded;
use crate::store::embedded::journal::EmbeddedJournal;
use crate::store::embedded::lock::DataLock;
use crate::store::journal::Journal;
use crate::store::journal::Sink;
use crate::store::ledger::Ledger;
use crate::store::state::State;

/// How long a stop waits for requests under way.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a start waits for a clock that is behind the last event.
const CLOCK_PATIENCE: Duration = Duration::from_secs(5);

/// How long an import's first question waits for the fold.
const IMPORT_PATIENCE: Duration = Duration::from_secs(600);

/// What a server runs on.
#[derive(Debug, Clone)]
pub struct Options {
    /// Settings.
    pub config: Config,
    /// The file of destinations; one that is not there names none.
    pub destinations: PathBuf,
    /// The data directory, made where it is not there.
    pub data: PathBuf,
    /// The folder of segment files.
    pub segments: PathBuf,
    /// Goes on over a damaged journal.
    pub salvage: bool,
}

/// A running server.
#[derive(Debug)]
pub struct App {
    collect: SocketAddr,
    console: SocketAddr,
    stop: UnboundedSender<()>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl App {
    /// Starts a server and returns when both listeners answer.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let (stop, stopped) = tokio::sync::mpsc::unbounded_channel();
        let (ready, started) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("throng".into())
            .spawn(move || {
                let system = actix_web::rt::System::new();
                system.block_on(serve(options, stopped, ready))
            })
            .context("cannot start a thread")?;
        match started.recv() {
            Ok((collect, console)) => Ok(Self { collect, console, stop, thread }),
            // The thread has ended, with the reason.
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error),
                _ => anyhow::bail!("the server ended while it started"),
            },
        }
    }

    /// The public listener's address.
    pub fn collect(&self) -> SocketAddr {
        self.collect
    }

    /// The private listener's address.
    pub fn console(&self) -> SocketAddr {
        self.console
    }

    /// Asks it to stop, as SIGTERM does.
    pub fn stop(&self) {
        // Where nobody listens it has stopped already.
        let _ = self.stop.send(());
    }

    /// Waits until it has stopped.
    pub fn join(self) -> anyhow::Result<()> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the server's thread panicked"))?
    }
}

/// Runs a server until it is asked to stop.
async fn serve(
    options: Options,
    mut stopped: UnboundedReceiver<()>,
    ready: mpsc::Sender<(SocketAddr, SocketAddr)>,
) -> anyhow::Result<()> {
    let data = options.data.as_path();
    if let Some(why) = backup::unfit(data) {
        anyhow::bail!(why);
    }
    let _lock = DataLock::take(data)?;
    let run_file = RunFile::new(data);
    let config = Arc::new(options.config);
    let destinations = if options.destinations.is_file() {
        config::read_destinations(&options.destinations)?
    } else {
        Vec::new()
    };
    let metrics = Metrics::new();
    let workers = Workers::new(metrics.clone());
    let state: Arc<dyn State> = Arc::new(embedded::State::open(data, config.shards())?);
    let loaded = state.load()?;
    let clock: Arc<dyn Clock> =
        Arc::new(SystemClock::after(loaded.checkpoint.received, CLOCK_PATIENCE));
    if clock.behind() > 0 {
        tracing::error!(
            "the system's clock is {} s behind the last event received: set it right; until it has come that far, times stand still",
            clock.behind().div_euclid(1_000)
        );
    }
    if let Some(asked) = config.store.shards
        && asked != loaded.identity.shards
    {
        tracing::warn!(
            "store.shards = {asked}, but {} was made with {}, which stay",
            data.display(),
            loaded.identity.shards
        );
    }
    let journal = open_journal(data, &config, options.salvage, loaded.checkpoint.position)?;
    let journal = Arc::new(journal);
    let sink: Arc<dyn Sink> = journal.clone();
    let journal: Arc<dyn Journal> = journal;
    let dedup_memory = usize::try_from(config.events.dedup_memory.0).unwrap_or(usize::MAX);
    let engine = Engine::open(
        state.clone(),
        journal.clone(),
        clock.clone(),
        Arc::new(metrics.clone()),
        ingest::Options {
            namespaces: config.namespace_order().namespaces(),
            ..ingest::Options::new(config.events.retention.0, dedup_memory)
        },
    )?;
    let (catalog, swept) = Catalog::open(
        &data.join("archive"),
        &(0..loaded.identity.shards).collect::<Vec<_>>(),
        state.clone(),
        loaded.manifest,
        loaded.archived,
    )?;
    if swept > 0 {
        tracing::info!("{swept} unfinished files of the archive were deleted");
    }
    let catalog = Arc::new(catalog);
    let shards = loaded.identity.shards;
    let lanes = Arc::new(Lanes::new(shards));
    lanes.insert(Arc::new(Lane {
        number: 0,
        shards: (0..shards).collect(),
        journal: journal.clone(),
        engine: engine.clone(),
        catalog: catalog.clone(),
    }));
    let local = Arc::new(Local::new(lanes.clone(), &config, metrics.clone(), workers.clone()));
    let numbers = state.clone();
    let parts = segment::Parts {
        config: config.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        shards: local.clone(),
        count: shards,
        watermark: Arc::new(segment::Alone(clock.clone())),
        shelf: None,
        reserve: Box::new(move |count| numbers.reserve_generations(count)),
    };
    let segments = Arc::new(
        Segments::open(parts, &options.segments, data)
            .with_context(|| format!("cannot use {}", data.join("segments").display()))?,
    );
    let ledger: Arc<dyn Ledger> =
        Arc::new(embedded::ledger::EmbeddedLedger::open(&data.join(embedded::LEDGER))?);
    let live = LiveAudiences::new(segments.clone(), shards, config.activate.min_size);
    let pusher = Arc::new(Pusher::new(
        destinations,
        ledger.clone(),
        Arc::new(live),
        clock.clone(),
        Arc::new(metrics.clone()),
    ));
    let countries = config
        .sites
        .iter()
        .filter_map(|site| Some((site.key.clone(), site.country.clone()?)))
        .collect();
    let imported = segments.clone();
    let importer = Arc::new(Importer::new(
        sink.clone(),
        Box::new(move |name| {
            imported.caught_up(IMPORT_PATIENCE).ok()?;
            Some(imported.import(name).ok()?.map_or(0, |progress| progress.taken))
        }),
        clock.clone(),
        metrics.clone(),
        config.namespace_order(),
        countries,
    ));

    let secret = collect::Secret::load_or_create(data)?;
    let (collect_server, collect) =
        collect::run(&config, sink, clock.clone(), metrics.clone(), secret)?;
    let draining = Arc::new(AtomicBool::new(false));
    let small = console::FILES.into_iter().chain([collect::Secret::FILE, segment::COPIES]);
    let backups = Backups::new(backup::Source {
        data: data.to_owned(),
        state,
        journal: journal.clone(),
        ledger,
        catalog: catalog.clone(),
        clock: clock.clone(),
        small: small.map(PathBuf::from).collect(),
        draining: draining.clone(),
    });
    let services = console::Services {
        config: config.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        journal: journal.clone(),
        lanes: lanes.clone(),
        backups: Some(backups),
        shelf: None,
        peering: None,
        importer,
        segments: segments.clone(),
        pusher: pusher.clone(),
        workers: workers.clone(),
        draining: draining.clone(),
    };
    let (console_server, console) = console::run(services, data)?;

    engine.hold(config.ingest.hold_fold);
    engine.start(&workers).context("cannot start the fold")?;
    let policy =
        archive::Policy { bytes: config.archive.file_size.0, age: config.archive.file_age.0 };
    let archiver =
        Archiver::new(catalog.clone(), journal.clone(), engine.clone(), clock.clone(), policy);
    let archiver = archive::Worker::start(archiver, Arc::new(metrics.clone()), &workers)
        .context("cannot start the archive")?;
    let refreshing = segments.clone();
    let refresher =
        workers.spawn("segments", move || refreshing.run()).context("cannot start the segments")?;
    let pushing = pusher.spawn(&workers).context("cannot start the pushes")?;

    let collect_handle = collect_server.handle();
    let console_handle = console_server.handle();
    let mut collect_task = actix_web::rt::spawn(collect_server);
    let mut console_task = actix_web::rt::spawn(console_server);
    // Before anybody can know that it runs: until then a signal ends it as it ends any process.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    run_file.write(collect, console)?;
    tracing::info!("collecting on http://{collect}, console on http://{console}");
    let _ = ready.send((collect, console));

    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = stopped.recv() => Ok(()),
        ended = &mut collect_task => flat(ended, "the public listener"),
        ended = &mut console_task => flat(ended, "the private listener"),
    };

    tracing::info!("stopping");
    draining.store(true, Ordering::Release);
    actix_web::rt::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!(
            "asked to stop again: stopping at once; the next start goes on from the journal"
        );
        std::process::exit(130);
    });
    let _ = tokio::time::timeout(DRAIN, collect_handle.stop(true)).await;
    let _ = tokio::time::timeout(DRAIN, console_handle.stop(true)).await;
    let stopping = actix_web::rt::task::spawn_blocking(move || {
        segments.stop();
        local.stop();
        drop(pushing);
        drop(archiver);
        // A panic of it was told when it happened.
        let _ = refresher.join();
        lanes.stop();
    });
    stopping.await.context("cannot stop")?;
    drop(run_file);
    ended
}

fn flat(
    ended: Result<std::io::Result<()>, actix_web::rt::task::JoinError>,
    what: &str,
) -> anyhow::Result<()> {
    match ended {
        Ok(Ok(())) => anyhow::bail!("{what} has ended"),
        Ok(Err(error)) => Err(error).with_context(|| format!("{what} has ended")),
        Err(error) => Err(error).with_context(|| format!("{what} has ended")),
    }
}

fn open_journal(
    data: &Path,
    config: &Config,
    salvage: bool,
    durable_to: crate::store::journal::Position,
) -> anyhow::Result<EmbeddedJournal> {
    let mut options = embedded::journal::Options::new(config.journal.durability);
    options.salvage = salvage;
    options.durable_to = durable_to;
    let (journal, recovery) = EmbeddedJournal::open(&data.join(embedded::JOURNAL), options)?;
    if let Some(cut) = &recovery.cut {
        tracing::info!(
            "the journal's torn tail was cut: {} bytes at {} that nobody was promised",
            cut.bytes,
            cut.at
        );
    }
    for damage in &recovery.skipped {
        tracing::warn!("skipped a damaged range of the journal: {damage}");
    }
    Ok(journal)
}

/// `<data>/run.json`, there while a server runs.
struct RunFile {
    path: PathBuf,
}

impl RunFile {
    /// Removes what a killed server left.
    fn new(data: &Path) -> Self {
        let path = data.join("run.json");
        let _ = fs::remove_file(&path);
        Self { path }
    }

    fn write(&self, collect: SocketAddr, console: SocketAddr) -> anyhow::Result<()> {
        let run = serde_json::json!({
            "collect": reachable(collect).to_string(),
            "console": reachable(console).to_string(),
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
        });
        let aside = self.path.with_extension("new");
        let mut file = fs::File::create(&aside)
            .with_context(|| format!("cannot write {}", aside.display()))?;
        file.write_all(run.to_string().as_bytes())?;
        drop(file);
        fs::rename(&aside, &self.path)?;
        Ok(())
    }
}

impl Drop for RunFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// An address that a client on this machine can reach: one that listens everywhere is reached on loopback.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
