//! Audiences in an auction: the published Prebid.js in a real browser, which asks on behalf of its visitor.

use serde_json::{Value, json};

use super::browser::{Browser, Site, of_npm};
use super::harness::Server;

const SEGMENTS: [(&str, &str); 2] = [
    ("buyers", "rule = 'did purchase'\ntaxonomy = { iab_audience = \"687\" }"),
    ("lookers", "rule = 'did page_view'"),
];
/// What every page does: its visitor buys something, and waits until that is known.
const VISIT: &str = r#"
  await fetch(COLLECT + "/pixel.gif?s=page&e=purchase", { credentials: "include", mode: "no-cors" });
  const ask = async (query) => {
    const answer = await fetch(COLLECT + "/v1/audiences" + query, { credentials: "include" });
    return answer.json();
  };
  for (let turn = 0; turn < 400 && !(await ask("?s=page")).includes("buyers"); turn++) {
    await new Promise((done) => setTimeout(done, 50));
  }
"#;
/// An auction with one bidder of the page's own, which says what it is told.
const AUCTION: &str = r#"
  pbjs.registerBidAdapter(() => ({ callBids(request, add, done) {
    fetch("/result", { method: "POST", body: JSON.stringify({
      data: (request.ortb2.user || {}).data || [],
      keywords: ((((request.bids[0].ortb2Imp || {}).ext || {}).data || {}).keywords) || null,
    }) });
    done();
  } }), "own");
  pbjs.addAdUnits([{ code: "top", mediaTypes: { banner: { sizes: [[300, 250]] } },
                     bids: [{ bidder: "own", params: { dgkeyword: true } }] }]);
  pbjs.requestBids({ timeout: 15000 });
"#;

/// What a bidder is told on a page that is set up so.
fn auction(server: &Server, setup: &str) -> Value {
    let page = format!(
        "<!doctype html><title>A page</title><script src=\"/prebid.js\"></script>\
         <script type=\"module\">const COLLECT = \"{}\";\n\
         pbjs.que.push(async () => {{ try {{ {VISIT} {setup} {AUCTION} }} catch (error) {{\n\
         fetch(\"/result\", {{ method: \"POST\", body: JSON.stringify({{ error: String(error) }}) }}); }} }});</script>",
        server.collect()
    );
    let prebid = of_npm("npm/prebid.js/dist/not-for-prod/prebid.js");
    Browser::open(Site::new(vec![
        ("/", "text/html", page),
        ("/prebid.js", "text/javascript", prebid),
    ]))
    .result()
}

/// What is printed for pages, as the documentation has it, one way after the other.
fn documented(server: &Server) -> Vec<String> {
    let host = server.collect();
    let written =
        server.ok(&["snippet", "page", "prebid.js", "--config", "throng.toml", "--host", &host]);
    // Other tests have the machine, too.
    let written = written.replace("auctionDelay: 300", "auctionDelay: 9000");
    let written = written.replace("params: { url:", "params: { timeout: 9000, url:");
    let ways = written.split("// ").skip(1).map(|way| way.split_once('\n').unwrap().1.to_owned());
    ways.collect()
}

#[test]
fn bidders_are_told_by_each_of_the_ways_that_are_documented() {
    let site = "[[site]]\nkey = \"page\"\nconsent = \"none\"\norigins = [\"http://127.0.0.1:*\"]\n";
    let server = Server::start_with(&SEGMENTS, site, &[]);
    let data = json!([
        { "id": "127.0.0.1", "name": "127.0.0.1", "ext": { "segtax": 4 }, "segment": [{ "id": "687" }] }
    ]);
    let ways = documented(&server);
    let [fetched, keywords, optable] = &ways[..] else { panic!("{ways:?}") };
    let wait = "while (!(pbjs.getConfig(\"ortb2\") || {}).user) await new Promise((done) => setTimeout(done, 20));";
    let told = auction(&server, &format!("{fetched}\n{wait}"));
    assert_eq!(told, json!({ "data": data, "keywords": null }));
    let told = auction(&server, keywords);
    assert_eq!(told, json!({ "data": [], "keywords": "opeaud=buyers" }));
    assert_eq!(auction(&server, optable), json!({ "data": data, "keywords": null }));
}
