//! Deletion requests of others, by the Data Deletion Request Framework, against domains that publish real keys over TLS.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::ECDSA_P256_SHA256_FIXED;
use ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use ring::signature::EcdsaKeyPair;
use ring::signature::KeyPair;
use ring::signature::UnparsedPublicKey;
use serde_json::Value;
use serde_json::json;

use crate::certificates::Certificates;
use crate::harness::Answer;
use crate::harness::Server;
use crate::harness::get;
use crate::harness::post;
use crate::standins::Reply;
use crate::standins::Request;
use crate::standins::Service;
use crate::standins::StandIn;

/// A domain with a key, which publishes it.
struct Domain {
    key: EcdsaKeyPair,
    /// How it publishes it: in the file, or in a set of keys beside it.
    is_new: bool,
    port: Mutex<u16>,
    asked: Mutex<Vec<String>>,
}

impl Domain {
    fn new(is_new: bool) -> Self {
        let (how, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(how, document.as_ref(), &random).unwrap();
        Self { key, is_new, port: Mutex::default(), asked: Mutex::default() }
    }

    fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let half = |at: usize| URL_SAFE_NO_PAD.encode(&point[at..at + 32]);
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k1", "x": half(1), "y": half(33) })
    }

    fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({ "typ": "JWT", "alg": "ES256", "kid": "k1" }), claims)
    }
}

impl Service for Domain {
    fn answer(&self, request: &Request) -> Reply {
        self.asked.lock().unwrap().push(request.path.clone());
        let port = *self.port.lock().unwrap();
        let file = match self.is_new {
            true => json!({ "jwksUri": format!("https://localhost:{port}/keys.json"),
                            "pollFrequency": "3600" }),
            false => json!({ "publicKey": [self.jwk()] }),
        };
        match request.path.as_str() {
            "/dsrdelete.json" => Reply::new(200, file.to_string()),
            "/keys.json" => Reply::new(200, json!({ "keys": [self.jwk()] }).to_string()),
            _ => Reply::new(404, "nothing"),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the server's clock is this one")]
fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// The acknowledgement in an answer, verified with the key that is published.
fn acknowledged(server: &Server, answer: &Answer) -> Value {
    let token = answer.json()["acJWT"].as_str().unwrap().to_owned();
    let file = get(&format!("{}/dsrdelete.json", server.collect()), &[]).json();
    let key = &file["publicKey"][0];
    let part = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let point = [&[4], &part("x")[..], &part("y")[..]].concat();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let header = signed.split('.').next().unwrap();
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    assert_eq!((&header["alg"], &header["kid"]), (&json!("ES256"), &key["kid"]));
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
        .unwrap();
    claims(&token)
}

#[test]
fn a_request_that_is_signed_as_it_should_be_erases_and_no_other_does() {
    let made = Certificates::make();
    let read = |name: &str| BufReader::new(File::open(made.file(name)).unwrap());
    let config = || {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::PrivateKeyDer;
        use rustls::pki_types::pem::PemObject;
        let chain = CertificateDer::pem_reader_iter(read("server.pem"));
        let chain: Vec<_> = chain.collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_reader(read("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
    };
    let (publisher, vendor) = (Arc::new(Domain::new(false)), Arc::new(Domain::new(true)));
    let first = StandIn::start(Arc::clone(&publisher) as _, Some(config()));
    let second = StandIn::start(Arc::clone(&vendor) as _, Some(config()));
    *vendor.port.lock().unwrap() = second.address.port();
    let name = |standin: &StandIn| format!("localhost:{}", standin.address.port());
    let settings = |private: bool| {
        format!(
            "[privacy]\ndomain = \"dmp.example\"\nallow_private = {private}\nrequesters = [\"{}\", \"{}\"]\n",
            name(&first),
            name(&second)
        )
    };
    let roots = [("SSL_CERT_FILE", made.file("ca.pem").display().to_string())];
    let server = Server::start_in(&[], &settings(true), &[], &roots);
    let visit = |user: &str| json!({ "site": "t", "event": "visit", "ids": { "user_id": user } });
    let mail = json!({ "site": "t", "event": "visit", "ids": { "email": "Jane@Example.com" } });
    server.accepts(&[visit("ada"), visit("bob"), visit("carl"), mail]);
    assert_eq!(server.count("did visit"), 4);

    let file = get(&format!("{}/dsrdelete.json", server.collect()), &[]).json();
    assert_eq!(file["endpoint"], "https://dmp.example/privacy/delete");
    assert_eq!(file["vendorScriptRequirement"], false);
    let keys = get(&format!("{}/.well-known/iabtl/jwks.json", server.collect()), &[]).json();
    assert_eq!(keys["keys"][0], file["publicKey"][0]);

    let send = |token: &str| {
        let url = format!("{}/privacy/delete", server.collect());
        let answer = post(&url, &json!({ "rqJWT": token }).to_string(), &[]);
        let told = acknowledged(&server, &answer);
        assert_eq!((&told["iss"], &told["rqJWT"]), (&json!("dmp.example"), &json!(token)));
        (answer.status, told["raResultCode"].as_i64().unwrap())
    };
    let subject = |value: &str| json!({ "identifierValue": value, "identifierType": "user_id", "identifierFormat": "plaintext" });
    // As 1.0 has it: the origin names the identifier, and one who passes it on may name it otherwise.
    let origin = |user: &str, jti: &str| {
        publisher.sign(&json!({ "version": "1.0", "jti": jti, "iss": name(&first), "iat": now(),
                                "sub": subject(user) }))
    };
    let request = |user: &str, jti: &str| {
        json!({ "version": "1.0", "idJWT": origin(user, jti), "jti": jti, "iss": name(&second),
                "iat": now(), "sub": subject(user) })
    };
    let right = vendor.sign(&request("ada", "1"));
    assert_eq!(send(&right), (202, 0));
    let is_done = || server.ok(&["receipt", "list"]).contains(" done ");
    server.until("she is erased", is_done);
    assert_eq!(server.members("did visit", "user_id"), ["bob", "carl"]);
    // The same again is answered as before, and erases nobody who has come since.
    server.accepts(&[visit("ada")]);
    assert_eq!(send(&right), (202, 0));
    assert_eq!(send(&vendor.sign(&request("bob", "1"))), (400, 3));

    let with = |name: &str, value: Value| {
        let mut claims = request("bob", "2");
        claims[name] = value;
        claims
    };
    let wrong = [
        (publisher.sign(&request("bob", "2")), 2),
        (vendor.sign(&with("iss", "stranger.example".into())), 2),
        (vendor.sign(&with("idJWT", vendor.sign(&claims(&origin("bob", "2"))).into())), 2),
        (vendor.sign(&with("idJWT", "a.b.c".into())), 3),
        (vendor.sign(&with("jti", Value::Null)), 1),
        (vendor.sign(&with("sub", Value::Null)), 1),
        (vendor.sign(&with("iat", (now() + 900).into())), 6),
        (vendor.sign(&with("iat", (now() - 30 * 86_400).into())), 6),
        (vendor.sign(&with("iat", "then".into())), 6),
        (vendor.sign(&with("exp", (now() - 1).into())), 6),
        (vendor.sign(&with("nbf", (now() + 86_400).into())), 6),
        (vendor.sign(&with("aud", "another.example".into())), 3),
        (vendor.sign_with(&json!({ "alg": "none" }), &request("bob", "2")), 3),
        (vendor.sign_with(&json!({ "alg": "HS256", "kid": "k1" }), &request("bob", "2")), 3),
        (vendor.sign_with(&json!({ "alg": "RS256", "kid": "k1" }), &request("bob", "2")), 2),
        (vendor.sign_with(&json!({ "alg": "ES256", "kid": "k2" }), &request("bob", "2")), 2),
        ("not a token".to_owned(), 3),
        (String::new(), 3),
    ];
    for (at, (token, code)) in wrong.iter().enumerate() {
        assert_eq!(send(token), (400, *code), "{at}");
    }
    // However its name is spelled, a domain is one: it is not asked again, and its requests are its own.
    let asked = vendor.asked.lock().unwrap().len();
    for spelled in ["LOCALHOST", "Localhost", "locaLHOST"] {
        let iss = name(&second).replace("localhost", spelled);
        let mut unsigned = request("bob", "1");
        unsigned["iss"] = iss.into();
        assert_eq!(send(&vendor.sign(&unsigned)), (400, 3), "its jti was another request's");
    }
    assert_eq!(vendor.asked.lock().unwrap().len(), asked);
    // The origin's token is held to the same: its age, its end, for whom it is, and whom it names.
    let passed_on = |name: &str, value: Value| {
        let mut inner = claims(&origin("bob", "3"));
        inner[name] = value;
        vendor.sign(&with("idJWT", publisher.sign(&inner).into()))
    };
    assert_eq!(send(&passed_on("iat", (now() - 400 * 86_400).into())), (400, 6));
    assert_eq!(send(&passed_on("exp", (now() - 1).into())), (400, 6));
    assert_eq!(send(&passed_on("aud", "another.example".into())), (400, 3));
    assert_eq!(send(&passed_on("sub", Value::Null)), (400, 1));
    let direct = |named: &Value, asked: &Value| {
        let inner = publisher.sign(&json!({ "version": "1.0", "jti": "4", "iss": name(&first),
                                            "iat": now(), "sub": named }));
        publisher.sign(&json!({ "version": "1.0", "idJWT": inner, "jti": "4", "iss": name(&first),
                                "iat": now(), "sub": asked }))
    };
    assert_eq!(send(&direct(&subject("carl"), &subject("bob"))), (400, 3));
    let mail = |value: &str| json!({ "identifierValue": value, "identifierType": "email", "identifierFormat": "plaintext" });
    let other = vendor.sign(&json!({ "version": "1.0", "jti": "5", "iss": name(&second), "iat": now(),
                                     "idJWT": publisher.sign(&json!({ "version": "1.0", "jti": "5", "iss": name(&first),
                                                                      "iat": now(), "sub": mail("joe@example.com") })),
                                     "sub": mail("jane@example.com") }));
    assert_eq!(send(&other), (400, 3));
    // Of 2.0, where the origin names nobody.
    let newer = |origin: &Value| {
        vendor.sign(&json!({ "version": "2.0", "orJWT": publisher.sign(origin), "jti": "6", "iss": name(&second),
                             "iat": now(), "identifierValue": "bob", "identifierType": "user_id",
                             "identifierFormat": "plaintext" }))
    };
    let of_origin = json!({ "version": "2.0", "jti": "6", "iss": name(&first), "iat": now() });
    for (name, value, code) in [
        ("iat", json!(now() - 400 * 86_400), 13_103),
        ("exp", json!(now() - 1), 13_103),
        ("aud", json!(["another.example"]), 13_101),
    ] {
        let mut wrong = of_origin.clone();
        wrong[name] = value;
        assert_eq!(send(&newer(&wrong)), (400, code), "{name}");
    }
    let of_type = |kind: &str, format: &str, value: &str| {
        vendor.sign(&with(
            "sub",
            json!({ "identifierValue": value, "identifierType": kind, "identifierFormat": format }),
        ))
    };
    assert_eq!(send(&of_type("shoe_size", "plaintext", "44")), (400, 4));
    assert_eq!(send(&of_type("email", "sha256", "jane@example.com")), (400, 5));
    assert_eq!(server.members("did visit", "user_id"), ["ada", "bob", "carl"]);

    // As 2.0 has it, with the identifier hashed.
    let origin =
        publisher.sign(&json!({ "version": "2.0", "jti": "3", "iss": name(&first), "iat": now() }));
    let hash = "8c87b489ce35cf2e2f39f80e282cb2e804932a56a213983eeeb428407d43b52d";
    let token = vendor.sign(&json!({
        "version": "2.0", "orJWT": origin, "jti": "3", "iss": name(&second), "iat": now(),
        "identifierValue": hash, "identifierType": "email", "identifierFormat": "sha256",
    }));
    // Several times at once it is one request, too.
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| send(&token))).collect();
        asked.into_iter().for_each(|asked| assert_eq!(asked.join().unwrap(), (202, 10_000)));
    });
    server.until("she is erased", || server.count("did visit") == 3);
    let list = server.ok(&["receipt", "list"]);
    assert_eq!(list.matches(&name(&second)).count(), 2, "{list}");

    // What more people have than one request erases is told, and nothing is said to be done.
    let shared = |n: u32| json!({ "site": "t", "event": "visit", "ids": { "user_id": format!("u{n}"), "email": "all@example.com" } });
    let all: Vec<Value> = (0..1_200).map(shared).collect();
    all.chunks(400).for_each(|some| server.accepts(some));
    assert_eq!(server.count("did visit"), 1_203);
    assert_eq!(send(&of_type("email", "plaintext", "all@example.com")), (400, 5));
    // Keys are kept, and asked for again where one is not among them, but not at every request.
    assert!(vendor.asked.lock().unwrap().len() <= 8, "{:?}", vendor.asked);

    // Without leave, no domain leads into the own network.
    let server = Server::start_in(&[], &settings(false), &[], &roots);
    let before = vendor.asked.lock().unwrap().len();
    let url = format!("{}/privacy/delete", server.collect());
    let answer = post(&url, &vendor.sign(&request("ada", "9")), &[]);
    assert_eq!((answer.status, &acknowledged(&server, &answer)["raResultCode"]), (400, &json!(2)));
    assert_eq!(vendor.asked.lock().unwrap().len(), before);
}

#[test]
fn nobody_is_asked_to_delete_where_the_settings_name_no_domain() {
    let server = Server::start(&[]);
    assert_eq!(get(&format!("{}/dsrdelete.json", server.collect()), &[]).status, 404);
    assert_eq!(post(&format!("{}/privacy/delete", server.collect()), "x", &[]).status, 404);
}
