use super::*;
use std::io::Write;

fn read_text(text: &str, set: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let overrides = Overrides {
        environment: environment.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        set: set.iter().map(|s| (*s).into()).collect(),
    };
    read(Some(file.path()), &overrides).map_err(|error| error.to_string())
}

#[test]
fn the_shipped_file_states_the_defaults() {
    let shipped = include_str!("../../config/throng.toml");
    assert_eq!(read_text(shipped, &[], &[]), Ok(Config::default()));
    // Every key is spelled out, not only left to its default.
    let stated: toml::Table = shipped.parse().unwrap();
    let defaults = toml::Table::try_from(Config::default()).unwrap();
    for (key, value) in &defaults {
        let Some(table) = value.as_table() else { continue };
        for inner in table.keys() {
            assert!(stated[key].as_table().unwrap().contains_key(inner), "{key}.{inner}");
        }
    }
}

#[test]
fn files_of_tls_are_for_tls_and_a_certificate_has_its_key() {
    let tls = "[store]\nbackend = \"redis\"\nurl = \"rediss://r.example:6379\"\n";
    let all = "ca = \"ca.pem\"\ncertificate = \"node.pem\"\nkey = \"node.key\"\n";
    let trust = read_text(&format!("{tls}{all}"), &[], &[]).unwrap().store.trust();
    assert_eq!(trust.own, Some(("node.pem".into(), "node.key".into())));
    assert_eq!(trust.ca, Some("ca.pem".into()));
    let error = read_text(&format!("{tls}key = \"node.key\"\n"), &[], &[]).unwrap_err();
    assert!(error.contains(":4: store.key: expected store.certificate"), "{error}");
    let error = read_text("[store]\nca = \"ca.pem\"\n", &[], &[]).unwrap_err();
    assert!(error.contains(":2: store.ca: it is for TLS"), "{error}");
}

#[test]
fn later_sources_go_over_earlier_ones() {
    let config = read_text(
        "[collect]\nlisten = \"127.0.0.1:1\"\n[activate]\nmin_size = 5\n",
        &["collect.listen=127.0.0.1:3", "events.retention=7d"],
        &[
            ("THRONG_COLLECT__LISTEN", "127.0.0.1:2"),
            ("THRONG_JOURNAL__DURABILITY", "disk-buffered"),
            ("THRONG_DATA", "/x"),
        ],
    )
    .unwrap();
    assert_eq!(config.collect.listen.port(), 3);
    assert_eq!(config.activate.min_size, 5);
    assert_eq!(config.journal.durability, Durability::DiskBuffered);
    assert_eq!(config.events.retention.to_string(), "7d");
    assert_eq!(config.sites, [Site::demo()]);
}

#[test]
fn a_cluster_s_settings_read_and_a_secret_in_the_place_of_its_source_is_not_shown() {
    let text = "[store]\nshards = 8\nlanes = 4\n[cluster]\naddress = \"[fd00::7]:8081\"\n\
                secret = \"file:/run/secrets/peers\"\n";
    let config = read_text(text, &[], &[]).unwrap();
    assert_eq!((config.lanes(), Config::default().lanes()), (4, 16));
    assert_eq!(config.cluster.address.as_deref(), Some("[fd00::7]:8081"));
    assert_eq!(config.cluster.secret, Some(SecretSource::File("/run/secrets/peers".into())));
    let variable = [("THRONG_CLUSTER__SECRET", "env:PEERS")];
    let config = read_text("", &["store.shards=3"], &variable).unwrap();
    assert_eq!(config.cluster.secret, Some(SecretSource::Env("PEERS".into())));
    assert_eq!(config.lanes(), 3);
    let error = read_text(
        "[cluster]\nadress = \"a\"\naddress = \"0.0.0.0:1\"\nsecret = \"s3cret\"\n",
        &[],
        &[("THRONG_CLUSTER__SECRET", "123456789")],
    )
    .unwrap_err();
    for part in [
        ":2: cluster.adress: unknown key; did you mean `address`?",
        ":3: cluster.address: expected a host and a port that others reach",
        "THRONG_CLUSTER__SECRET: cluster.secret: expected where the secret is",
    ] {
        assert!(error.contains(part), "{part:?} is not in:\n{error}");
    }
    assert!(!error.contains("s3cret") && !error.contains("123456789"), "{error}");
}

#[test]
fn partners_are_read_and_what_is_wrong_with_one_is_told() {
    let text = "[[partner]]\nname = \"xandr\"\nkind = \"xandr\"\nhere = \"https://t.shop.example\"\n\
                [[partner]]\nname = \"dsp\"\nurl = \"https://dsp.example/sync?u={id}&g={gdpr}\"\nevery = \"30d\"\n";
    let config = read_text(text, &[], &[]).unwrap();
    let [xandr, dsp] = &config.partners[..] else { panic!("{:?}", config.partners) };
    assert_eq!(
        (xandr.namespace(), dsp.namespace(), dsp.kind),
        ("xandr", "dsp", PartnerKind::Generic)
    );
    assert_eq!(
        (xandr.every.to_string(), dsp.every.to_string()),
        ("14d".to_owned(), "30d".to_owned())
    );
    assert_eq!(
        lifetimes(&config.partners),
        [("dsp", 60), ("xandr", 30)].map(|(name, days)| (name.to_owned(), days * DAY)).into()
    );
    let text = "[[partner]]\nname = \"a\"\nttl = \"14d\"\n[[site]]\nkey = \"s\"\npartners = [\"b\"]\nmax_syncs_per_page = 0\n";
    let error = read_text(text, &[], &[]).unwrap_err();
    for part in [
        "partner[0].ttl: expected more than `every`",
        "site[0].partners: no [[partner]] has the name \"b\"",
        "site[0].max_syncs_per_page: expected 1 to 20",
    ] {
        assert!(error.contains(part), "{part:?} is not in:\n{error}");
    }
    let text = "[[partner]]\nname = \"A\"\nurl = \"http://dsp.example\"\nevery = \"1h\"\n\
                [[partner]]\nname = \"g\"\nkind = \"google\"\nurl = \"https://x.example\"\n\
                [[partner]]\nkind = \"xandr\"\nnam = \"x\"\n\
                [[partner]]\nname = \"g\"\nkind = \"xandr\"\n\
                [[partner]]\nname = \"h\"\nurl = \"https://{id}.example/{here}{you}\"\nhere = \"https://a/b\"\nnamespace = \"A b\"\n";
    let error = read_text(text, &[], &[]).unwrap_err();
    for part in [
        ":2: partner[0].name: expected 1 to 32 lower-case letters",
        ":3: partner[0].url: expected an address that begins with https://",
        ":4: partner[0].every: expected 1d to 365d",
        "partner[1].account: expected who you are there",
        ":8: partner[1].url: it is for kind",
        "partner[2].name: missing: what stands in /sync/NAME",
        "partner[2].nam: unknown key; did you mean `name`?",
        "\"g\" is used twice",
        "here: missing: where browsers reach this listener",
        "no macro and no name of a user may stand in the host",
        "an unknown macro; there are {id}, {id_base64}",
        "expected an origin, such as https://t.shop.example",
        "namespace: expected a lower-case letter",
    ] {
        assert!(error.contains(part), "{part:?} is not in:\n{error}");
    }
}

#[test]
fn all_problems_are_told_at_once_each_with_its_place() {
    let text = "[colect]\nlisten = 1\n[collect]\nlisten = \"nowhere\"\nworkers = -1\ntrusted_proxies = [\"x\"]\n\
                [journal]\ndurabilty = \"disk\"\n[events]\nretention = \"1y\"\n\
                [console]\nlisten = \"0.0.0.0:1\"\n\
                [[site]]\nkey = \"a b\"\nconsent = \"opt_in\"\norigin = []\ntcf_vendor = 0\n[[site]]\nconsent = \"maybe\"\ntcf_vendor = 65536\n";
    let environment = [("THRONG_ARCHIVE__FILE_AGE", "ever")];
    let error = read_text(text, &["segments.every=0s", "sites.key=x"], &environment).unwrap_err();
    let mut lines: Vec<&str> = error.lines().collect();
    for part in [
        ":1: colect: unknown key; did you mean `collect`?",
        ":4: collect.listen: expected an address and a port, such as 127.0.0.1:8080",
        ":5: collect.workers: invalid value: integer `-1`, expected a whole number",
        ":6: collect.trusted_proxies: \"x\": expected an address, such as 10.0.0.7",
        ":8: journal.durabilty: unknown key; did you mean `durability`?",
        ":10: events.retention: expected a period",
        ":12: console.listen: 0.0.0.0:1 is beyond loopback",
        ":14: site[0].key: expected",
        ":16: site[0].origin: unknown key; did you mean `origins`?",
        ":17: site[0].tcf_vendor: expected your id in the Global Vendor List, 1 to 65535",
        ":18: site[1].key: missing",
        ":19: site[1].consent: unknown variant `maybe`",
        ":20: site[1].tcf_vendor: invalid value: integer `65536`, expected a whole number from 0 to 65535",
        "THRONG_ARCHIVE__FILE_AGE: archive.file_age: expected a period",
        "--set: segments.every: expected 10ms to 1h",
        "sites: unknown key; did you mean `site`?",
    ] {
        let at = lines.iter().position(|line| line.contains(part));
        lines.remove(at.unwrap_or_else(|| panic!("{part:?} is not in:\n{error}")));
    }
    assert!(lines.is_empty(), "told twice, or more than is wrong: {lines:#?}");
}

#[test]
fn numbers_have_bounds() {
    for (set, expected) in [
        ("events.retention=36h", "events.retention: expected whole days, 1d to 36500d"),
        ("events.retention=36501d", "events.retention: expected whole days, 1d to 36500d"),
        ("events.dedup_memory=0", "events.dedup_memory: expected 1MiB or more"),
        ("journal.spool=1KiB", "journal.spool: expected 1MiB or more"),
        ("archive.file_size=0B", "archive.file_size: expected 64KiB to 16GiB"),
        ("archive.file_age=0s", "archive.file_age: expected 1s to 1d"),
        ("segments.every=9ms", "segments.every: expected 10ms to 1h"),
        ("segments.audit=0s", "segments.audit: expected 1s to 7d"),
        ("segments.threads=1025", "segments.threads: expected 0 to 1024"),
        ("collect.workers=1025", "collect.workers: expected 0 to 1024"),
        ("collect.rate_per_address=0", "collect.rate_per_address: expected 1 or more"),
        ("collect.burst_per_address=0", "collect.burst_per_address: expected 1 or more"),
        ("store.lanes=0", "store.lanes: expected 1 to 16, the number of shards"),
        ("store.lanes=17", "store.lanes: expected 1 to 16, the number of shards"),
        ("store.shards=4097", "store.shards: expected 1 to 4096"),
    ] {
        let error = read(None, &Overrides { set: vec![set.into()], ..Overrides::default() });
        assert_eq!(error.unwrap_err().to_string(), format!("--set: {expected}"));
    }
}

#[test]
fn an_event_is_durable_in_redis_only_where_the_store_is() {
    let durable = |set: &[&str]| read_text("", set, &[]).map(|config| config.journal.durability);
    let mode = "journal.durability=redis-replicated(2)";
    let expected = Durability::Redis(RedisMode::Replicated(2));
    assert_eq!(durable(&[mode, "store.backend=redis"]), Ok(expected));
    let error = durable(&[mode]).unwrap_err();
    assert!(error.contains("`redis-replicated(2)` is for store.backend = \"redis\""), "{error}");
    let error = durable(&["journal.durability=redis"]).unwrap_err();
    assert!(error.contains("journal.durability: expected `disk`, `disk-buffered`"), "{error}");
}

#[test]
fn origins_fit_by_scheme_host_and_port() {
    let fits = |pattern: &str, origin: &str| OriginPattern(pattern.into()).matches(origin);
    assert!(fits("http://localhost:*", "http://localhost:8000"));
    assert!(fits("http://localhost:*", "http://localhost"));
    assert!(!fits("http://localhost:*", "https://localhost:8000"));
    assert!(fits("https://shop.example", "https://SHOP.example:443"));
    assert!(!fits("https://shop.example", "https://shop.example.evil.example"));
    assert!(fits("https://*.shop.example", "https://a.b.shop.example"));
    assert!(!fits("https://*.shop.example", "https://shop.example"));
    assert!(!fits("https://*.shop.example", "https://evilshop.example"));
    assert!(!fits("https://shop.example", "null"));
    assert!(!fits("https://shop.example", "https://shop.example@evil.example"));
    assert!(fits("http://[::1]:*", "http://[::1]:90"));
}

#[test]
fn a_private_listener_beyond_loopback_wants_tls_and_a_certificate_its_key() {
    let console = "[console]\nlisten = \"0.0.0.0:8081\"\n";
    let error = read_text(console, &[], &[]).unwrap_err();
    assert!(error.contains(":2: console.listen: 0.0.0.0:8081 is beyond loopback"), "{error}");
    let tls = "tls = { certificate = \"tls.pem\", key = \"tls.key\" }\n";
    let config = read_text(&format!("{console}{tls}[collect]\n{tls}"), &[], &[]).unwrap();
    let files = Tls { certificate: "tls.pem".into(), key: "tls.key".into() };
    assert_eq!((config.console.tls, config.collect.tls), (Some(files.clone()), Some(files)));
    let set = ["collect.tls.certificate=a.pem", "collect.tls.key=a.key"];
    assert!(read_text("", &set, &[]).is_ok());
    let error = read_text("", &set[..1], &[]).unwrap_err();
    assert!(error.contains("collect.tls") && error.contains("`key`"), "{error}");
    let error = read_text("[collect]\ntls = { cert = \"a\" }\n", &[], &[]).unwrap_err();
    assert!(error.contains(":2: collect.tls"), "{error}");
    let shared = format!("[store]\nbackend = \"redis\"\n{console}{tls}");
    let error = read_text(&shared, &[], &[]).unwrap_err();
    assert!(error.contains("console.tls: nodes that share a store"), "{error}");
}
