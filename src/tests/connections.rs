//! What goes wrong on the way to Redis, under whole servers: answers are lost, connections are cut or fall silent.

use std::time::Duration;
use std::time::Instant;

use crate::outages::Site;
use crate::proxy::Proxy;
use crate::redis_server;
use crate::redis_server::until;

const MODES: [&str; 2] = ["disk", "redis-everysec"];

/// A collector and a worker, each with a proxy between it and Redis.
struct Wired {
    collector: Proxy,
    worker: Proxy,
    site: Site,
    _redis: redis_server::Server,
}

impl Wired {
    fn new(durability: &str) -> Self {
        let redis = redis_server::Server::start(&[]);
        let (collector, worker) = (Proxy::before(redis.port), Proxy::before(redis.port));
        let urls = [&*collector.url(), &*worker.url()];
        let site = Site::by("redis", urls, durability, &[&[]; 2]);
        Self { collector, worker, site, _redis: redis }
    }

    fn each(&self, act: impl Fn(&Proxy)) {
        [&self.collector, &self.worker].into_iter().for_each(act);
    }
}

#[test]
fn answers_that_are_lost_and_connections_that_are_cut_lose_and_double_nothing() {
    for durability in MODES {
        let wired = Wired::new(durability);
        let site = &wired.site;
        site.during(|| {
            wired.collector.lose_one_in(3, &["_append", "_claim", "_beat"]);
            wired.worker.lose_one_in(3, &["_commit", "_claim", "_renew", "_acquire", "_release"]);
            let lost = || [&wired.collector, &wired.worker].map(Proxy::lost);
            until("answers are lost", || lost()[0] >= 40 && lost()[1] >= 20);
            wired.each(|proxy| proxy.lose_one_in(1, &[]));
        });
        site.all_count(&format!("{durability}: answers were lost"));
        site.during(|| {
            // Less than most appends and answers take together, so that they end in the middle of one.
            wired.each(|proxy| proxy.cut_after(Some(7_001)));
            let cut = || [&wired.collector, &wired.worker].map(Proxy::cut);
            until("connections are cut", || cut().into_iter().all(|cut| cut >= 60));
            wired.each(|proxy| proxy.cut_after(None));
        });
        site.all_count(&format!("{durability}: connections were cut"));
    }
}

#[test]
fn connections_that_fall_silent_are_given_up_within_ten_seconds() {
    for durability in MODES {
        let wired = Wired::new(durability);
        let site = &wired.site;
        // Nobody closes anything, as where a firewall has forgotten a connection.
        wired.each(|proxy| proxy.hold(false));
        let began = Instant::now();
        site.collector.until("events are acknowledged", || site.post());
        site.worker.until("the worker goes on", || {
            site.worker.metric("throng_lanes_held") == 4.0
                && site.worker.throng(&["eval", "did purchase"]).status.success()
        });
        site.all_count(&format!("{durability}: connections had fallen silent"));
        assert!(began.elapsed() < Duration::from_secs(10), "{durability}: {:?}", began.elapsed());

        // Nor does a new connection get an answer, for longer than leases last.
        wired.each(|proxy| proxy.hold(true));
        let mut began = Instant::now();
        std::thread::scope(|scope| {
            // From its own disk it answers at once; else when Redis has it.
            let posting = scope.spawn(|| site.post());
            std::thread::sleep(Duration::from_secs(6));
            assert_eq!(posting.is_finished(), durability == "disk", "{durability}");
            wired.each(Proxy::let_new_pass);
            began = Instant::now();
            assert!(posting.join().unwrap(), "{durability}");
        });
        site.all_count(&format!("{durability}: nothing had passed"));
        assert!(began.elapsed() < Duration::from_secs(10), "{durability}: {:?}", began.elapsed());
    }
}
