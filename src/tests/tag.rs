//! The browser tag in a real browser, with the consent interfaces that the IAB publishes, on pages of another origin
//! than the server's.

use serde_json::Value;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;

use super::browser::Browser;
use super::browser::Site;
use super::consent::ALL;
use super::consent::DESTINATION;
use super::consent::NONE;
use super::consent::SEGMENT;
use super::harness::Server;
use super::harness::send;
use super::standins::Fault;
use super::standins::Reply;
use super::standins::Request;
use super::standins::Service;
use super::standins::StandIn;

const SITES: &str = "[[site]]\nkey = \"shop\"\nconsent = \"opt_in\"\ntcf_vendor = 7\norigins = [\"http://127.0.0.1:*\"]\n\
    [[site]]\nkey = \"us\"\nconsent = \"opt_out\"\ntcf_vendor = 7\norigins = [\"http://127.0.0.1:*\"]\n";
/// What all pages have: what the documentation tells them to, and something to click.
const PAGE: &str = r#"<!doctype html><title>First</title>
CALLS
<script>
  const warnings = [];
  console.warn = (text) => warnings.push(text);
  // How many events were answered, of scripts that can read an answer.
  let answered = 0;
  const real = fetch;
  window.fetch = async (url, options) => {
    const answer = await real(url, options);
    if (url.endsWith("/v1/events")) answered += JSON.parse(options.body).length;
    return answer;
  };
</script>
BEFORE
TAG
<button data-throng-event="add_to_cart" data-throng-sku="A1" data-throng-product-id="7"><b>Add</b></button>
<script type="module">
  const rest = (time) => new Promise((done) => setTimeout(done, time));
  // How many requests have ended; beacons are among them.
  const ended = () => performance.getEntriesByType("resource").filter((entry) => entry.name.endsWith("/v1/events")).length;
  const until = async (isSo) => {
    for (let turn = 0; turn < 400 && !isSo(); turn++) await rest(50);
    if (!isSo()) throw new Error("not so within 20 s: " + isSo);
  };
  const click = () => document.querySelector("b").click();
  const say = (result) => fetch("/result", { method: "POST", body: JSON.stringify(result) });
  try { STEPS; await rest(300); await say({ warnings }); } catch (error) { await say({ error: String(error) }); }
</script>"#;
/// A page's platform of the IAB's, which has not decided yet.
const TCF: &str =
    "<script src=\"/tcf.js\"></script><script>const cmp = new CmpApi(31, 1);</script>";
const GPP: &str =
    "<script src=\"/gpp.js\"></script><script>const cmp = new CmpApi(31, 1);</script>";

/// What stands between the browser and the server: passes everything on, and remembers it.
struct Passage {
    server: String,
    came: Mutex<Vec<Request>>,
}

impl Service for Passage {
    fn answer(&self, request: &Request) -> Reply {
        self.came.lock().unwrap().push(request.clone());
        let url = format!("{}{}", self.server, request.path);
        let own = ["host", "connection", "content-length", "accept-encoding"];
        let headers = request.headers.iter().filter(|(name, _)| !own.contains(&&**name));
        let headers: Vec<_> = headers.map(|(name, value)| (&**name, &**value)).collect();
        let answer = send(&request.method, &url, &headers, request.body.clone());
        let mut reply = Reply::new(answer.status, answer.body);
        for name in [
            "content-type",
            "set-cookie",
            "access-control-allow-origin",
            "access-control-allow-credentials",
            "access-control-expose-headers",
            "retry-after",
        ] {
            for value in answer.headers.get_all(name) {
                reply = reply.with(name, value.to_str().unwrap());
            }
        }
        reply
    }
}

/// A server with the passage before it.
struct World {
    server: Server,
    passage: Arc<Passage>,
    door: StandIn,
}

impl World {
    fn new() -> Self {
        let mut server = Server::start_with(&[("readers", SEGMENT)], SITES, &[]);
        assert!(server.stop());
        fs::write(server.folder().join("destinations.toml"), DESTINATION).unwrap();
        server.run();
        let passage = Arc::new(Passage { server: server.collect(), came: Mutex::default() });
        let door = StandIn::start(Arc::clone(&passage) as _, None);
        Self { server, passage, door }
    }

    /// Opens a page of a site that does some steps, and returns what it warned of.
    fn visit(&self, site: &str, before: &str, steps: &str) -> Vec<String> {
        let [tag, calls] = documented();
        let tag = tag.replace("https://HOST", &format!("http://{}", self.door.address));
        let tag = tag.replace("KEY", site);
        let page = PAGE
            .replace("CALLS", &calls)
            .replace("TAG", &tag)
            .replace("BEFORE", before)
            .replace("STEPS", steps);
        let next = "<!doctype html><script>fetch('/result', { method: 'POST', body: '{\"warnings\":[]}' })</script>";
        let browser = Browser::open(Site::new(vec![
            ("/", "text/html", page),
            ("/next", "text/html", next.to_owned()),
            ("/tag", "text/html", tag),
            ("/tcf.js", "text/javascript", bundle("@iabtechlabtcf/cmpapi")),
            ("/gpp.js", "text/javascript", bundle("@iabgpp/cmpapi")),
            (
                "/stub.js",
                "text/javascript",
                super::browser::of_npm("npm/@iabtechlabtcf/stub/lib/stub.js"),
            ),
        ]));
        let result = browser.result();
        let warnings = result["warnings"].as_array().unwrap_or_else(|| panic!("{result}"));
        warnings.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    }

    /// The requests with events.
    fn requests(&self) -> Vec<Request> {
        let came = self.passage.came.lock().unwrap();
        came.iter().filter(|request| request.path == "/v1/events").cloned().collect()
    }

    /// What was sent, in its order.
    fn sent(&self) -> Vec<Value> {
        let bodies = self.requests().into_iter();
        bodies
            .flat_map(|request| serde_json::from_slice::<Vec<Value>>(&request.body).unwrap())
            .collect()
    }

    fn names(&self) -> Vec<String> {
        let name = |event: Value| event["event"].as_str().unwrap_or("notice").to_owned();
        self.sent().into_iter().map(name).collect()
    }

    /// How many events there are, of all names that a test has.
    fn events(&self) -> u64 {
        let names = ["page_view", "add_to_cart", "signup", "early"];
        names.iter().map(|name| self.server.count(&format!("did {name} in 1h"))).sum()
    }
}

/// What the documentation tells pages to write: the tag with its image, and what keeps calls until it is there.
fn documented() -> [String; 2] {
    let text = include_str!("../../config/README.md");
    let blocks = text.split("```html\n").skip(1);
    let blocks: Vec<_> = blocks.map(|rest| rest.split_once("```").unwrap().0.to_owned()).collect();
    blocks.try_into().unwrap()
}

/// A library that is published as modules, as one script.
fn bundle(package: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let entry = folder.path().join("entry.js");
    fs::write(&entry, format!("import {{ CmpApi }} from \"{package}\"; window.CmpApi = CmpApi;"))
        .unwrap();
    let output = Command::new(root.join("target/tag/node_modules/.bin/esbuild"))
        .args(["--bundle", "--format=iife"])
        .arg(&entry)
        .env("NODE_PATH", root.join("target/npm"))
        .output()
        .expect("esbuild is missing: run `make tools`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn cookie(request: &Request) -> Option<&str> {
    request.header("cookie")?.split("; ").find(|pair| pair.starts_with("throng="))
}

#[test]
fn the_committed_tag_is_what_its_source_gives() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(root.join("target/tag/installed").is_file(), "run `make tools`");
    let folder = tempfile::tempdir().unwrap();
    let built = folder.path().join("t.js");
    let output = Command::new("make")
        .current_dir(root)
        .args(["--no-print-directory", "tag"])
        .arg(format!("TAG_FILE={}", built.display()))
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let committed = fs::read_to_string(root.join("dashboards/tag/t.js")).unwrap();
    assert!(
        fs::read_to_string(built).unwrap() == committed,
        "dashboards/tag/t.js is not what its source gives: run `make tag` and commit it"
    );
}

#[test]
fn with_consent_views_clicks_and_calls_arrive_as_one_visitor() {
    let world = World::new();
    let before = format!(
        "{TCF}<script>cmp.update(\"{ALL}\"); throng(\"event\", \"early\", {{ value: 3 }});</script>"
    );
    let steps = r#"
      await until(() => answered == 2);
      history.pushState(null, "", "/list?page=2");
      document.title = "List";
      await until(() => answered == 3);
      history.replaceState({ scrolled: 1 }, "", "/list?page=2");
      location.hash = "token=secret";
      history.replaceState(null, "", "/item/7#/reviews");
      document.title = "Item";
      await until(() => answered == 4);
      history.back();
      await until(() => location.pathname + location.search == "/list?page=2" && answered == 5);
      history.back();
      await until(() => location.pathname == "/" && answered == 6);
      click();
      throng("event", { event: "signup", props: { plan: "free" }, ids: { user_id: "ada" } });
      throng("evnt", "typo");
      throng("event", "");
      const loop = {}; loop.loop = loop;
      throng("event", "early", loop);
      await until(() => answered == 8);
    "#;
    let warnings = world.visit("shop", &before, steps);
    assert!(warnings.len() == 3 && warnings[0].starts_with("throng: expected"), "{warnings:?}");
    assert!(warnings[2].contains("is no JSON"), "{warnings:?}");

    let server = &world.server;
    for (rule, count) in [
        ("count page_view in 1h = 5", 1),
        ("did page_view[page.path = \"/list\" and page.title = \"List\"] in 1h", 1),
        ("did page_view[page.path = \"/item/7\" and page.title = \"Item\"] in 1h", 1),
        ("count page_view[page.path = \"/\"] in 1h = 2", 1),
        ("did add_to_cart[sku = \"A1\" and `product-id` = \"7\" and page.path = \"/\"] in 1h", 1),
        ("did early[value = 3] in 1h", 1),
        ("did signup[plan = \"free\"] in 1h", 1),
        ("count early in 1h = 1", 1),
    ] {
        assert_eq!(server.count(rule), count, "{rule}");
    }
    assert_eq!(server.members("did page_view in 1h", "user_id"), ["ada"]);
    let requests = world.requests();
    assert_eq!(cookie(&requests[0]), None);
    let pair = cookie(&requests[1]).unwrap();
    assert!(requests[1..].iter().all(|request| cookie(request) == Some(pair)));
    let id = &pair["throng=".len()..][..32];
    assert_eq!(server.members("did page_view in 1h", "cookie"), [id]);
    assert!(
        requests.iter().all(|request| !String::from_utf8_lossy(&request.body).contains("secret"))
    );
    for event in world.sent() {
        assert_eq!(event["consent"], json!({ "gdpr": 1, "tcf": ALL }));
    }
}

#[test]
fn nothing_is_sent_before_a_decision_and_then_all_of_it() {
    let world = World::new();
    let before = "<script src=\"/stub.js\"></script>";
    let steps = format!(
        r#"
      await until(() => throng.site);
      click();
      const load = (src) => new Promise((done) => {{
        document.head.append(Object.assign(document.createElement("script"), {{ src, onload: done }}));
      }});
      await load("/tcf.js");
      const cmp = new CmpApi(31, 1);
      cmp.update("", true);
      for (let more = 0; more < 150; more++) throng("event", "early", {{ more }});
      await rest(500);
      if (ended()) throw new Error("something was sent before the decision");
      cmp.update("{ALL}");
      await until(() => ended() > 0);
      await rest(500);"#
    );
    world.visit("shop", before, &steps);
    // More than a hundred are not kept.
    let names = world.names();
    assert_eq!((names.len(), &*names[0], &*names[1]), (100, "page_view", "add_to_cart"));
    assert_eq!(world.server.count("did page_view in 1h and did add_to_cart in 1h"), 1);
    assert_eq!(world.server.count("count early in 1h = 98"), 1);
}

#[test]
fn who_refuses_leaves_no_cookie_and_no_event_until_consenting() {
    let world = World::new();
    let steps = |last: &str| {
        format!(
            r#"
      await until(() => throng.site);
      cmp.update("", true);
      click();
      cmp.update("{NONE}");
      await until(() => ended() > 0);
      click();
      history.pushState(null, "", "/other");
      throng("event", "early", {{}});
      await rest(500);
      await fetch(document.querySelector("script[async]").src, {{ mode: "no-cors", credentials: "include", cache: "reload" }});
      {last}"#
        )
    };
    world.visit("shop", TCF, &steps(""));
    let sent = world.sent();
    assert_eq!(sent.len(), 1, "{sent:?}");
    let consent = json!({ "gdpr": 1, "tcf": NONE });
    // The notice says what was chosen, and nothing of the page.
    assert_eq!(
        (&sent[0]["consent"], &sent[0]["event"], &sent[0]["page"]),
        (&consent, &Value::Null, &Value::Null)
    );
    let came = world.passage.came.lock().unwrap().clone();
    assert_eq!(
        came.iter().map(|request| &*request.path).collect::<Vec<_>>(),
        ["/t.js", "/v1/events", "/t.js"]
    );
    assert!(came.iter().all(|request| request.header("cookie").is_none()));
    assert_eq!(world.events(), 0);

    let consents = format!("cmp.update(\"{ALL}\"); await until(() => ended() > 1);");
    world.visit("shop", TCF, &steps(&consents));
    assert_eq!(world.names(), ["notice", "notice", "page_view"]);
    assert_eq!(world.server.count("did page_view[page.path = \"/other\"] in 1h"), 1);
    assert_eq!(world.events(), 1);
}

#[test]
fn who_withdraws_is_taken_back_and_nothing_more_is_sent() {
    let world = World::new();
    let before = format!("{TCF}<script>cmp.update(\"{ALL}\");</script>");
    world.visit("shop", &before, "await until(() => ended() > 0)");
    world.server.until("the visitor is held", || world.server.push("files")["held"] == 1);

    let steps = format!(
        r#"
      await until(() => ended() > 0);
      cmp.update("{ALL}", true);
      click();
      await until(() => ended() > 1);
      cmp.update("{NONE}");
      await until(() => ended() > 2);
      click();
      history.pushState(null, "", "/other");
      throng("event", "early", {{}});
      await rest(500);
      await fetch(document.querySelector("script[async]").src, {{ mode: "no-cors", credentials: "include", cache: "reload" }});"#
    );
    world.visit("shop", &before, &steps);
    // While the dialogue is open, what was said before stands.
    assert_eq!(world.names(), ["page_view", "page_view", "add_to_cart", "notice"]);
    let requests = world.requests();
    let pair = cookie(&requests[2]).unwrap();
    assert_eq!(cookie(&requests[3]), Some(pair));
    let came = world.passage.came.lock().unwrap().clone();
    assert_eq!(cookie(came.last().unwrap()), None);
    let refusals = "throng_collect_refusals_total{signal=\"gdpr\"}";
    assert_eq!(world.server.metric(refusals), 1.0);
    assert_eq!(world.events(), 3);
    // The first visitor was another browser, and stays.
    world.server.until("the second is told to nobody", || {
        let held = world.server.push("files")["held"].as_u64();
        let shown = world.server.ok(&["destination", "waterfall", "files"]);
        held == Some(1) && shown.contains("-1 opted out")
    });
}

#[test]
fn the_sections_of_gpp_are_waited_for_and_judged() {
    let world = World::new();
    let steps = r#"
      await until(() => throng.site);
      click();
      await rest(300);
      if (ended()) throw new Error("something was sent before the signal was ready");
      cmp.setFieldValue("usnat", "SaleOptOut", 2);
      cmp.setFieldValue("usnat", "SaleOptOutNotice", 1);
      cmp.setApplicableSections([7]);
      cmp.setSignalStatus("ready");
      await until(() => ended() > 0);
      cmp.setSignalStatus("not ready");
      click();
      cmp.setFieldValue("usnat", "SaleOptOut", 1);
      cmp.fireSectionChange("usnat");
      await rest(300);
      if (ended() > 1) throw new Error("something was sent while the signal was not ready");
      cmp.setSignalStatus("ready");
      await until(() => ended() > 1);
      click();
      await rest(500);"#;
    world.visit("us", GPP, steps);
    assert_eq!(world.names(), ["page_view", "add_to_cart", "notice"]);
    let sent = world.sent();
    assert_eq!(sent[0]["consent"]["gpp_sid"], json!([7]));
    assert_ne!(sent[0]["consent"]["gpp"], sent[2]["consent"]["gpp"]);
    assert_eq!(world.server.metric("throng_collect_refusals_total{signal=\"gpp\"}"), 1.0);
    assert_eq!(world.events(), 2);
}

#[test]
fn of_who_opted_out_before_the_page_is_not_told() {
    let world = World::new();
    let before = format!(
        "{GPP}<script>cmp.setFieldValue(\"usnat\", \"SharingOptOut\", 1);\
         cmp.setApplicableSections([7]); cmp.setSignalStatus(\"ready\");</script>"
    );
    let steps = "await until(() => ended() > 0); click(); await rest(300);";
    world.visit("us", &before, steps);
    assert_eq!(world.names(), ["notice"]);
    assert_eq!(world.server.metric("throng_collect_refusals_total{signal=\"gpp\"}"), 1.0);
    assert_eq!(world.events(), 0);
}

#[test]
fn what_only_the_server_can_judge_is_asked_of_it() {
    let world = World::new();
    // Section 6 has no field that the tag knows.
    let before = |opt_out: &str| {
        format!(
            "{GPP}<script>cmp.setFieldValue(\"uspv1\", \"Notice\", \"Y\");\
             cmp.setFieldValue(\"uspv1\", \"OptOutSale\", \"{opt_out}\");\
             cmp.setApplicableSections([6]); cmp.setSignalStatus(\"ready\");</script>"
        )
    };
    let steps = r#"
      await until(() => ended() > 0);
      cmp.setFieldValue("uspv1", "LspaCovered", "N");
      cmp.fireSectionChange("uspv1");
      await until(() => ended() > 1);
      click();
      await until(() => ended() > 2);
      cmp.setFieldValue("uspv1", "OptOutSale", "Y");
      cmp.fireSectionChange("uspv1");
      click();
      await until(() => ended() > 3);
      click();
      await rest(500);"#;
    let warnings = world.visit("us", &before("N"), steps);
    assert_eq!(warnings, [""; 0]);
    // A change is told before anything else is; who may go on goes on.
    assert_eq!(world.names(), ["page_view", "notice", "add_to_cart", "notice"]);
    assert_eq!(world.events(), 2);

    // And who had opted out before is told so by the first answer.
    let steps = "await until(() => ended() > 0); await rest(200); click(); await rest(300);";
    world.visit("us", &before("Y"), steps);
    assert_eq!(world.names()[4..], ["page_view"]);
    assert_eq!(world.events(), 2);
}

#[test]
fn global_privacy_control_is_a_refusal() {
    let world = World::new();
    let before = "<script>Object.defineProperty(navigator, \"globalPrivacyControl\", { value: true })</script>";
    world.visit("us", before, "await until(() => ended() > 0); click(); await rest(300);");
    let sent = world.sent();
    assert_eq!((sent.len(), &sent[0]["consent"]), (1, &json!({ "us_privacy": "1-Y-" })));
    assert_eq!(world.server.metric("throng_collect_refusals_total{signal=\"us_privacy\"}"), 1.0);
    assert_eq!(world.events(), 0);
}

#[test]
fn what_failed_is_sent_again_and_counts_once() {
    let world = World::new();
    // The script itself comes; then an answer without events, a lost request, and a lost answer.
    let refused = Reply::new(503, "").with("Retry-After", "1");
    world.door.script([Fault::Pass, Fault::Refuse(refused), Fault::Lose, Fault::LoseAnswer]);
    let steps =
        "await until(() => ended() > 0); click(); await until(() => ended() > 3); await rest(300);";
    world.visit("us", "", steps);
    assert!(world.door.is_through());
    // The line goes on from where it was: the event that was lost, and the click after it.
    let names = world.names();
    assert_eq!(names, ["page_view", "add_to_cart", "page_view", "add_to_cart"]);
    let sent = world.sent();
    assert_eq!(sent[0]["message_id"], sent[2]["message_id"]);
    assert_ne!(sent[0]["message_id"], sent[1]["message_id"]);
    assert_eq!(sent[0]["time"], sent[2]["time"]);
    assert_eq!(world.server.count("count page_view in 1h = 1 and count add_to_cart in 1h = 1"), 1);
}

#[test]
fn a_page_that_goes_sends_what_had_failed_by_a_beacon() {
    let world = World::new();
    world.door.script([Fault::Pass, Fault::Refuse(Reply::new(503, ""))]);
    let steps = "await until(() => ended() > 0); click(); location = \"/next\"; await rest(60000)";
    world.visit("us", "", steps);
    world.server.until("both have arrived", || world.events() == 2);
    let requests = world.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    // A beacon does not ask to read its answer.
    assert_eq!(requests[0].header("sec-fetch-mode"), Some("no-cors"));
}

#[test]
fn a_page_that_goes_before_a_decision_sends_nothing() {
    let world = World::new();
    let steps = "await until(() => throng.site); click(); await rest(300); location = \"/next\"; await rest(60000)";
    world.visit("us", TCF, steps);
    // The page that came next was looked at by the same browser, after whatever the first had sent.
    assert_eq!(world.requests().len(), 0);
    assert_eq!(world.events(), 0);
}

#[test]
fn a_browser_without_scripts_shows_the_image() {
    let world = World::new();
    let steps = r#"
      const frame = document.createElement("iframe");
      // Without `allow-scripts`.
      frame.sandbox = "allow-same-origin";
      frame.src = "/tag";
      document.body.append(frame);
      await new Promise((done) => (frame.onload = done));"#;
    world.visit("us", "", steps);
    let rule = "did page_view[page.url = \"https://www.shop.example/\"] in 1h";
    assert_eq!(world.server.count(rule), 1);
}

#[test]
fn a_tag_without_its_site_says_so() {
    let world = World::new();
    let warnings =
        world.visit("", "", "await until(() => warnings.length); click(); await rest(200);");
    assert!(warnings[0].contains("data-site=\"KEY\""), "{warnings:?}");
    let warnings = world.visit("nowhere", "", "await until(() => warnings.length);");
    assert_eq!(warnings, ["throng: an event was not taken: site: no such key here"]);
    assert_eq!((world.requests().len(), world.events()), (1, 0));
}
