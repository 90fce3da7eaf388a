//! Match tables from outside: partners' ids come, are replaced and expire, and destinations follow, on either store.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

use super::browser::Browser;
use super::browser::Site;
use super::clocks::Clock;
use super::consent::ALL;
use super::consent::DESTINATION;
use super::consent::NONE;
use super::harness::Answer;
use super::harness::Server;
use super::harness::get;
use super::redis_server;
use super::standins::Reply;
use super::standins::Request;
use super::standins::Service;
use super::standins::StandIn;
use std::sync::Arc;
use std::sync::Mutex;

const SEGMENT: &str = "rule = 'did page_view in 80d'\nmin_size = 1\n\
                       [[activate]]\ndestination = \"files\"\n";
const PARTNERS: &str = "[[partner]]\nname = \"xandr\"\nkind = \"xandr\"\nhere = \"https://t.shop.example\"\n\
    [[partner]]\nname = \"dsp\"\nurl = \"https://dsp.example/?id={id}\"\nttl = \"15d\"\n\
    [[site]]\nkey = \"shop\"\nconsent = \"opt_in\"\ntcf_vendor = 7\norigins = [\"https://shop.example\"]\n";

/// A server whose clock the test sets, and what its destination holds.
struct World {
    server: Server,
    clock: Clock,
    pair: String,
}

impl World {
    fn new(store: &str) -> Self {
        let clock = Clock::new();
        let settings = format!("{store}{PARTNERS}");
        let mut server =
            Server::start_in(&[("readers", SEGMENT)], &settings, &[], &clock.environment());
        assert!(server.stop());
        fs::write(server.folder().join("destinations.toml"), DESTINATION).unwrap();
        server.run();
        let mut world = Self { server, clock, pair: String::new() };
        let answer = world.call(&format!("/pixel.gif?{}", said(ALL)));
        let header = answer.headers["set-cookie"].to_str().unwrap();
        world.pair = header.split(';').next().unwrap().to_owned();
        world
    }

    fn call(&self, path: &str) -> Answer {
        let url = format!("{}{path}", self.server.collect());
        let answer = get(&url, &[("Cookie", &self.pair)]);
        assert!([200, 302].contains(&answer.status), "{answer:?}");
        answer
    }

    fn matched(&self, partner: &str, id: &str) {
        self.call(&format!("/match/{partner}?{}&uid={id}", said(ALL)));
    }

    /// What the destination holds beside the cookie comes to be this.
    #[track_caller]
    fn comes_to_hold(&self, expected: &[(&str, &str)]) {
        let expected: BTreeSet<_> =
            expected.iter().map(|(space, id)| ((*space).to_owned(), (*id).to_owned())).collect();
        let mut held = BTreeSet::new();
        self.server.until(&format!("the destination holds {expected:?}"), || {
            let _ = self.server.throng(&["destination", "push", "files"]);
            held = super::push::held(&self.server.folder().join("pushed/readers"));
            let cookies = held.iter().filter(|(space, _)| space == "cookie").count();
            let others: BTreeSet<_> = held.iter().filter(|(space, _)| space != "cookie").collect();
            cookies == 1 && others == expected.iter().collect()
        });
    }

    fn partner(&self, name: &str) -> Value {
        let listed: Value =
            serde_json::from_str(&self.server.ok(&["partner", "list", "--json"])).unwrap();
        let partners = listed["partners"].as_array().unwrap();
        partners.iter().find(|partner| partner["name"] == name).unwrap().clone()
    }
}

fn said(tcf: &str) -> String {
    format!("s=shop&gdpr=1&gdpr_consent={tcf}")
}

/// Ids come, take each other's place, and expire; then consent is taken back.
fn live(mut world: World) {
    world.comes_to_hold(&[]);
    for none in ["0", "", "%24UID", "%24%7BUID%7D", "%2525%2525TDID%2525%2525", "%5BUID%5D"] {
        world.matched("xandr", none);
    }
    let sent = world.call(&format!("/sync/xandr?{}", said(ALL)));
    assert!(sent.headers["location"].to_str().unwrap().starts_with("https://ib.adnxs.com/getuid?"));
    world.matched("xandr", "111");
    world.matched("dsp", "aaa");
    world.comes_to_hold(&[("xandr", "111"), ("dsp", "aaa")]);
    // The newest is the one that counts, and one that comes back takes its place again.
    world.clock.set("+1h");
    world.matched("xandr", "222");
    world.comes_to_hold(&[("xandr", "222"), ("dsp", "aaa")]);
    world.clock.set("+2h");
    world.matched("xandr", "111");
    world.comes_to_hold(&[("xandr", "111"), ("dsp", "aaa")]);
    assert_eq!(world.server.members("did page_view in 80d", "xandr"), ["111"]);
    let partner = world.partner("xandr");
    for (what, count) in
        [("asked", 1), ("matched", 3), ("no_match", 6), ("current", 1), ("expired", 0)]
    {
        assert_eq!(partner[what], count, "{what}: {partner}");
    }

    // It is kept, and so is since when.
    world.clock.set("+14d");
    world.server.kill();
    world.server.run();
    world.comes_to_hold(&[("xandr", "111"), ("dsp", "aaa")]);
    world.clock.set("+15.1d");
    world.comes_to_hold(&[("xandr", "111")]);
    assert_eq!(world.partner("dsp")["expired"], 1);
    // Matched anew it counts anew.
    world.matched("dsp", "aaa");
    world.comes_to_hold(&[("xandr", "111"), ("dsp", "aaa")]);
    world.clock.set("+29d");
    world.comes_to_hold(&[("xandr", "111"), ("dsp", "aaa")]);
    world.clock.set("+30.2d");
    world.comes_to_hold(&[]);
    assert_eq!(world.server.members("did page_view in 80d", "xandr"), [""; 0]);
    world.matched("xandr", "333");
    world.comes_to_hold(&[("xandr", "333")]);

    // Who takes consent back with a match is taken back everywhere.
    world.call(&format!("/match/xandr?{}&uid=444", said(NONE)));
    world.server.until("nobody is held", || {
        let _ = world.server.throng(&["destination", "push", "files"]);
        super::push::held(&world.server.folder().join("pushed/readers")).is_empty()
    });
    assert_eq!(world.partner("xandr")["refused"], 1);
}

#[test]
fn ids_of_partners_take_each_others_place_and_expire() {
    live(World::new(""));
}

#[test]
fn ids_of_partners_take_each_others_place_and_expire_on_redis() {
    let redis = redis_server::Server::start(&[]);
    let store =
        format!("[store]\nbackend = \"redis\"\nurl = \"{}\"\nshards = 4\nlanes = 2\n", redis.url());
    live(World::new(&store));
}

/// A partner that knows every browser, and sends it back with an id.
struct Partner {
    back: Mutex<String>,
    came: Mutex<Vec<String>>,
}

impl Service for Partner {
    fn answer(&self, request: &Request) -> Reply {
        let path = request.path.clone();
        let back =
            self.back.lock().unwrap().replace("NAME", path.split(['/', '?']).nth(1).unwrap());
        self.came.lock().unwrap().push(path);
        Reply::new(302, "").with("Location", &back)
    }
}

#[test]
fn the_tag_syncs_a_browser_that_is_known_once_a_page_and_once_in_a_while() {
    let partner = Arc::new(Partner { back: Mutex::default(), came: Mutex::default() });
    let made = super::certificates::Certificates::make();
    let door =
        StandIn::start(Arc::clone(&partner) as _, Some(super::webhook::tls(&made, "server")));
    let tables = ["p1", "p2", "p3"].map(|name| {
        let url = format!("https://{}/{name}?us={{id}}&tcf={{gdpr_consent}}", door.address);
        format!("[[partner]]\nname = \"{name}\"\nurl = \"{url}\"\n")
    });
    let site = "[[site]]\nkey = \"shop\"\nconsent = \"opt_in\"\ntcf_vendor = 7\norigins = [\"http://127.0.0.1:*\"]\n\
                partners = [\"p1\", \"p2\", \"p3\"]\nmax_syncs_per_page = 2\n";
    let server = Server::start_with(&[], &format!("{}{site}", tables.concat()), &[]);
    let back = format!("{}/match/NAME?{}&uid=id-of-NAME", server.collect(), said(ALL));
    *partner.back.lock().unwrap() = back;
    let page = format!(
        r#"<!doctype html><title>A page</title>
        <script>
          window.__tcfapi = (command, version, listen) => listen({{
            gdprApplies: true, tcString: "{ALL}", eventStatus: "tcloaded", purpose: {{ consents: {{ 1: true }} }},
          }}, true);
        </script>
        <script async src="{}/t.js" data-site="shop"></script>
        <script type="module">
          const rest = (time) => new Promise((done) => setTimeout(done, time));
          const ended = (part) => performance.getEntriesByType("resource").filter((one) => one.name.includes(part)).length;
          const until = async (isSo) => {{ for (let turn = 0; turn < 200 && !isSo(); turn++) await rest(50); }};
          const visit = Number(sessionStorage.visit || 0) + 1;
          sessionStorage.visit = visit;
          await until(() => ended("/v1/events") > 0);
          throng("event", "early", {{ visit }});
          await until(() => ended("/v1/events") > 1);
          throng("event", "early", {{ visit }});
          await until(() => ended("/v1/events") > 2);
          await rest(1500);
          if (visit < 4) location.reload();
          else await fetch("/result", {{ method: "POST", body: JSON.stringify(visit) }});
        </script>"#,
        server.collect()
    );
    let site = Site::new(vec![("/", "text/html; charset=utf-8", page)]);
    let browser = Browser::open_with(site, &["--ignore-certificate-errors"]);
    assert_eq!(browser.result(), 4);
    // Two with the first page's second answer, which its cookie came with; the third with the next page, and none later.
    let came = partner.came.lock().unwrap().clone();
    let names: Vec<&str> = came.iter().map(|path| path.split(['/', '?']).nth(1).unwrap()).collect();
    assert_eq!(names, ["p1", "p2", "p3"]);
    let id = &server.members("did early in 1h", "cookie")[0];
    assert!(came.iter().all(|path| path.contains(id) && path.contains(ALL)), "{came:?}");
    for name in ["p1", "p2", "p3"] {
        assert_eq!(server.members("did early in 1h", name), [format!("id-of-{name}")]);
    }
    let listed = server.ok(&["partner", "list"]);
    assert!(listed.lines().filter(|line| line.contains("100 %")).count() == 3, "{listed}");
}
