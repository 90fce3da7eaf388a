//! What has come and is not what was sent is noticed, told, and nothing that a server starts on.

use super::world::Home;
use super::world::Redis;
use super::world::moved;
use super::world::run;
use crate::store::redis::Store;
use crate::store::redis::tests::server::Server;
use crate::store::redis::tests::server::shared_server;
use crate::transfer::Report;

/// Moves, and does something to what has come before it is compared.
fn moved_and(home: &Home, redis: &Redis, harm: &mut dyn FnMut(&Server)) -> Report {
    let mut done = false;
    run(&home.there("data", redis), &mut |progress| {
        if progress.part == "compare" && !std::mem::replace(&mut done, true) {
            harm(shared_server());
        }
        true
    })
    .unwrap()
}

fn scan(server: &Server, pattern: &str) -> Vec<String> {
    let found = server.cli(&["--scan", "--pattern", pattern]);
    let mut keys: Vec<_> = found.lines().map(str::to_owned).collect();
    keys.sort();
    keys
}

fn fresh() -> (Home, Redis, String) {
    let [redis, _] = Redis::both();
    let prefix = format!("{:?}", redis.keys);
    let prefix = prefix.split('"').nth(1).unwrap().to_owned();
    (Home::new(7), redis, prefix)
}

#[test]
fn a_byte_that_has_changed_is_noticed_wherever_it_is() {
    let (home, redis, prefix) = fresh();
    // Some of what lies under names of its own: images, and rows of every kind.
    let (mut which, mut all) = (0, usize::MAX);
    while which < all {
        let report = moved_and(&home, &redis, &mut |server| {
            let keys = scan(server, &format!("{prefix}:*:c:*"));
            all = keys.len();
            let key = &keys[which];
            let length: u32 = server.cli(&["strlen", key]).trim().parse().unwrap();
            let at = (length / 2).to_string();
            let before = server.cli(&["getrange", key, &at, &at]);
            let new = if before.starts_with('~') { "!" } else { "~" };
            server.cli(&["setrange", key, &at, new]);
        });
        assert!(!report.is_same(), "{which} of {all}");
        let error = Store::open(redis.link(), redis.keys.clone(), 1, 1).unwrap_err();
        assert!(error.to_string().contains("half of a store"), "{error}");
        which += 3;
    }
    assert!(all > 15, "{all}");
    moved(&home.there("data", &redis));
}

#[test]
fn what_is_missing_or_too_much_is_told_by_what_it_is() {
    let (home, redis, prefix) = fresh();
    let one = |server: &Server, pattern: &str| {
        scan(server, &format!("{prefix}:{pattern}")).first().expect("there is one").clone()
    };
    type Harm<'a> = Box<dyn Fn(&Server) + 'a>;
    let harms: Vec<(&str, Harm<'_>)> = vec![
        (
            "held by ads",
            Box::new(|server| {
                let key = one(server, "{to.ads}:held:*");
                server.cli(&["zpopmin", &key]);
            }),
        ),
        (
            "held by crm",
            Box::new(|server| {
                let key = one(server, "{to.crm}:unsure:*");
                server.cli(&["spop", &key]);
            }),
        ),
        (
            "message ids of a day",
            Box::new(|server| {
                server.cli(&["del", &one(server, "*:m:*")]);
            }),
        ),
        (
            "message ids of imports",
            Box::new(|server| {
                server.cli(&["del", &one(server, "*:i:*")]);
            }),
        ),
        (
            "small values",
            Box::new(|server| {
                server.cli(&["hset", &one(server, "{store}:shelf"), "cookie.key", "another"]);
            }),
        ),
        (
            "events",
            Box::new(|server| {
                server.cli(&["hset", &one(server, "{01}:log"), "next", "1"]);
            }),
        ),
    ];
    for (what, harm) in harms {
        let report = moved_and(&home, &redis, &mut |server| harm(server));
        let wrong: Vec<&str> = report
            .compared
            .iter()
            .filter(|compared| !compared.same)
            .map(|compared| &*compared.what)
            .collect();
        assert_eq!(wrong, [what]);
    }
}
