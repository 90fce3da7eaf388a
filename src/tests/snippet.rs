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

#[test]
fn what_is_printed_works_as_it_is() {
    let server = Server::start_with(&[], SITES, &[]);
    let arguments = ["snippet", "open", "--config", "throng.toml", "--host"];
    let printed = server.ok(&[&arguments[..], &[&server.collect()]].concat());
    let html = printed.lines().filter(|line| line.starts_with('<'));
    let html = html.collect::<Vec<_>>().join("\n");
    let page = format!("<!doctype html><title>A page</title>{html}<p>Text</p>{STEPS}");
    let site = Site::new(vec![("/", "text/html", page), ("/plain", "text/html", html)]);
    assert_eq!(Browser::open(site).result(), true);
    assert_eq!(server.count("did page_view[page.title = \"A page\"] in 1h"), 1);
    assert_eq!(server.count("did page_view[page.url = \"https://open.example/\"] in 1h"), 1);

    let answers = call(&printed);
    assert!(
        answers.len() == 2 && answers.iter().all(|answer| answer["accepted"] == 1),
        "{answers:?}"
    );
    assert_eq!(server.members("did purchase[value = 14.85] in 1h", "user_id"), ["12680"]);
    let device = "8f6c2d1e-3b7a-4c59-9d0e-5a1b7c3f2e48";
    let rule = "did screen_view[device.kind = \"mobile\"] in 1h";
    assert_eq!(server.members(rule, "gaid"), [device]);
}

#[test]
fn a_strict_site_is_told_what_it_lacks() {
    let server = Server::start_with(&[], SITES, &[]);
    let host = server.collect();
    let arguments = ["snippet", "strict", "--config", "throng.toml", "--host", &host, "--json"];
    let pieces: Value = serde_json::from_str(&server.ok(&arguments)).unwrap();
    for piece in ["server", "app"] {
        let piece = pieces[piece].as_str().unwrap();
        assert_eq!(call(piece)[0]["rejected"][0]["code"], "consent", "{piece}");
        assert_eq!(call(&piece.replace("TCF_STRING", ALL))[0]["accepted"], 1, "{piece}");
    }
    let unknown = server.throng(&["snippet", "strikt", "--config", "throng.toml"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("did you mean `strict`?"));
}
