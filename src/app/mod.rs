//! Builds everything, in order, and stops it in the opposite one.

mod base;
mod embedded;
mod intake;
mod known;
mod redirect;
mod renewal;
mod run_file;
mod shared;
mod sizes;
mod started;

use actix_web::dev::Server;
use anyhow::Context as _;
use std::net::SocketAddr;
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
use crate::archive::Home;
use crate::backup;
use crate::collect;
use crate::collect::Lookup;
use crate::config;
use crate::config::Backend;
use crate::config::Config;
use crate::console;
use crate::console::Audit;
use crate::console::Tokens;
use crate::ingest::Importer;
use crate::ingest::Quarantine;
use crate::metrics::Metrics;
use crate::net::Workers;
use crate::privacy;
use crate::privacy::Privacy;
use crate::privacy::ddrf::Ddrf;
use crate::segment;
use crate::segment::Segments;
use crate::store::embedded::lock::DataLock;
use crate::store::nodes::Role;
use crate::store::nodes::Roles;
use base::Base;
use base::Ground;
pub(crate) use redirect::Redirect;
pub(crate) use redirect::Waited;
use run_file::RunFile;
pub(crate) use run_file::reachable;
pub(crate) use shared::checkup;
use started::Started;

/// The folder of the data directory for files on their way to a bucket.
const UPLOADS: &str = "uploads";
/// The folder of the data directory for whole audiences on their way to a destination.
const SNAPSHOTS: &str = "snapshots";
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
    /// What the process does.
    pub roles: Roles,
    /// Goes on over a damaged journal.
    pub salvage: bool,
}

/// A running server.
#[derive(Debug)]
pub struct App {
    collect: Option<Endpoint>,
    console: Endpoint,
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

    /// The public listener's URL for clients on this machine, where there is one.
    pub fn collect(&self) -> Option<String> {
        self.collect.map(Endpoint::url)
    }

    /// The private listener's URL for clients on this machine.
    pub fn console(&self) -> String {
        self.console.url()
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

/// Where a listener listens, and how it is spoken to.
#[derive(Debug, Clone, Copy)]
struct Endpoint {
    at: SocketAddr,
    is_tls: bool,
}

impl Endpoint {
    fn scheme(self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    /// Its URL for clients on this machine.
    fn url(self) -> String {
        format!("{}://{}", self.scheme(), reachable(self.at))
    }
}

/// Runs a server until it is asked to stop.
async fn serve(
    options: Options,
    mut stopped: UnboundedReceiver<()>,
    ready: mpsc::Sender<(Option<Endpoint>, Endpoint)>,
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
    let settings = serde_json::to_vec(&(&*config, &destinations))?;
    let recipients = destinations.iter().filter_map(|destination| destination.tcf_vendor).collect();
    let metrics = Metrics::new();
    let workers = Workers::new(metrics.clone());
    let draining = Arc::new(AtomicBool::new(false));
    let at = config.archive.path.clone().unwrap_or_else(|| data.join("archive"));
    let archive = Home::new(&at, &config.archive, &data.join(UPLOADS))?;
    let ground = Ground {
        archive: archive.clone(),
        config: config.clone(),
        data: data.to_owned(),
        roles: options.roles,
        salvage: options.salvage,
        metrics: metrics.clone(),
        workers: workers.clone(),
        draining: draining.clone(),
        suppression: Arc::default(),
    };
    let suppression = ground.suppression.clone();
    let base = actix_web::rt::task::spawn_blocking(move || match ground.config.store.backend {
        Backend::Embedded => embedded::open(&ground),
        Backend::Redis | Backend::RedisCluster => shared::open(ground),
    });
    let base = base.await.context("cannot open the store")??;
    let Base { clock, local, lanes, ledger, sink, start, .. } = base;
    metrics.lanes.set(base.peering.as_ref().map_or(1, |peering| peering.lanes.into()));
    let parts = segment::Parts {
        config: config.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        shards: base.shards,
        count: base.count,
        watermark: base.watermark,
        shelf: base.shelf.clone(),
        finder: base.finder,
        head: base.head,
        history: base.history,
        reserve: base.reserve,
    };
    let segments = Arc::new(
        Segments::open(parts, &options.segments, data)
            .with_context(|| format!("cannot use {}", data.join("segments").display()))?,
    );
    let live = LiveAudiences::new(segments.clone(), base.count, config.activate.min_size);
    let pusher = Pusher::new(
        destinations,
        ledger.clone(),
        Arc::new(live),
        clock.clone(),
        Arc::new(metrics.clone()),
    );
    let pusher = Arc::new(pusher.spooling_in(data.join(SNAPSHOTS)));
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

    let quarantine = Arc::new(Quarantine::open(data).context("cannot use what was set aside")?);
    let audit = Arc::new(Audit::new(base.audit, clock.clone(), base.audit_key));
    let privacy = Privacy::new(privacy::Parts {
        shelf: base.privacy,
        suppression,
        identity: base.identity,
        lanes: lanes.clone(),
        lane_count: base.peering.as_ref().map_or(1, |peering| peering.lanes),
        segments: segments.clone(),
        sink: sink.clone(),
        ledger,
        pusher: pusher.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        quarantine: quarantine.clone(),
        retention: config.events.retention.0,
        is_shared: base.peering.is_some(),
    });
    let services = console::Services {
        quarantine: quarantine.clone(),
        config: config.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        sink: sink.clone(),
        lanes,
        backups: base.backups,
        shelf: base.shelf,
        peering: base.peering,
        checkup: base.checkup,
        sizes: base.sizes.clone(),
        roles: options.roles,
        data: data.to_owned(),
        archive,
        importer,
        segments: segments.clone(),
        pusher: pusher.clone(),
        privacy: privacy.clone(),
        workers: workers.clone(),
        audit: audit.clone(),
        draining: draining.clone(),
    };
    let metrics_of_store = metrics.clone();
    let tokens =
        Arc::new(Tokens::open(data, services.shelf.clone(), clock.clone()).context("the tokens")?);
    let collecting = match options.roles.has(Role::Collect) {
        true => {
            let tokens = tokens.clone();
            let lookup = Lookup {
                segments: segments.clone(),
                may_ask: Box::new(move |token| tokens.may_look_up(token)),
            };
            let deletion = Ddrf::new(&config.privacy)
                .map(|ddrf| collect::Deletion::new(services.privacy.clone(), ddrf));
            let own = (base.secret, Some(lookup), deletion, quarantine);
            Some(collect::run(&config, sink, clock, metrics, own, recipients)?)
        }
        false => None,
    };
    let started = Started { audit, data: data.to_owned(), settings };
    let (console_server, console, console_certificate) = console::run(services, tokens)?;
    let (collect_server, collect, collect_certificate) = match collecting {
        Some((server, address, certificate)) => (Some(server), Some(address), certificate),
        None => (None, None, None),
    };

    started.record(config.store.backend, console, &workers, &draining).await?;
    // What is acknowledged from here on holds others back until it is appended.
    let stop = actix_web::rt::task::spawn_blocking(move || start(console));
    let stop = stop.await.context("cannot start")??;
    let refreshing = segments.clone();
    let refresher =
        workers.spawn("segments", move || refreshing.run()).context("cannot start the segments")?;
    let keeping = segments.clone();
    workers.spawn("keeper", move || keeping.run_keeper()).context("cannot start the keeper")?;
    let auditing = local.clone();
    let auditor =
        workers.spawn("audit", move || auditing.audit()).context("cannot start the auditor")?;
    let (measured, drains) = (segments.clone(), draining.clone());
    let sizes = base.sizes;
    workers
        .spawn("sizes", move || sizes::run(&*sizes, &measured, &metrics_of_store, &drains))
        .context("cannot start measuring")?;
    let (looking, guards) = (privacy.clone(), workers.clone());
    let looked_after = workers
        .spawn("privacy", move || looking.run(&guards))
        .context("cannot start looking after erasures")?;
    let pushing = pusher.spawn(&workers).context("cannot start the pushes")?;

    let collect_handle = collect_server.as_ref().map(Server::handle);
    let console_handle = console_server.handle();
    let mut collect_task = actix_web::rt::spawn(async move {
        match collect_server {
            Some(server) => server.await,
            None => std::future::pending().await,
        }
    });
    let mut console_task = actix_web::rt::spawn(console_server);
    // Before anybody can know that it runs: until then a signal ends it as it ends any process.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let collect = collect.map(|at| Endpoint { at, is_tls: collect_certificate.is_some() });
    let console = Endpoint { at: console, is_tls: console_certificate.is_some() };
    let shown = collect_certificate.into_iter().chain(console_certificate).collect();
    renewal::start(shown, signal(SignalKind::hangup())?);
    run_file.write(collect, console)?;
    if let Some(collect) = collect {
        tracing::info!("collecting on {}://{}", collect.scheme(), collect.at);
    }
    tracing::info!("console on {}://{}", console.scheme(), console.at);
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
    if let Some(handle) = collect_handle {
        let _ = tokio::time::timeout(DRAIN, handle.stop(true)).await;
    }
    let _ = tokio::time::timeout(DRAIN, console_handle.stop(true)).await;
    let stopping = actix_web::rt::task::spawn_blocking(move || {
        privacy.stop();
        segments.stop();
        local.stop();
        drop(pushing);
        // A panic of it was told when it happened.
        let _ = refresher.join();
        let _ = auditor.join();
        let _ = looked_after.join();
        stop();
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
