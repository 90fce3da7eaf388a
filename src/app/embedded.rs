//! One process with a data directory of its own.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use super::CLOCK_PATIENCE;
use super::base::Base;
use super::base::Ground;
use super::base::tell_clock;
use crate::archive;
use crate::archive::Archiver;
use crate::archive::Catalog;
use crate::backup;
use crate::backup::Backups;
use crate::collect;
use crate::console;
use crate::ingest::Engine;
use crate::ingest::Lane;
use crate::ingest::Lanes;
use crate::model::Identifier;
use crate::model::Millis;
use crate::net::Clock;
use crate::net::SystemClock;
use crate::segment;
use crate::segment::Finder;
use crate::segment::Local;
use crate::store::embedded;
use crate::store::embedded::journal::EmbeddedJournal;
use crate::store::journal::Position;
use crate::store::ledger::Ledger;
use crate::store::nodes::Roles;
use crate::store::shelf::Shelf;
use crate::store::state::State;

/// Opens the data directory.
pub(super) fn open(ground: &Ground) -> anyhow::Result<Base> {
    let Ground { config, data, metrics, workers, .. } = ground;
    if ground.roles != Roles::ALL {
        anyhow::bail!(
            "--role: the embedded store has one process; several share a store on Redis (store.backend = \"redis\")"
        );
    }
    let state: Arc<dyn State> = Arc::new(embedded::State::open(data, config.shards())?);
    let loaded = state.load()?;
    let head: Arc<dyn Shelf> = Arc::new(embedded::Shelf::open(data)?);
    // No generation is of an earlier time than one that was published before.
    let published = segment::published_for(&*head)?.unwrap_or(Millis::MIN);
    let last = loaded.checkpoint.received.max(published);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::after(last, CLOCK_PATIENCE));
    tell_clock(&*clock);
    if let Some(asked) = config.store.shards
        && asked != loaded.identity.shards
    {
        tracing::warn!(
            "store.shards = {asked}, but {} was made with {}, which stay",
            data.display(),
            loaded.identity.shards
        );
    }
    let privacy: Arc<dyn Shelf> = Arc::new(embedded::Shelf::privacy(data)?);
    ground.suppression.load(&*privacy)?;
    let journal = open_journal(ground, embedded::JOURNAL, loaded.checkpoint.position, None)?;
    let engine = Engine::open(
        state.clone(),
        journal.clone(),
        clock.clone(),
        Arc::new(metrics.clone()),
        ground.fold(),
    )?;
    let count = loaded.identity.shards;
    let all: Vec<_> = (0..count).collect();
    let (catalog, swept) =
        Catalog::open(&ground.archive, &all, state.clone(), loaded.manifest, loaded.archived)?;
    if swept > 0 {
        tracing::info!("{swept} unfinished files of the archive were deleted");
    }
    let catalog = Arc::new(catalog);
    let audiences = Arc::new(embedded::Audiences::open(data)?);
    let asked = engine.clone();
    let whose = Box::new(move |identifier: &Identifier| asked.whose(identifier));
    let finder = Finder { lookups: audiences.clone(), whose };
    let lanes = Arc::new(Lanes::new(count));
    lanes.insert(Arc::new(Lane {
        number: 0,
        shards: all,
        journal: journal.clone(),
        engine: engine.clone(),
        catalog: catalog.clone(),
        audiences: audiences.clone(),
    }));
    let local = Arc::new(Local::new(
        lanes.clone(),
        config,
        metrics.clone(),
        workers.clone(),
        Some(&**data),
    ));
    let ledger: Arc<dyn Ledger> =
        Arc::new(embedded::ledger::EmbeddedLedger::open(&data.join(embedded::LEDGER))?);
    let secret = collect::Secret::load_or_create(data)?;
    let audit = Arc::new(embedded::AuditLog::open(data)?);
    let key = console::audit_key_of(data).context("the key of the audit log")?;
    let folders = [segment::COPIES, embedded::HISTORY, embedded::AUDIT, embedded::PRIVACY];
    let small = console::FILES
        .into_iter()
        .chain([collect::Secret::FILE, embedded::AUDIT_SEAL])
        .chain(folders);
    let backups = Backups::new(backup::Source {
        data: data.clone(),
        state: state.clone(),
        journal: journal.clone(),
        ledger: ledger.clone(),
        catalog: catalog.clone(),
        clock: clock.clone(),
        small: small.map(PathBuf::from).collect(),
        draining: ground.draining.clone(),
    });

    let (hold, policy) = (config.ingest.hold_fold, ground.policy());
    let archiver = Archiver::new(catalog, journal.clone(), engine.clone(), clock.clone(), policy);
    let (metrics, workers) = (metrics.clone(), workers.clone());
    let stopped = lanes.clone();
    let start = move |_| -> anyhow::Result<super::base::Stop> {
        engine.hold(hold);
        engine.start(&workers).context("cannot start the fold")?;
        let archiver = archive::Worker::start(archiver, Arc::new(metrics), &workers)
            .context("cannot start the archive")?;
        Ok(Box::new(move || {
            drop(archiver);
            stopped.stop();
        }))
    };
    Ok(Base {
        watermark: Arc::new(segment::Alone(clock.clone())),
        clock,
        count,
        lanes,
        shards: local.clone(),
        local,
        shelf: None,
        audit,
        audit_key: Box::new(move || Ok(key)),
        finder,
        sizes: Arc::new(embedded::Sizes::new(data.clone(), audiences)),
        head,
        history: Arc::new(embedded::Shelf::history(data)?),
        privacy,
        identity: loaded.identity,
        reserve: Box::new(move |count| state.reserve_generations(count)),
        ledger,
        sink: journal,
        secret,
        backups,
        peering: None,
        checkup: None,
        start: Box::new(start),
    })
}

/// Opens the journal of a data directory; what is before `durable_to` was committed.
pub(super) fn open_journal(
    ground: &Ground,
    folder: &str,
    durable_to: Position,
    segment_bytes: Option<u64>,
) -> anyhow::Result<Arc<EmbeddedJournal>> {
    let mut options = embedded::journal::Options::new(ground.config.journal.durability);
    options.segment_bytes = segment_bytes.unwrap_or(options.segment_bytes);
    options.salvage = ground.salvage;
    options.durable_to = durable_to;
    let (journal, recovery) = EmbeddedJournal::open(&ground.data.join(folder), options)?;
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
    Ok(Arc::new(journal))
}
