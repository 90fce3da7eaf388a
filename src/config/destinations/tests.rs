//! Destinations as the file says them, and what is told of a wrong one.

use super::*;
use crate::model::time::DAY;

#[test]
fn a_file_destination_reads_with_its_defaults() {
    let text = "[[destination]]\nname = \"crm\"\nkind = \"file\"\npath = \"out\"\n\
                [[destination]]\nname = \"b_2\"\nkind = \"file\"\npath = \"/x\"\n\
                format = \"ndjson\"\nevery = \"5m\"\nsuppress = [\"staff\"]\nfresh = \"seen\"\n";
    let read = parse(text).unwrap();
    assert_eq!(read[0].every, Period(MINUTE));
    let file = |path: &str, format| DestinationKind::File {
        path: path.into(),
        style: FileStyle { format, gzip: false, adobe: None, liveramp: None },
    };
    assert_eq!(read[0].kind, file("out", FileFormat::Csv));
    assert_eq!(read[1].kind, file("/x", FileFormat::Ndjson));
    assert_eq!(read[1].every, Period(5 * MINUTE));
    assert_eq!(
        serde_json::to_string(&read[1]).unwrap(),
        r#"{"name":"b_2","every":"5m","max_drain":30,"suppress":["staff"],"fresh":"seen","kind":"file","path":"/x","format":"ndjson"}"#
    );
}

#[test]
fn a_webhook_is_shown_without_what_may_be_a_key() {
    let text = "[[destination]]\nname = \"crm\"\nkind = \"webhook\"\nevery = \"10s\"\n\
                url = \"https://crm.example/in?key=k3y\"\nsecret = \"env:CRM\"\n";
    let read = parse(text).unwrap().remove(0);
    let DestinationKind::Webhook { url, secret } = &read.kind else { panic!("{read:?}") };
    assert_eq!(url.as_str(), "https://crm.example/in?key=k3y");
    assert_eq!(*secret, SecretSource::Env("CRM".into()));
    assert_eq!(
        serde_json::to_string(&read).unwrap(),
        r#"{"name":"crm","every":"10s","max_drain":30,"kind":"webhook","url":"https://crm.example/in?…","secret":"env:CRM"}"#
    );
}

#[test]
fn a_bucket_has_a_place_and_both_keys_or_none() {
    let text = "[[destination]]\nname = \"b\"\nkind = \"s3\"\npath = \"s3://partner/throng/\"\n";
    let read = parse(text).unwrap().remove(0);
    assert_eq!(
        serde_json::to_string(&read).unwrap(),
        r#"{"name":"b","every":"1m","max_drain":30,"kind":"s3","path":"s3://partner/throng","format":"csv"}"#
    );
    for (wrong, part) in [
        ("access_key = \"env:A\"", "expected both keys or none"),
        (
            "access_key = \"AKIA\"\nsecret_key = \"env:B\"",
            "access_key: expected where the secret is",
        ),
        ("endpoint = \"s3.example\"", "endpoint: expected where the store answers"),
        ("format = \"xml\"", "format: expected"),
        ("bucket = \"x\"", "bucket: unknown key"),
    ] {
        let problems = parse(&format!("{text}{wrong}\n")).unwrap_err().join("\n");
        assert!(problems.contains(part) && !problems.contains("AKIA"), "{part}: {problems}");
    }
    let problems = parse(&text.replace("s3://", "/")).unwrap_err().join("\n");
    assert!(problems.contains("path: expected a bucket such as"), "{problems}");
}

#[test]
fn a_platform_has_an_account_a_token_and_audiences() {
    let text = "[[destination]]\nname = \"m\"\nkind = \"meta\"\naccount = \"77\"\ntoken = \"env:T\"\n\
                audiences = { buyers = \"23857\" }\n";
    let read = parse(text).unwrap().remove(0);
    assert_eq!(
        serde_json::to_string(&read).unwrap(),
        r#"{"name":"m","every":"1m","max_drain":30,"kind":"meta","url":"https://graph.facebook.com/v25.0","account":"77","token":"env:T","audiences":{"buyers":"23857"}}"#
    );
    for (wrong, part) in [
        ("account = \"7/7\"\ntoken = \"env:T\"", "account: expected letters"),
        ("token = \"env:T\"", "account: missing: the ad account's number"),
        ("account = \"7\"", "token: missing"),
        ("account = \"7\"\ntoken = \"EAAB\"", "token: expected where the secret is"),
        ("account = \"7\"\ntoken = \"env:T\"\naudiences = { a = 7 }", "audiences: expected"),
        ("account = \"7\"\ntoken = \"env:T\"\naudiences = { a = \"../b\" }", "audiences: expected"),
        (
            "account = \"7\"\ntoken = \"env:T\"\naudiences = { a = \"1\", b = \"1\" }",
            "audiences: two segments go to 1",
        ),
        ("account = \"7\"\ntoken = \"env:T\"\nttl = \"30d\"", "ttl: unknown key"),
    ] {
        let text = format!("[[destination]]\nname = \"m\"\nkind = \"meta\"\n{wrong}\n");
        let problems = parse(&text).unwrap_err().join("\n");
        assert!(problems.contains(part) && !problems.contains("EAAB"), "{problems}");
    }
}

#[test]
fn the_trade_desk_has_a_secret_and_an_end() {
    let text = "[[destination]]\nname = \"ttd\"\nkind = \"trade-desk\"\naccount = \"abc123\"\n\
                token = \"env:TTD\"\n";
    let read = parse(text).unwrap().remove(0);
    assert_eq!(
        serde_json::to_string(&read).unwrap(),
        r#"{"name":"ttd","every":"1m","max_drain":30,"kind":"trade-desk","url":"https://usw-data.adsrvr.org/","account":"abc123","token":"env:TTD","ttl":"30d"}"#
    );
    let more = "secret = \"env:KEY\"\nttl = \"180d\"\naudiences = { buyers = \"auto\" }\n";
    let read = parse(&format!("{text}{more}")).unwrap().remove(0);
    let DestinationKind::TradeDesk(settings) = &read.kind else { panic!("{read:?}") };
    assert_eq!(settings.secret, Some(SecretSource::Env("KEY".into())));
    assert_eq!(settings.ttl, Some(Period(180 * DAY)));
    assert_eq!(settings.audiences["buyers"], "auto");
    for (wrong, part) in [
        ("ttl = \"181d\"", "ttl: expected a time from 2d to 180d"),
        ("ttl = \"1d\"", "ttl: expected a time from 2d to 180d"),
        ("version = \"3\"", "version: unknown key"),
        ("audiences = { buyers = \"a b\" }", "audiences: expected the platform's id"),
    ] {
        let problems = parse(&format!("{text}{wrong}\n")).unwrap_err().join("\n");
        assert!(problems.contains(part), "{part:?} is not in:\n{problems}");
    }
    let problems = parse("[[destination]]\nname = \"t\"\nkind = \"trade-desk\"\n").unwrap_err();
    let problems = problems.join("\n");
    for part in ["account: missing: the advertiser's id", "token: missing"] {
        assert!(problems.contains(part), "{part:?} is not in:\n{problems}");
    }
}

#[test]
fn an_ad_platform_reads_with_the_defaults_of_its_kind() {
    let entry = |more: &str| format!("[[destination]]\nname = \"ads\"\n{more}");
    let text = entry("kind = \"tiktok\"\naccount = \"7001\"\ntoken = \"env:TIKTOK\"\n");
    let shown = |text: &str| serde_json::to_string(&parse(text).unwrap()[0]).unwrap();
    assert_eq!(
        shown(&text),
        r#"{"name":"ads","every":"1m","max_drain":30,"kind":"tiktok","url":"https://business-api.tiktok.com/open_api/v1.3","account":"7001","token":"env:TIKTOK"}"#
    );
    let linkedin =
        entry("kind = \"linkedin\"\naccount = \"123\"\ntoken = \"file:t\"\nsource = \"EXAMPLE\"\n");
    assert_eq!(
        shown(&linkedin),
        r#"{"name":"ads","every":"1m","max_drain":30,"kind":"linkedin","url":"https://api.linkedin.com/rest","account":"123","token":"file:t","version":"202604","source":"EXAMPLE"}"#
    );
    let problems = parse(&entry("kind = \"linkedin\"\nversion = \"2026-04\"\nttl = \"30d\"\n"));
    let problems = problems.unwrap_err().join("\n");
    for part in [
        "destination[0].account: missing: the sponsored account's number",
        "destination[0].source: missing",
        "destination[0].version: expected a year and a month",
        "destination[0].ttl: unknown key",
    ] {
        assert!(problems.contains(part), "{part:?} is not in:\n{problems}");
    }
    let named = format!("{text}audiences = {{ buyers = \"23857\" }}\n");
    assert!(shown(&named).ends_with(r#""audiences":{"buyers":"23857"}}"#), "{}", shown(&named));
    let problems = parse(&entry(
        "kind = \"tiktok\"\nurl = \"x\"\naudiences = { a = 1 }\nsource = \"us\"\nversion = \"1\"\n",
    ));
    let problems = problems.unwrap_err().join("\n");
    for part in [
        "destination[0].url: expected an address",
        "destination[0].account: missing: the advertiser's number",
        "destination[0].token: missing",
        "destination[0].audiences: expected the platform's id for each segment",
        "destination[0].source: unknown key",
        "destination[0].version: unknown key",
    ] {
        assert!(problems.contains(part), "{part:?} is not in:\n{problems}");
    }
}

#[test]
fn a_server_for_files_has_a_folder_a_user_and_one_way_in() {
    let entry = |more: &str| {
        format!(
            "[[destination]]\nname = \"p\"\nkind = \"sftp\"\nhost = \"h\"\nuser = \"u\"\npath = \"/in/\"\n{more}"
        )
    };
    let fingerprint = format!("SHA256:{}", "a".repeat(43));
    let read = parse(&entry(&format!("key = \"file:k\"\nhost_key = \"{fingerprint}\"\n")))
        .unwrap()
        .remove(0);
    assert_eq!(
        serde_json::to_string(&read).unwrap(),
        format!(
            r#"{{"name":"p","every":"1m","max_drain":30,"kind":"sftp","host":"h","port":22,"user":"u","path":"/in","format":"csv","host_keys":["{fingerprint}"],"key":"file:k"}}"#
        )
    );
    assert!(
        parse(&entry(&format!("password = \"env:P\"\nhost_key = [\"{fingerprint}\"]\n"))).is_ok()
    );
    for (more, expected) in [
        ("", "key: expected where the private key is"),
        ("key = \"file:k\"\npassword = \"env:P\"\n", "key: expected where the private key is"),
        ("key = \"file:k\"\nport = 0\n", "port: expected a number from 1 to 65535"),
        ("key = \"file:k\"\nhost_key = \"MD5:00\"\n", "host_key: expected the fingerprint"),
        ("key = \"file:k\"\nhost_key = []\n", "host_key: expected the fingerprint"),
    ] {
        let problems = parse(&entry(more)).unwrap_err().join("\n");
        assert!(problems.contains(expected), "{expected:?} is not in:\n{problems}");
    }
    let problems = parse("[[destination]]\nname = \"p\"\nkind = \"sftp\"\nkey = \"env:K\"\n")
        .unwrap_err()
        .join("\n");
    for part in ["host: missing", "user: missing", "path: missing"] {
        assert!(problems.contains(part), "{part:?} is not in:\n{problems}");
    }
}

#[test]
fn a_bucket_of_googles_has_a_path_and_someone_who_puts() {
    let entry = |path: &str, more: &str| {
        format!("[[destination]]\nname = \"b\"\nkind = \"gcs\"\npath = \"{path}\"\n{more}")
    };
    for (path, shown) in [
        ("gs://partner/throng/", "gs://partner/throng"),
        ("gs://my.partner-1", "gs://my.partner-1"),
        ("gs://partner/in box/a", "gs://partner/in box/a"),
    ] {
        let read = parse(&entry(path, "key = \"file:k\"\n")).unwrap().remove(0);
        let read = serde_json::to_value(&read).unwrap();
        assert_eq!((&read["kind"], &read["path"]), (&"gcs".into(), &shown.into()));
        assert_eq!(read["url"], "https://storage.googleapis.com/");
    }
    for path in ["partner", "s3://partner", "gs://", "gs://ab", "gs://Partner", "gs://p@x:y/z"] {
        let problems = parse(&entry(path, "key = \"file:k\"\n")).unwrap_err().join("\n");
        assert!(problems.contains("path: expected a bucket such as gs://"), "{path}: {problems}");
    }
    let problems = parse(&entry("gs://partner", "")).unwrap_err().join("\n");
    assert!(problems.contains("key: "), "{problems}");
}

#[test]
fn files_for_liveramp_have_columns_of_its_recipes() {
    let text =
        "[[destination]]\nname = \"lr\"\nkind = \"file\"\npath = \"out\"\nformat = \"liveramp\"\n";
    let read = parse(text).unwrap().remove(0);
    assert_eq!(
        serde_json::to_string(&read).unwrap(),
        r#"{"name":"lr","every":"1m","max_drain":30,"kind":"file","path":"out","format":"liveramp","columns":{"email":"email_sha256","phone":"phone_national_sha1"}}"#
    );
    assert!(
        parse(&format!("{text}columns = {{ maid = \"idfa\", email = \"email_sha256\" }}\n"))
            .is_ok()
    );
    for (wrong, part) in [
        ("columns = {}", "columns: expected the namespace of each column"),
        ("columns = \"email\"", "columns: expected the namespace of each column"),
        ("columns = { audience_key = \"idfa\" }", "columns: expected the namespace of each column"),
        ("columns = { \"a,b\" = \"idfa\" }", "columns: expected the namespace of each column"),
        ("columns = { a = \"IDFA\" }", "columns: expected the namespace of each column"),
        ("columns = { a = \"idfa\", b = \"idfa\" }", "columns: idfa is in two columns"),
        (
            "columns = { a = \"email_gmail_sha256\" }",
            "another recipe than LiveRamp's, which is email_sha256",
        ),
        ("columns = { a = \"phone_e164_sha256\" }", "which is phone_national_sha1"),
        ("namespace = \"crm_id\"", "namespace: it is for format = \"adobe\""),
    ] {
        let problems = parse(&format!("{text}{wrong}\n")).unwrap_err().join("\n");
        assert!(problems.contains(part), "{part}: {problems}");
    }
    let csv = text.replace("liveramp", "csv");
    let problems = parse(&format!("{csv}columns = {{ a = \"idfa\" }}\n")).unwrap_err().join("\n");
    assert!(problems.contains("columns: it is for format = \"liveramp\""), "{problems}");
}

#[test]
fn files_of_adobes_form_have_its_numbers_and_others_have_none_of_them() {
    let entry = |more: &str| {
        format!("[[destination]]\nname = \"f\"\nkind = \"file\"\npath = \"out\"\n{more}")
    };
    let all = "format = \"adobe\"\ncompression = \"gzip\"\ndestination_id = \"423\"\ndata_source = \"12\"\n\
               namespace = \"crm_id\"\nsegments = { buyers = \"14356\" }\n";
    let read = parse(&entry(all)).unwrap().remove(0);
    assert_eq!(
        serde_json::to_string(&read).unwrap(),
        r#"{"name":"f","every":"1m","max_drain":30,"kind":"file","path":"out","format":"adobe","gzip":true,"method":"S3","destination_id":"423","data_source":"12","namespace":"crm_id","segments":{"buyers":"14356"}}"#
    );
    for (more, expected) in [
        ("format = \"adobe\"\n", "destination_id: missing"),
        ("format = \"adobe\"\n", "segments: expected the number of each segment"),
        ("format = \"adobe\"\ndestination_id = \"../x\"\n", "destination_id: expected letters"),
        ("segments = { buyers = \"1\" }\n", "segments: it is for format = \"adobe\""),
        ("compression = \"zip\"\n", "compression: expected \"gzip\""),
        ("format = \"xml\"\n", "format: expected \"csv\""),
    ] {
        let problems = parse(&entry(more)).unwrap_err().join("\n");
        assert!(problems.contains(expected), "{expected:?} is not in:\n{problems}");
    }
}

#[test]
fn a_member_of_xandrs_logs_in_and_says_how_lines_look() {
    let entry = |more: &str| {
        format!(
            "[[destination]]\nname = \"x\"\nkind = \"xandr\"\nmember = \"456\"\nusername = \"u\"\npassword = \"env:P\"\n{more}"
        )
    };
    let read = parse(&entry("")).unwrap().remove(0);
    assert_eq!(
        serde_json::to_string(&read).unwrap(),
        r#"{"name":"x","every":"1m","max_drain":30,"kind":"xandr","url":"https://api.appnexus.com/","member":"456","username":"u","password":"env:P","format":"avro","separators":[",",":"],"gzip":false,"ttl":"30d","settle":"20m","pace":"1m"}"#
    );
    assert!(
        parse(&entry("format = \"text\"\ncompression = \"gzip\"\nseparators = \";,\"\n")).is_ok()
    );
    for (more, expected) in [
        ("compression = \"gzip\"\n", "compression: expected \"gzip\" of format"),
        ("separators = \",,\"\n", "separators: expected two different"),
        ("separators = \"a:\"\n", "separators: expected two different"),
        ("separators = \"|:\"\n", "separators: expected two different"),
        ("ttl = \"181d\"\n", "ttl: expected a time from 2d to 180d"),
        ("format = \"csv\"\n", "format: expected \"avro\""),
        ("audiences = { buyers = \"auto\" }\n", "audiences: expected a segment's number"),
        ("audiences = { buyers = \"0\" }\n", "audiences: expected a segment's number"),
        ("audiences = { buyers = \"2147483648\" }\n", "audiences: expected a segment's number"),
    ] {
        let problems = parse(&entry(more)).unwrap_err().join("\n");
        assert!(problems.contains(expected), "{expected:?} is not in:\n{problems}");
    }
}

#[test]
fn a_google_account_has_one_kind_of_members_and_one_grant() {
    let entry = |more: &str| {
        format!(
            "[[destination]]\nname = \"g\"\nkind = \"google\"\naccount = \"1234567890\"\n{more}"
        )
    };
    let read = parse(&entry("key = \"file:k.json\"\nterms_accepted = true\n")).unwrap().remove(0);
    assert_eq!(
        serde_json::to_string(&read).unwrap(),
        r#"{"name":"g","every":"1m","max_drain":30,"kind":"google","url":"https://datamanager.googleapis.com/v1","account":"1234567890","account_type":"GOOGLE_ADS","members":"contact","key":"file:k.json","token_url":"https://oauth2.googleapis.com/token","auth_url":"https://accounts.google.com/o/oauth2/v2/auth","terms_accepted":true,"ttl":"540d","poll":"30m"}"#
    );
    let refresh = "refresh_token = \"file:r\"\nclient_id = \"c\"\nclient_secret = \"env:S\"\nmembers = \"user\"\n";
    assert!(parse(&entry(refresh)).is_ok());
    for (more, expected) in [
        ("key = \"file:k\"\n", "terms_accepted: expected true"),
        ("members = \"user\"\n", "key: expected where the key of a service account is"),
        ("members = \"idfa\"\nkey = \"file:k\"\n", "app: missing"),
        ("members = \"fax\"\nkey = \"file:k\"\n", "members: expected \"contact\""),
        ("members = \"user\"\nkey = \"file:k\"\nttl = \"36h\"\n", "ttl: expected whole days"),
        ("members = \"user\"\nkey = \"file:k\"\nttl = \"541d\"\n", "ttl: expected whole days"),
        (
            "members = \"user\"\nkey = \"file:k\"\naccount_type = \"ADS\"\n",
            "account_type: expected one of",
        ),
        (
            "members = \"user\"\nkey = \"file:k\"\nlogin_account = \"123-456\"\n",
            "login_account: expected the digits",
        ),
        ("members = \"user\"\nrefresh_token = \"file:r\"\n", "client_id: missing"),
        (
            "members = \"user\"\nkey = \"file:k\"\nad_user_data = \"yes\"\n",
            "ad_user_data: expected true or false",
        ),
    ] {
        let problems = parse(&entry(more)).unwrap_err().join("\n");
        assert!(problems.contains(expected), "{expected:?} is not in:\n{problems}");
    }
}

#[test]
fn pinterest_has_lists_and_neither_a_secret_nor_an_end() {
    let text = "[[destination]]\nname = \"pins\"\nkind = \"pinterest\"\naccount = \"5497\"\n\
                token = \"env:PINS\"\naudiences = { buyers = \"643\" }\n";
    let read = parse(text).unwrap().remove(0);
    assert_eq!(
        serde_json::to_string(&read).unwrap(),
        r#"{"name":"pins","every":"1m","max_drain":30,"kind":"pinterest","url":"https://api.pinterest.com/v5","account":"5497","token":"env:PINS","audiences":{"buyers":"643"}}"#
    );
    for key in ["secret = \"env:KEY\"", "ttl = \"30d\"", "version = \"5\""] {
        let problems = parse(&format!("{text}{key}\n")).unwrap_err().join("\n");
        assert!(problems.contains("unknown key"), "{problems}");
    }
}

#[test]
fn a_destination_can_name_its_vendor() {
    let text = "[[destination]]\nname = \"x\"\nkind = \"file\"\npath = \"out\"\n";
    let vendor = |more: &str| parse(&format!("{text}{more}")).map(|read| read[0].tcf_vendor);
    assert_eq!(vendor(""), Ok(None));
    assert_eq!(vendor("tcf_vendor = 755\n"), Ok(Some(755)));
    for wrong in ["0", "-1", "65536", "\"755\""] {
        let problems = vendor(&format!("tcf_vendor = {wrong}\n")).unwrap_err();
        assert!(
            problems[0].starts_with("destination[0].tcf_vendor: expected an id"),
            "{problems:?}"
        );
    }
}

#[test]
fn all_problems_of_destinations_are_told_at_once() {
    let text = r#"
            destinations = 1
            [[destination]]
            name = "A b"
            kind = "file"
            pth = "out"
            frmat = "csv"
            colour = "red"
            every = "1y"
            [[destination]]
            name = "x"
            kind = "fax"
            [[destination]]
            name = "x"
            kind = "file"
            path = "./out/"
            [[destination]]
            name = "x"
            kind = "file"
            path = "out"
            [[destination]]
            kind = "webhook"
            url = "crm.example/s3cret"
            secret = "s3cret"
            [[destination]]
            name = 7
            [[destination]]
            name = "w"
            kind = "webhook"
            path = "out"
            max_drain = 101
            suppress = "staff"
            fresh = "Seen lately"
            tcf_vendor = 65536
        "#;
    let problems = parse(text).unwrap_err().join("\n");
    for part in [
        "destinations: unknown key; expected [[destination]]",
        "destination[0].name: expected 1 to 64",
        "destination[0].pth: unknown key; did you mean `path`?",
        "destination[0].frmat: unknown key; did you mean `format`?",
        "destination[0].colour: unknown key; expected one of name, kind, every, max_drain, suppress, fresh, tcf_vendor, allow_private, path, format, compression, columns, method, destination_id, data_source, alias, namespace, segments",
        "destination[0].path: missing",
        "destination[0].every: expected a period",
        &format!("destination[1].kind: unknown kind \"fax\"; expected {KINDS}"),
        "two destinations are named `x`",
        "`x` and `x` write to the same path",
        "destination[4].name: missing",
        "destination[4].url: expected an address such as",
        "destination[4].secret: expected where the secret is",
        "destination[5].name: expected a text",
        "destination[5].kind: missing",
        "destination[6].path: unknown key",
        "destination[6].url: missing",
        "destination[6].max_drain: expected a number of percent",
        "destination[6].secret: missing",
        "destination[6].suppress: expected the ids of segments",
        "destination[6].fresh: expected the id of a segment",
        "destination[6].tcf_vendor: expected an id of the Global Vendor List, 1 to 65535",
    ] {
        assert!(problems.contains(part), "{part:?} is not in:\n{problems}");
    }
    assert!(!problems.contains("s3cret"), "{problems}");
}

#[test]
fn the_shipped_file_and_its_example_read() {
    let shipped = include_str!("../../../config/destinations.toml");
    assert_eq!(parse(shipped).unwrap()[0].name, "demo-files");
    let example: String = shipped
        .lines()
        .skip_while(|line| *line != "# [[destination]]")
        .map(|line| format!("{}\n", line.trim_start_matches("# ")))
        .collect();
    let examples = parse(&example).unwrap();
    assert_eq!(examples[0].name, "crm");
    assert!(matches!(examples[1].kind, DestinationKind::Webhook { .. }));
    assert!(matches!(examples[2].kind, DestinationKind::TikTok(_)));
    assert!(matches!(examples[3].kind, DestinationKind::LinkedIn(_)));
    assert!(matches!(&examples[4].kind, DestinationKind::Sftp(to) if to.style.liveramp.is_some()));
    assert_eq!(parse(&format!("{shipped}{example}")).unwrap().len(), 6);
}

#[test]
fn a_missing_file_lists_no_destination() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("destinations.toml");
    assert_eq!(read_destinations(&path).unwrap(), []);
    std::fs::write(&path, "[[destination]]\nname = \"x\"\nkind = \"fax\"\n").unwrap();
    let error = read_destinations(&path).unwrap_err().to_string();
    assert!(error.starts_with(&path.display().to_string()), "{error}");
}
