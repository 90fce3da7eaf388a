//! Typed settings: one struct a concern, every default in one place, all problems told at once.
//!
//! Values come from the file, then from `THRONG_…` variables, then from `--set`, the later over the
//! earlier. `config/throng.toml` states every default, and a test holds the two together.

mod address;
mod archive;
mod cluster;
mod destinations;
mod durability;
mod lookup;
mod partner;
mod places;
mod privacy;
mod read;
mod secret;
mod site;
mod tls;
mod units;
mod web_url;

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

pub use archive::{Archive, BucketUrl};
pub use cluster::Cluster;
pub use destinations::{
    AdobeStyle, Destination, DestinationKind, FileFormat, FileStyle, Gcs, Google, GoogleGrant,
    GoogleMembers, LiveRampStyle, Platform, S3, Sftp, Xandr, XandrFormat, read_destinations,
};
pub use durability::{Durability, RedisMode, UnknownDurability};
pub use lookup::Lookup;
pub use partner::{LIFETIME, MACROS, Partner, PartnerKind, lifetimes};
pub use privacy::Privacy;
pub use read::{ConfigError, Overrides, read};
pub use secret::{NoSource, SEALED, Sealed, SecretSource, Secrets};
pub use site::{ConsentRegime, OriginPattern, Site};
pub use tls::Tls;
pub use units::{ByteSize, InvalidUnit, Period};
pub use web_url::{NoWebUrl, WebUrl};

use crate::model::Namespace;
use crate::model::NamespaceOrder;
use crate::model::time::DAY;
use crate::model::time::HOUR;
use crate::model::time::SECOND;

const MIB: u64 = 1 << 20;
/// More are a slip of the pen.
const MOST_THREADS: usize = 1024;

/// All settings of one process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The public listener.
    pub collect: Collect,
    /// The private listener.
    pub console: Console,
    /// Where state is kept.
    pub store: Store,
    /// How nodes of one store reach each other.
    pub cluster: Cluster,
    /// What secrets in the settings are encrypted with.
    pub secrets: Secrets,
    /// The journal.
    pub journal: Journal,
    /// What is kept of events.
    pub events: Events,
    /// Identifiers beyond those that are always known.
    pub identity: Identity,
    /// The fold.
    pub ingest: Ingest,
    /// How audiences are kept up to date.
    pub segments: Segments,
    /// What is kept for the rules of segments.
    pub traits: Traits,
    /// The archive of events.
    pub archive: Archive,
    /// Pushing audiences to destinations.
    pub activate: Activate,
    /// Telling pages and servers which audiences somebody is in.
    pub lookup: Lookup,
    /// Deletion requests of others.
    pub privacy: Privacy,
    /// The sites that may send events. A file with any replaces the built-in site `demo`.
    #[serde(rename = "site")]
    pub sites: Vec<Site>,
    /// The partners that cookies are synced with. Default none.
    #[serde(rename = "partner")]
    pub partners: Vec<Partner>,
}

/// The public listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Collect {
    /// Address and port; port 0 takes a free one. Default `0.0.0.0:8080`.
    #[serde(deserialize_with = "address::socket")]
    pub listen: SocketAddr,
    /// Worker threads; 0 means one a core. Default `0`.
    pub workers: usize,
    /// The certificate with which this process speaks TLS itself. Default none: plain HTTP, for a proxy that does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Addresses of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto`, or `Forwarded`, count. Default none.
    #[serde(deserialize_with = "address::list")]
    pub trusted_proxies: Vec<std::net::IpAddr>,
    /// The header in which a proxy tells the visitor's country, for events that state none.
    /// Default none.
    pub country_header: Option<String>,
    /// A further path that Snowplow's trackers post to, as their `postPath` says. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snowplow_path: Option<String>,
    /// Whether the cookie is partitioned by top-level site (CHIPS). Default `false`.
    pub cookie_partitioned: bool,
    /// Events a second that one address may send. Default `200`.
    pub rate_per_address: u32,
    /// Events that one address may send at once. Default `2000`.
    pub burst_per_address: u32,
    /// Events a second of one site, however many send them; not counted from loopback and trusted addresses. Default
    /// `20000`.
    pub rate_per_site: u32,
    /// Events of one site at once. Default `200000`.
    pub burst_per_site: u32,
    /// Events a second of one identifier; not counted from loopback and trusted addresses. Default `50`.
    pub rate_per_id: u32,
    /// Events of one identifier at once. One of which as many again are sent is set aside. Default `2000`.
    pub burst_per_id: u32,
    /// Connections that are open at once; further ones are closed. Default `20000`.
    pub connections: usize,
    /// Connections of one address, an IPv6 network /64 being one; none for loopback, proxies and trusted addresses.
    /// Default `1000`.
    pub connections_per_address: usize,
}

/// The private listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Console {
    /// Address and port; port 0 takes a free one. Default `127.0.0.1:8081`.
    #[serde(deserialize_with = "address::socket")]
    pub listen: SocketAddr,
    /// Allows an address beyond loopback without TLS. Default `false`.
    pub insecure: bool,
    /// The certificate with which this process speaks TLS itself. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// Where state is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Store {
    /// `embedded`, or `redis` or `redis-cluster`, which several processes share. Default `embedded`.
    pub backend: Backend,
    /// The Redis server, or the cluster's seeds separated by commas. Default `redis://127.0.0.1:6379`.
    pub url: String,
    /// Shards of a new store, 1 to 4096; an existing one keeps its number. Default 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<u16>,
    /// Lanes of a new store on Redis, 1 to as many as there are shards: each has a stream and an owner, so that no
    /// more nodes can share the work. An existing store keeps its number. Default 16, or the shards where they
    /// are fewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lanes: Option<u16>,
    /// The certificates (PEM) of those who may have signed that of a server, for `rediss://`. Default those that the
    /// system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The certificate (PEM) that is shown to servers which want one, and with `key` its private key. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// The private key (PEM) of `certificate`. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// Who is trusted with TLS, and what is shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// The certificates of those who may have signed; else those that the system trusts.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl Store {
    /// Who is trusted with TLS.
    pub fn trust(&self) -> Trust {
        Trust { ca: self.ca.clone(), own: self.certificate.clone().zip(self.key.clone()) }
    }

    /// Whether the servers are reached with TLS.
    fn has_tls(&self) -> bool {
        self.url.trim_start().starts_with("rediss://")
    }
}

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// One process, one locked data directory.
    Embedded,
    /// Many processes on one Redis server.
    Redis,
    /// Many processes on a Redis Cluster.
    RedisCluster,
}

/// The journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Journal {
    /// When an event counts as durable: `disk` after `fdatasync`, `disk-buffered` after `write`; on Redis, which
    /// both are shipped to, also after its answer: `redis-everysec`, `redis-always`, `redis-replicated(N)`.
    /// Default `disk`.
    pub durability: Durability,
    /// On Redis, how much may wait on this disk to be shipped before events are refused, 1MiB or more. Default
    /// `16GiB`.
    pub spool: ByteSize,
}

/// What is kept of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Events {
    /// How far back rules see, in whole days up to `36500d`. Default `90d`.
    pub retention: Period,
    /// Memory for the message ids of the last 24 hours, at least `1MiB`; older ones are looked up on disk.
    /// Default `256MiB`.
    pub dedup_memory: ByteSize,
}

/// Identifiers beyond those that are always known.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// Further namespaces, in the order in which one owns an event. Default none.
    pub namespaces: Vec<String>,
}

/// The fold.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ingest {
    /// Holds the fold back, so that collect can be measured alone. Default `false`.
    pub hold_fold: bool,
}

/// How audiences are kept up to date.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Segments {
    /// How often audiences are evaluated, `10ms` to `1h`; less often where it takes longer. Default `50ms`, on Redis
    /// `1s`.
    pub every: Option<Period>,
    /// Threads for evaluation; 0 means one a core. Default `0`.
    pub threads: usize,
    /// In which time all audiences are audited once, `1s` to `7d`. Default `1h`.
    pub audit: Period,
}

/// What is kept for the rules of segments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traits {
    /// For how long what only a deleted or changed rule asked is kept up to date, `0s` to `90d`, so that a rule that
    /// comes back is whole at once. Default `3d`.
    pub grace: Period,
}

/// Pushing audiences to destinations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Activate {
    /// Below this many members nothing is added to a destination. Default `100`.
    pub min_size: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            collect: Collect::default(),
            console: Console::default(),
            store: Store::default(),
            cluster: Cluster::default(),
            secrets: Secrets::default(),
            journal: Journal::default(),
            events: Events::default(),
            identity: Identity::default(),
            ingest: Ingest::default(),
            segments: Segments::default(),
            traits: Traits::default(),
            archive: Archive::default(),
            activate: Activate::default(),
            lookup: Lookup::default(),
            privacy: Privacy::default(),
            sites: vec![Site::demo()],
            partners: Vec::new(),
        }
    }
}

impl Default for Collect {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            workers: 0,
            tls: None,
            trusted_proxies: Vec::new(),
            country_header: None,
            snowplow_path: None,
            cookie_partitioned: false,
            rate_per_address: 200,
            burst_per_address: 2_000,
            rate_per_site: 20_000,
            burst_per_site: 200_000,
            rate_per_id: 50,
            burst_per_id: 2_000,
            connections: 20_000,
            connections_per_address: 1_000,
        }
    }
}

impl Default for Console {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8081)), insecure: false, tls: None }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            backend: Backend::Embedded,
            url: "redis://127.0.0.1:6379".into(),
            shards: None,
            lanes: None,
            ca: None,
            certificate: None,
            key: None,
        }
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self { durability: Durability::Disk, spool: ByteSize(16 << 30) }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self { retention: Period(90 * DAY), dedup_memory: ByteSize(256 << 20) }
    }
}

impl Default for Segments {
    fn default() -> Self {
        Self { every: None, threads: 0, audit: Period(HOUR) }
    }
}

impl Default for Traits {
    fn default() -> Self {
        Self { grace: Period(3 * DAY) }
    }
}

impl Default for Activate {
    fn default() -> Self {
        Self { min_size: 100 }
    }
}

impl Config {
    /// The number of shards of a new store.
    pub fn shards(&self) -> u16 {
        self.store.shards.unwrap_or(match self.store.backend {
            Backend::Embedded => 16,
            Backend::Redis | Backend::RedisCluster => 64,
        })
    }

    /// How often audiences are evaluated.
    pub fn evaluated_every(&self) -> Period {
        self.segments.every.unwrap_or(match self.store.backend {
            Backend::Embedded => Period(50),
            // Each generation is kept there before it is seen.
            Backend::Redis | Backend::RedisCluster => Period(SECOND),
        })
    }

    /// The number of lanes of a new store on Redis.
    pub fn lanes(&self) -> u16 {
        self.store.lanes.unwrap_or_else(|| self.shards().min(16))
    }

    /// The order of namespaces, with the configured ones.
    pub fn namespace_order(&self) -> NamespaceOrder {
        NamespaceOrder::new(
            self.identity.namespaces.iter().filter_map(|n| Namespace::new(n).ok()).collect(),
        )
    }

    /// Everything that is wrong with the values, each with its path.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(1..=4096).contains(&self.shards()) {
            problems.push("store.shards: expected 1 to 4096".to_owned());
        }
        let shards = self.shards();
        if self.store.lanes.is_some_and(|lanes| !(1..=shards).contains(&lanes)) {
            problems.push(format!("store.lanes: expected 1 to {shards}, the number of shards"));
        }
        if let Durability::Redis(mode) = self.journal.durability
            && self.store.backend == Backend::Embedded
        {
            problems.push(format!(
                "journal.durability: `{mode}` is for store.backend = \"redis\" or \"redis-cluster\"; an embedded \
                 store has `disk` and `disk-buffered`"
            ));
        }
        let store = &self.store;
        if store.certificate.is_some() != store.key.is_some() {
            let (there, missing) = match store.key {
                None => ("certificate", "key"),
                Some(_) => ("key", "certificate"),
            };
            problems.push(format!("store.{there}: expected store.{missing} with it"));
        }
        for (name, file) in
            [("ca", &store.ca), ("certificate", &store.certificate), ("key", &store.key)]
        {
            if file.is_some() && !store.has_tls() {
                problems.push(format!("store.{name}: it is for TLS: write rediss:// in store.url"));
            }
        }
        let mut within = |path: &str, fits: bool, expected: &str| {
            if !fits {
                problems.push(format!("{path}: expected {expected}"));
            }
        };
        let retention = self.events.retention.0;
        let whole_days = retention % DAY == 0 && (DAY..=36_500 * DAY).contains(&retention);
        within("events.retention", whole_days, "whole days, 1d to 36500d");
        within("events.dedup_memory", self.events.dedup_memory.0 >= MIB, "1MiB or more");
        within("journal.spool", self.journal.spool.0 >= MIB, "1MiB or more");
        let every = self.segments.every.is_none_or(|every| (10..=HOUR).contains(&every.0));
        within("segments.every", every, "10ms to 1h");
        let audit = self.segments.audit.0;
        within("segments.audit", (SECOND..=7 * DAY).contains(&audit), "1s to 7d");
        let grace = self.traits.grace.0;
        within("traits.grace", (0..=90 * DAY).contains(&grace), "0s to 90d");
        self.archive.see(&mut within);
        self.lookup.see(&mut within);
        within("collect.workers", self.collect.workers <= MOST_THREADS, "0 to 1024");
        within("segments.threads", self.segments.threads <= MOST_THREADS, "0 to 1024");
        within("collect.rate_per_address", self.collect.rate_per_address > 0, "1 or more");
        within("collect.burst_per_address", self.collect.burst_per_address > 0, "1 or more");
        within("collect.rate_per_site", self.collect.rate_per_site > 0, "1 or more");
        within("collect.burst_per_site", self.collect.burst_per_site > 0, "1 or more");
        within("collect.rate_per_id", self.collect.rate_per_id > 0, "1 or more");
        within("collect.burst_per_id", self.collect.burst_per_id > 0, "1 or more");
        let most = 1..=1_000_000;
        within("collect.connections", most.contains(&self.collect.connections), "1 to 1000000");
        let of_one = self.collect.connections_per_address;
        within("collect.connections_per_address", most.contains(&of_one), "1 to 1000000");
        if let Some(path) = &self.collect.snowplow_path {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
            let is_path = path.len() > 1 && path.starts_with('/') && path.bytes().all(fits);
            let expected = "a path such as \"/com.acme/track\"";
            within("collect.snowplow_path", is_path, expected);
        }
        let console = &self.console;
        if !console.listen.ip().is_loopback() && !console.insecure && console.tls.is_none() {
            problems.push(format!(
                "console.listen: {} is beyond loopback and there is no TLS; set console.tls, listen on \
                 127.0.0.1 behind a proxy, or set console.insecure = true",
                self.console.listen
            ));
        }
        if console.tls.is_some() && self.store.backend != Backend::Embedded {
            problems.push(
                "console.tls: nodes that share a store reach each other by plain HTTP; let a proxy speak TLS, \
                 and listen where only nodes come"
                    .to_owned(),
            );
        }
        for (at, namespace) in self.identity.namespaces.iter().enumerate() {
            if let Err(error) = Namespace::new(namespace) {
                problems.push(format!("identity.namespaces[{at}]: {error}"));
            }
        }
        site::problems(&self.sites, &self.partners, &mut problems);
        partner::problems(&self.partners, &mut problems);
        self.privacy.check(&mut problems);
        problems
    }
}

#[cfg(test)]
mod tests;
