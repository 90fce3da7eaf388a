use super::*;

const OURS: (&str, &str) = ("Origin", "http://collect.example");

#[test]
fn a_browser_opts_out_and_in_again() {
    let listener = Listener::new();
    let pair = listener.cookie();
    let page = listener.get("/privacy/opt-out", &[("Sec-GPC", "1")]);
    assert_eq!(page.status, 200);
    assert!(
        page.text().contains("not opted out")
            && page.text().contains("action=\"/privacy/opt-out\"")
    );
    assert!(page.text().contains("Global Privacy Control"));

    let out = listener.post("/privacy/opt-out", &[OURS, ("Cookie", &pair)], "");
    assert_eq!(out.status, 200);
    assert_eq!(
        out.cookies(),
        [
            "throng-optout=1; Path=/; Max-Age=34128000; HttpOnly; SameSite=Lax",
            "throng=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax",
        ]
    );
    let id = pair["throng=".len()..][..32].to_owned();
    assert_eq!(listener.choices(), [(id.clone(), true)]);

    let remembered = ("Cookie", "throng-optout=1");
    assert!(listener.get("/privacy/opt-out", &[remembered]).text().contains("is opted out"));
    assert!(listener.get("/pixel.gif?s=demo", &[remembered]).cookies().is_empty());
    assert_eq!(listener.refusals("opt_out"), 1);

    let both = format!("{pair}; throng-optout=1");
    let back = listener.post("/privacy/opt-in", &[OURS, ("Cookie", &both)], "");
    assert_eq!(back.cookies(), ["throng-optout=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"]);
    assert_eq!(listener.choices(), [(id.clone(), true), (id, false)]);
}

#[test]
fn only_our_own_page_can_choose() {
    let listener = Listener::new();
    for (headers, status) in [
        (vec![], 403),
        (vec![("Origin", "https://evil.example")], 403),
        (vec![("Origin", "https://collect.example")], 403),
        (vec![("Origin", "null")], 403),
        (vec![("Sec-Fetch-Site", "cross-site"), OURS], 403),
        (vec![("Referer", "http://collect.example.evil.example/")], 403),
        (vec![("Sec-Fetch-Site", "same-origin")], 200),
        (vec![("Referer", "http://collect.example/privacy/opt-out")], 200),
        (vec![OURS], 200),
    ] {
        for path in ["/privacy/opt-out", "/privacy/opt-in"] {
            assert_eq!(listener.post(path, &headers, "").status, status, "{path} {headers:?}");
        }
    }
}

#[test]
fn a_choice_that_cannot_be_kept_is_told() {
    let listener = Listener::new();
    let pair = listener.cookie();
    listener.disk.is_full.store(true, Ordering::SeqCst);
    let answer = listener.post("/privacy/opt-out", &[OURS, ("Cookie", &pair)], "");
    assert_eq!((answer.status, answer.cookies().len()), (503, 0));
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn global_privacy_control_is_declared() {
    let answer = Listener::new().get("/.well-known/gpc.json", &[]);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let declared: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(declared["gpc"], true);
}
