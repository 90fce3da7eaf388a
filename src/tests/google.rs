//! An audience on its way to a user list of Google.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::process::Command;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{KeyPair, RsaKeyPair};

use super::archive::python;
use super::harness::{Server, post};
use super::killed::Pushes;
use super::standins::google::{Google, Member, discovery, status};
use super::standins::{Fault, StandIn};

const EMAIL: &str = "pusher@project.example";
const SEGMENT: &str =
    "rule = 'did purchase in 1h'\nmin_size = 1\n[[activate]]\ndestination = \"ads\"\n";

/// A key of a service account: its private half as PEM, and its public one.
fn key() -> (String, Vec<u8>) {
    let made = Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-quiet"])
        .output()
        .expect("openssl is missing: run `make tools`");
    let pem = String::from_utf8(made.stdout).unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let pair = RsaKeyPair::from_pkcs8(&STANDARD.decode(body).unwrap()).unwrap();
    (pem, pair.public_key().as_ref().to_vec())
}

pub(super) fn start(more: &str) -> (Server, Arc<Google>, StandIn) {
    let (pem, public) = key();
    let platform = Arc::new(Google::new("1234567890", EMAIL, &public));
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let mut server = Server::start(&[("buyers", SEGMENT)]);
    assert!(server.stop());
    let grant = if more.contains("refresh_token") { "" } else { "key = \"file:key.json\"\n" };
    let destination = format!(
        "[[destination]]\nname = \"ads\"\nkind = \"google\"\nallow_private = true\nurl = \"http://{0}/v1\"\ntoken_url = \"http://{0}/token\"\n\
         auth_url = \"http://{0}/auth\"\n\
         account = \"1234567890\"\nterms_accepted = true\nad_user_data = true\nad_personalization = true\n\
         poll = \"1s\"\nevery = \"1h\"\n{grant}{more}",
        standin.address
    );
    fs::write(server.folder().join("destinations.toml"), destination).unwrap();
    let account = json!({ "type": "service_account", "client_email": EMAIL, "private_key": pem });
    fs::write(server.folder().join("key.json"), account.to_string()).unwrap();
    fs::write(server.folder().join("secret"), "its-secret\n").unwrap();
    fs::write(server.folder().join("refresh"), "first\n").unwrap();
    server.run();
    (server, platform, standin)
}

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn event(person: u32) -> Value {
    json!({ "site": "t", "event": "purchase",
            "ids": { "user_id": person.to_string(), "email": format!("p.{person}+x@gmail.com") } })
}

pub(super) fn purchases(server: &Server, people: Range<u32>) {
    let events: Vec<Value> = people.map(event).collect();
    server.accepts(&events);
}

/// Dots and what follows a plus are nobody's at Gmail.
fn email(person: u32) -> String {
    hash(&format!("p{person}@gmail.com"))
}

pub(super) fn members(people: Range<u32>) -> BTreeSet<Member> {
    people.map(|person| ("emailAddress".to_owned(), email(person))).collect()
}

pub(super) fn waits_for(server: &Server, adds: usize) {
    server.until("what is to be sent is known", || {
        let dry = server.ok(&["destination", "push", "ads", "--dry-run", "--json"]);
        serde_json::from_str::<Value>(&dry).unwrap()[0]["adds"] == adds
    });
}

pub(super) fn in_step(server: &Server, platform: &Google, name: &str, expected: &BTreeSet<Member>) {
    server.until("the platform is in step", || {
        server.push("ads")["trouble"].is_null() && platform.members(name).as_ref() == Some(expected)
    });
}

#[test]
fn a_list_is_made_once_and_kept_in_step_whatever_becomes_of_calls() {
    let (server, platform, standin) = start("");
    purchases(&server, 0..1_200);
    waits_for(&server, 1_200);
    assert_eq!(platform.members("buyers"), None, "a dry run makes nothing");
    assert!(server.ok(&["destination", "test", "ads"]).contains("ready"));
    // A token that is refused, another, looked for and not there, made and its answer lost; then found.
    platform.expire_tokens(u32::MAX);
    standin.script([Fault::Pass, Fault::Pass, Fault::Pass, Fault::LoseAnswer]);
    assert!(server.push("ads")["trouble"].is_string());
    assert_eq!(platform.members("buyers"), Some(BTreeSet::new()));
    let busy = || Fault::Refuse(status(503, "UNAVAILABLE", ""));
    standin.script([Fault::Pass, busy(), Fault::Pass, Fault::LoseAnswer, Fault::Lose, busy()]);
    in_step(&server, &platform, "buyers", &members(0..1_200));

    // One who opts out, one who comes, and tokens that are good for three calls.
    platform.expire_tokens(3);
    platform.set_slow(2);
    purchases(&server, 1_200..1_300);
    let body = json!({ "site": "t", "event": "x", "ids": { "user_id": "7" } });
    let url = format!("{}/v1/events", server.collect());
    assert_eq!(post(&url, &body.to_string(), &[("Sec-GPC", "1")]).json()["accepted"], 1);
    let mut expected = members(0..1_300);
    expected.remove(&("emailAddress".to_owned(), email(7)));
    in_step(&server, &platform, "buyers", &expected);
    assert!(platform.requests().1 <= 10_000);
}

#[test]
fn one_bad_line_costs_itself_whether_it_is_told_by_line_by_count_or_by_refusing_all() {
    for how in ["line", "count", "all"] {
        let (server, platform, _standin) = start("");
        // Each half is asked for a second later.
        platform.set_slow(0);
        let bad = email(5);
        match how {
            "all" => platform.set_malformed(&[&bad]),
            _ => platform.set_bad(&[&bad], how == "line"),
        }
        purchases(&server, 0..32);
        waits_for(&server, 32);
        let mut expected = members(0..32);
        expected.remove(&("emailAddress".to_owned(), bad.clone()));
        in_step(&server, &platform, "buyers", &expected);
        server.until("the one is found", || {
            let report = server.push("ads");
            (&report["held"], &report["pending"], &report["refused"])
                == (&json!(31), &json!(0), &json!(1))
        });
        let refused = server.ok(&["destination", "refused", "ads"]);
        assert!(refused.contains(&bad), "{how}: {refused}");
        let calls = platform.requests().0;
        server.push("ads");
        assert_eq!(platform.requests().0, calls, "{how}: what is refused is not sent again");
    }
}

#[test]
fn a_day_without_quota_is_waited_for_and_a_key_that_is_refused_is_told() {
    let (server, platform, standin) = start("");
    purchases(&server, 0..3);
    waits_for(&server, 3);
    let quota = status(429, "RESOURCE_EXHAUSTED", "RequestsPerDayPerProject");
    // The token, the search and the making, and then the members.
    standin.script([Fault::Pass, Fault::Pass, Fault::Pass, Fault::Refuse(quota)]);
    assert!(server.push("ads")["trouble"].as_str().unwrap().contains("asks to wait"));
    let next =
        server.api("/api/v1/destinations/ads").json()["next_run"].as_str().unwrap().to_owned();
    assert!(next.contains("T08:00:00"), "midnight there: {next}");
    assert_eq!(platform.requests().0, 0);

    let (other, _) = key();
    let account = json!({ "client_email": EMAIL, "private_key": other });
    fs::write(server.folder().join("key.json"), account.to_string()).unwrap();
    platform.expire_tokens(1);
    let tested = server.throng(&["destination", "test", "ads"]);
    let said = String::from_utf8_lossy(&tested.stdout).into_owned();
    assert!(said.contains("give the account a new key"), "{said}");
}

#[test]
fn a_refresh_token_that_is_replaced_is_on_disk_before_it_is_needed() {
    let grant = "refresh_token = \"file:refresh\"\nclient_id = \"a-client\"\nclient_secret = \"file:secret\"\n\
                 members = \"user\"\n";
    let (mut server, platform, _standin) = start(grant);
    platform.set_refresh_token("first");
    purchases(&server, 0..5);
    waits_for(&server, 5);
    let users: BTreeSet<Member> =
        (0..5).map(|user| ("user".to_owned(), user.to_string())).collect();
    in_step(&server, &platform, "buyers (user ids)", &users);
    assert_eq!(platform.refresh_token(), "first+");
    assert_eq!(fs::read_to_string(server.folder().join("refresh")).unwrap(), "first+\n");
    // Another process has it, too.
    assert!(server.stop());
    server.run();
    assert!(server.ok(&["destination", "test", "ads"]).contains("ready"));
    assert_eq!(platform.refresh_token(), "first++");
}

/// The official client, on the stand-in.
const CLIENT: &str = r#"
import json, sys
from googleapiclient.discovery import build_from_document
from google.oauth2.credentials import Credentials
address, token, path = sys.argv[1:]
document = json.load(open(path))
document["rootUrl"] = document["baseUrl"] = f"http://{address}/"
service = build_from_document(document, credentials=Credentials(token))
parent = "accountTypes/GOOGLE_ADS/accounts/1234567890"
made = service.accountTypes().accounts().userLists().create(parent=parent, body={
    "displayName": "theirs", "membershipDuration": "46656000s", "ingestedUserListInfo": {
        "uploadKeyTypes": ["CONTACT_ID"], "contactIdInfo": {"dataSourceType": "DATA_SOURCE_TYPE_FIRST_PARTY"}}}).execute()
lists = service.accountTypes().accounts().userLists().list(parent=parent).execute()
assert [one["displayName"] for one in lists["userLists"]] == ["theirs"], lists
destination = {"operatingAccount": {"accountType": "GOOGLE_ADS", "accountId": "1234567890"}, "productDestinationId": made["id"]}
member = lambda value: {"userData": {"userIdentifiers": [{"emailAddress": value * 64}]}}
body = {"destinations": [destination], "encoding": "HEX", "audienceMembers": [member("a"), member("b")],
        "termsOfService": {"customerMatchTermsOfServiceStatus": "ACCEPTED"}}
def wait(request):
    while True:
        told = service.requestStatus().retrieve(requestId=request["requestId"]).execute()
        [told] = told["requestStatusPerDestination"]
        if told["requestStatus"] != "PROCESSING":
            return told["requestStatus"]
assert wait(service.audienceMembers().ingest(body=body).execute()) == "SUCCESS"
del body["termsOfService"]
body["audienceMembers"] = [member("a")]
assert wait(service.audienceMembers().remove(body=body).execute()) == "SUCCESS"
print("done")
"#;

#[test]
fn the_official_client_finds_the_stand_in_as_the_contract_has_it() {
    let (pem, public) = key();
    drop(pem);
    let platform = Arc::new(Google::new("1234567890", EMAIL, &public));
    platform.set_refresh_token("r");
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let form =
        "grant_type=refresh_token&refresh_token=r&client_id=a-client&client_secret=its-secret";
    let given = post(&format!("http://{}/token", standin.address), form, &[]).json();
    let ran = Command::new(python())
        .args(["-c", CLIENT, &standin.address.to_string(), given["access_token"].as_str().unwrap()])
        .arg(discovery())
        .output()
        .expect("run `make tools`");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let left = BTreeSet::from([("emailAddress".to_owned(), "b".repeat(64))]);
    assert_eq!(platform.members("theirs"), Some(left));
}

#[test]
fn a_crash_at_any_call_leaves_a_list_in_step() {
    let (server, platform, standin) = start("");
    let has = |people: &BTreeSet<u32>| {
        let members = people.iter().map(|one| ("emailAddress".to_owned(), email(*one)));
        platform.members("buyers") == Some(members.collect())
    };
    Pushes { server, standin: &standin, destination: "ads", event: &event, has: &has }
        .survive_a_crash_at_any_call();
}
