//! What `throng snippet` prints, tried as it is printed.

use serde_json::Value;
use std::process::Command;

use super::browser::Browser;
use super::browser::Site;
use super::consent::ALL;
use super::harness::Server;

const SITES: &str = "[[site]]\nkey = \"open\"\norigins = [\"http://127.0.0.1:*\", \"https://open.example\"]\n\
    [[site]]\nkey = \"strict\"\nconsent = \"opt_in\"\ntcf_vendor = 7\nrequire_origin = true\n\
    origins = [\"https://strict.example\"]\n";
/// Says when the tag has sent something, and shows the page without scripts, too.
const STEPS: &str = r#"<script type="module">
  const frame = document.createElement("iframe");
  frame.sandbox = "allow-same-origin";
  frame.src = "/plain";
  document.body.append(frame);
  await new Promise((done) => (frame.onload = done));
  const isSent = () => performance.getEntriesByType("resource").some((entry) => entry.name.endsWith("/v1/events"));
  while (!isSent()) await new Promise((done) => setTimeout(done, 50));
  fetch("/result", { method: "POST", body: "true" });
</script>"#;

/// Runs the lines that are calls, and tells how each was answered.
fn call(printed: &str) -> Vec<Value> {
    let calls = printed.lines().filter(|line| line.starts_with("curl "));
    let answers = calls.map(|line| {
        let output = Command::new("sh").args(["-c", line]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{line}: {output:?}"))
    });
    answers.collect()
}

/// What is printed of a site of the server, or of one piece.
fn printed(server: &Server, site: &str, piece: Option<&str>) -> String {
    let host = server.collect();
    let arguments = ["snippet", site].into_iter().chain(piece);
    let arguments = arguments.chain(["--config", "throng.toml", "--host", &host]);
    server.ok(&arguments.collect::<Vec<_>>())
}

#[test]
fn what_is_printed_works_as_it_is() {
    let server = Server::start_with(&[], SITES, &[]);
    let html = printed(&server, "open", Some("page"));
    let page = format!("<!doctype html><title>A page</title>{html}<p>Text</p>{STEPS}");
    let site = Site::new(vec![("/", "text/html", page), ("/plain", "text/html", html)]);
    assert_eq!(Browser::open(site).result(), true);
    assert_eq!(server.count("did page_view[page.title = \"A page\"] in 1h"), 1);
    assert_eq!(server.count("did page_view[page.url = \"https://open.example/\"] in 1h"), 1);

    let answers = call(&printed(&server, "open", None));
    assert!(
        answers.len() == 4 && answers.iter().all(|answer| answer["accepted"] == 1),
        "{answers:?}"
    );
    assert_eq!(server.members("did purchase[value = 14.85] in 1h", "user_id"), ["12680"]);
    for (namespace, kind, device) in [
        ("idfa", "mobile", "AEBE52E7-03EE-455A-B3C4-E57283966239"),
        ("gaid", "mobile", "8f6c2d1e-3b7a-4c59-9d0e-5a1b7c3f2e48"),
        ("rida", "tv", "2e1f0c3b-7a65-4d84-9c1b-0f5e6d7a8b92"),
    ] {
        let rule = format!("did screen_view[device.kind = \"{kind}\"] in 1h");
        assert_eq!(server.members(&rule, namespace), [device]);
    }
}

/// Google Tag Manager cannot be reached here. This is how it puts a Custom HTML tag into a page: each script of it is made
/// anew with its text and its address, and none of its other attributes.
const AS_GTM_DOES: &str = r#"
  const parsed = new DOMParser().parseFromString(HTML, "text/html");
  for (const script of parsed.querySelectorAll("script")) {
    const made = document.createElement("script");
    if (script.src) made.src = script.src;
    made.text = script.text;
    document.body.append(made);
  }
  throng("event", "signup", { plan: "free" });
  const sent = () => performance.getEntriesByType("resource").filter((entry) => entry.name.endsWith("/v1/events")).length;
  for (let turn = 0; turn < 200 && sent() < 1; turn++) await new Promise((done) => setTimeout(done, 50));
  fetch("/result", { method: "POST", body: "true" });"#;

#[test]
fn a_tag_manager_that_keeps_no_attributes_loads_the_tag() {
    let server = Server::start_with(&[], SITES, &[]);
    let html = printed(&server, "open", Some("gtm"));
    let html = serde_json::to_string(&html).unwrap().replace("</", "<\\/");
    let steps = AS_GTM_DOES.replace("HTML", &html);
    let page =
        format!("<!doctype html><title>Managed</title><script type=\"module\">{steps}</script>");
    let site = Site::new(vec![("/", "text/html", page)]);
    assert_eq!(Browser::open(site).result(), true);
    let rule =
        "did page_view[page.title = \"Managed\"] in 1h and did signup[plan = \"free\"] in 1h";
    server.until("both have arrived", || server.count(rule) == 1);
}

#[test]
fn a_strict_site_is_told_what_it_lacks() {
    let server = Server::start_with(&[], SITES, &[]);
    let host = server.collect();
    let arguments = ["snippet", "strict", "--config", "throng.toml", "--host", &host, "--json"];
    let pieces: Value = serde_json::from_str(&server.ok(&arguments)).unwrap();
    for piece in ["server", "ios", "android", "tv"] {
        let piece = pieces[piece].as_str().unwrap();
        assert_eq!(call(piece)[0]["rejected"][0]["code"], "consent", "{piece}");
        assert_eq!(call(&piece.replace("TCF_STRING", ALL))[0]["accepted"], 1, "{piece}");
    }
    for (arguments, said) in [
        (["snippet", "strikt", "page"], "did you mean `strict`?"),
        (
            ["snippet", "strict", "pgae"],
            "there is no piece `pgae`: there are page, gtm, server, ios",
        ),
    ] {
        let output = server.throng(&[&arguments[..], &["--config", "throng.toml"]].concat());
        assert_eq!(output.status.code(), Some(2));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(said), "{told}");
    }
}
