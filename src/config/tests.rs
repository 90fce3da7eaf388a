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
fn all_problems_are_told_at_once() {
    let error = read_text(
        "[colect]\nlisten = 1\n[collect]\nlisten = \"nowhere\"\n[journal]\ndurabilty = \"disk\"\n\
         [events]\nretention = \"1y\"\n[console]\nlisten = \"0.0.0.0:1\"\n\
         [[site]]\nkey = \"a b\"\nconsent = \"opt_in\"\norigin = []\n",
        &[],
        &[],
    )
    .unwrap_err();
    for part in [
        "colect: unknown key; did you mean `collect`?",
        "collect.listen: ",
        "durabilty: unknown key; did you mean `durability`?",
        "events.retention: expected a period",
        "console.listen: 0.0.0.0:1 is beyond loopback",
        "origin: unknown key; did you mean `origins`?",
        "site[0].key: expected",
    ] {
        assert!(error.contains(part), "{part:?} is not in:\n{error}");
    }
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
