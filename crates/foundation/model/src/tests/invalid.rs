//! Mistakes, each made in the example that has every key; the snapshot shows what is said.

use std::path::Path;

use crate::{Finding, Severity, Spec};

const FULL: &str = include_str!("../../../../../examples/full.yaml");

/// A name, a piece of the example that occurs once, and what stands there instead.
const MISTAKES: &[(&str, &str, &str)] = &[
    // The text itself.
    ("unclosed bracket", "nodes:\n", "nodes: [\n"),
    (
        "unclosed brace",
        "repository: { url: \"file:///srv/lifeboat/east\" } }",
        "repository: { url: \"file:///srv/lifeboat/east\" }",
    ),
    ("unclosed quote", "server: \"127.0.0.1:5353\"", "server: \"127.0.0.1:5353"),
    ("tab as indentation", "    tier: tier-1", "\ttier: tier-1"),
    ("two documents", "regions:\n", "---\nregions:\n"),
    ("unknown anchor", "tier: tier-1", "tier: *first"),
    ("list for a map", "tiers:\n", "tiers: []\nx:\n"),
    // Keys.
    ("unknown key at the top", "witness: north", "witnes: north"),
    ("unknown key deep below", "rate_limit: 200MiB/s", "ratelimit: 200MiB/s"),
    ("unknown key, nothing near", "versioned: true", "colour: red"),
    ("duplicate key", "    home: east", "    home: east\n    home: west"),
    ("duplicate service", "alerts:\n", "  payments: {}\nalerts:\n"),
    ("missing key", "rto: 5m,  rpo: 0s", "rpo: 0s"),
    ("two missing keys", "rto: 30m, rpo: 5m", ""),
    ("missing language", "lifeboat: 1\n", ""),
    ("language of the future", "lifeboat: 1\n", "lifeboat: 2\n"),
    ("key without a value", "    home: east ", "    home: "),
    ("a number as a name", "    home: east ", "    home: 5 "),
    ("a name that is no name", "  tier-4:", "  \"tier 4\":"),
    ("a name that climbs", "      ledger:", "      ../ledger:"),
    // Units and numbers.
    ("duration without a unit", "rto: 4h", "rto: 4"),
    ("duration in words", "rto: 4h", "rto: 4 hours"),
    ("duration in upper case", "rto: 4h", "rto: 4H"),
    ("negative duration", "rto: 4h", "rto: -4h"),
    ("overflowing duration", "rto: 4h", "rto: 99999999999999999999d"),
    ("rate without time", "rate_limit: 200MiB/s", "rate_limit: 200MiB"),
    ("decimal unit", "rate_limit: 200MiB/s", "rate_limit: 200MB/s"),
    ("negative number", "workers: 2", "workers: -2"),
    ("no workers", "workers: 2", "workers: 0"),
    ("not a number", "workers: 2", "workers: .nan"),
    ("infinity", "workers: 2", "workers: .inf"),
    ("fraction", "workers: 2", "workers: 2.5"),
    ("too large a number", "workers: 2", "workers: 70000"),
    ("yes for true", "automatic: true", "automatic: yes"),
    ("schedule of three fields", "schedule: \"0 2 * * *\"", "schedule: \"0 2 *\""),
    ("schedule out of range", "schedule: \"0 2 * * *\"", "schedule: \"61 2 * * *\""),
    ("unknown compression", "zstd-1", "zstd-99"),
    ("relative path", "state: /var/lib/lifeboat", "state: lifeboat"),
    // Words with few values.
    ("misspelt engine", "engine: postgres", "engine: postgress"),
    ("unknown mode", "mode: stream", "mode: push"),
    ("unknown on_quorum_loss", "on_quorum_loss: stop", "on_quorum_loss: continue"),
    ("unknown on_loss", "spool, on_loss: block", "spool, on_loss: { degrade: 30s }"),
    ("on_loss as a number", "spool, on_loss: block", "spool, on_loss: 30"),
    ("unknown slot", "- recovery_key: {}", "- pin: 1234"),
    ("two slots in one", "- recovery_key: {}", "- { recovery_key: {}, key_file: \"file:/k\" }"),
    ("encryption by another word", "\nencryption: ", "\nencryption: off\nunused: "),
    // References.
    ("unknown tier", "tier: tier-1", "tier: tier-9"),
    ("unknown home", "    home: east", "    home: eats"),
    ("unknown region of a node", "west-1: { region: west", "west-1: { region: north"),
    ("unknown receiver", "receivers: [east, west]", "receivers: [east, south]"),
    ("unknown service", "depends_on: []", "depends_on: [accounts]"),
    ("unknown person", "approve: {} }", "approve: { promote: { any: 1, of: [oncall-3] } } }"),
    (
        "unknown region of a target",
        "targets: { east: [127.0.1.10], west:",
        "targets: { east: [127.0.1.10], weste:",
    ),
    ("unknown region of a bucket", "west: \"s3://docs-west\"", "wset: \"s3://docs-west\""),
    // Contradictions.
    ("a name as an address", "east: [127.0.1.10]", "east: [pg.example.test]"),
    ("one address in two regions", "west: [127.0.2.10]", "west: [127.0.1.10]"),
    ("unknown TSIG algorithm", "algorithm: hmac-sha256", "algorithm: hmac-md5"),
    ("standby is home", "standby: west", "standby: east"),
    ("service waits for itself", "depends_on: []", "depends_on: [payments]"),
    ("witness is a region", "witness: north", "witness: west"),
    ("no node at home", "east-1: { region: east", "east-1: { region: west"),
    ("nodes for a cloud database", "engine: postgres", "engine: rds"),
    (
        "more approvals than persons",
        "approve: {} }",
        "approve: { promote: { any: 3, of: [oncall-1] } } }",
    ),
    ("more copies than receivers", "remote: 1", "remote: 2"),
    ("stream without receivers", "receivers: [east, west]", "receivers: []"),
    ("storage ages shrink", "warm: 30d", "warm: 300d"),
    ("minimum above active", "minimum: 2", "minimum: 4"),
    ("dns without a server", "        server: \"127.0.0.1:5353\"\n", ""),
    ("two quorum stores", "  lease: 10s", "  local: {}\n  lease: 10s"),
    (
        "no slot",
        "    - passphrase: \"file:/etc/lifeboat/passphrase\"\n    - recovery_key: {} ",
        "    []",
    ),
    ("relative file URL", "file:///srv", "file://srv"),
    ("unknown scheme", "file:///srv/lifeboat/east", "ftp://srv/east"),
    (
        "one repository for both",
        "s3://acme-dr-west/lifeboat\", endpoint: \"${S3_ENDPOINT}\"",
        "file:///srv/lifeboat/east\"",
    ),
    ("no public key", "oncall-1: { key: \"ed25519:BASE64\"", "oncall-1: { key: \"rsa\""),
    // Secrets.
    ("literal passphrase", "file:/etc/lifeboat/passphrase", "hunter2"),
    (
        "literal password in a connection",
        "port=5432 user=postgres\", address: \"10.1",
        "port=5432 password=hunter2\", address: \"10.1",
    ),
    ("literal password in a URL", "\"${ALERT_WEBHOOK}\"", "https://me:hunter2@example.test/"),
    ("secret under a wrong key", "secret: \"file:/etc/lifeboat/tsig\"", "secrets: hunter2"),
    ("broken variable", "${S3_ENDPOINT}", "${S3-ENDPOINT}"),
    ("passphrase with escapes", "file:/etc/lifeboat/passphrase", "hun\\x74er2"),
    // Safety.
    (
        "no slot that is made",
        "    - passphrase: \"file:/etc/lifeboat/passphrase\"\n    - recovery_key: {} ",
        "    - kms: { key: alias/x }",
    ),
    ("lease too short", "lease: 10s", "lease: 6s"),
    ("margin too small", "margin: 1s", "margin: 100ms"),
    ("automatic without a quorum store", "quorum:\n", "no_store:\n"),
    ("serve without quorum", "on_quorum_loss: stop", "on_quorum_loss: serve"),
    ("no witness", "witness: north", "#"),
    ("one observer", "observers_agree: 2", "observers_agree: 1"),
    // Objectives.
    ("archive for no loss", "mode: stream", "mode: archive"),
    ("no acknowledgement", "acknowledge: { remote: 1, durable: spool, on_loss: block }, ", ""),
    ("degrades", "spool, on_loss: block", "spool, on_loss: { degrade_after: 30s }"),
    ("flushes too seldom", "rpo: 0s }", "rpo: 200ms }"),
];

fn findings(text: &str) -> Vec<Finding> {
    let loaded = Spec::load(text, Path::new("lifeboat.yaml"));
    let wrong = loaded.findings.iter().any(|finding| finding.severity == Severity::Error);
    assert_eq!(loaded.spec.is_none(), wrong, "a spec is handed out if and only if it has no error");
    let said = |finding: &Finding| finding.severity != Severity::NotProtected;
    loaded.findings.into_iter().filter(said).collect()
}

#[test]
fn every_mistake_is_found_and_explained() {
    assert_eq!(findings(FULL), Vec::new());
    let mut report = String::new();
    for (name, piece, instead) in MISTAKES {
        assert_eq!(FULL.matches(piece).count(), 1, "{name}: {piece:?} must occur once");
        let found = findings(&FULL.replacen(piece, instead, 1));
        assert!(!found.is_empty(), "{name}: nothing was found");
        report.push_str(&format!("## {name}\n\n"));
        for finding in found {
            assert!(!finding.hint.is_empty() && finding.line > 0 && finding.column > 0);
            let shown = finding.to_string();
            assert!(!shown.contains("hunter2"), "{name}: a secret is shown: {shown}");
            report.push_str(&format!("{shown}\n\n"));
        }
    }
    insta::assert_snapshot!(report);
}

#[test]
fn five_mistakes_are_five_findings() {
    let text = "\
lifeboat: 1
regions:
  east: { repository: { url: \"file:///srv/east\" } }
  west: { repository: { url: \"file:///srv/west\", pathstyle: true } }
tiers:
  gold: { rto: 5 minutes, rpo: 1m }
services:
  shop:
    tier: golden
    home: east
    databases:
      main:
        engine: postgres
        nodes:
          east-1: { region: eats, data_directory: /pg, connection: \"host=/run\" }
        backup: { workers: -1 }
";
    let places: Vec<_> = findings(text)
        .into_iter()
        .map(|found| (found.path, found.line, found.column, found.excerpt.trim().to_owned()))
        .collect();
    let expected = [
        ("regions.west.repository.pathstyle", 4, 50),
        ("tiers.gold.rto", 6, 16),
        ("services.shop.tier", 9, 11),
        ("services.shop.databases.main.nodes.east-1.region", 15, 29),
        ("services.shop.databases.main.backup.workers", 16, 28),
    ];
    for ((path, line, column, excerpt), expected) in places.iter().zip(expected) {
        assert_eq!((path.as_str(), *line, *column), expected);
        assert_eq!(excerpt, text.lines().nth(line - 1).unwrap().trim());
    }
    assert_eq!(places.len(), 5, "{places:#?}");
}

#[test]
fn objectives_are_compared_with_what_ships_wal() {
    let archive = |rpo: &str, wal: &str| -> Vec<String> {
        let text = FULL
            .replace("rto: 5m,  rpo: 0s", &format!("rto: 5m, rpo: {rpo}"))
            .replace("{ mode: stream,", &format!("{{ {wal}"));
        findings(&text)
            .into_iter()
            .inspect(|finding| assert_eq!(finding.severity, Severity::Objective))
            .map(|finding| finding.message)
            .collect()
    };
    assert_eq!(archive("5m", "every: 5m,"), Vec::<String>::new());
    assert_eq!(
        archive("5m", "every: 15m,"),
        ["rpo 5m < wal.every 15m: up to 15m of work can be lost"]
    );
    assert_eq!(
        archive("5m", ""),
        ["rpo 5m, but without wal.every nothing bounds how long a commit waits in a segment \
          that is not full"]
    );
}

#[test]
fn a_syntax_error_does_not_hide_the_mistakes_of_other_sections() {
    let text =
        FULL.replace("rto: 4h", "rto: 4").replace("  rules: { lag: 5m,", "  rules: { lag: 5m");
    let paths: Vec<String> = findings(&text).into_iter().map(|finding| finding.path).collect();
    assert_eq!(paths, ["tiers.tier-3.rto", "alerts"]);
}

#[test]
fn hostile_texts_are_refused_quickly_and_by_name() {
    let message = |text: &str| -> Vec<String> {
        findings(text).into_iter().map(|finding| finding.message).collect()
    };
    let marked = format!("\u{feff}{FULL}");
    assert_eq!(message(&marked), ["the file begins with a byte order mark"]);
    let windows = FULL.replace('\n', "\r\n");
    assert_eq!(message(&windows), ["lines end in CR LF, as on Windows"]);
    let large = format!("{FULL}#{}", "x".repeat(1 << 20));
    assert_eq!(message(&large), ["the file has more than 1048576 bytes"]);
    let deep = format!("lifeboat: {}1{}", "[".repeat(60), "]".repeat(60));
    assert_eq!(message(&deep)[0], "nested deeper than 32 levels");
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [below.as_str(); 9].join(", ")));
    }
    let said = message(&bomb);
    assert_eq!(said.len(), 1, "{said:?}");
    let wide = format!("lifeboat: 1\nregions: [{}]", "1,".repeat(200_000));
    assert_eq!(message(&wide), ["more than 100000 keys and values"]);
    for text in
        ["", "#", "---", "- a", "text", "\0", "a: b: c", "? ", "!!map", "%YAML 9", "{", "&a"]
    {
        assert!(!findings(text).is_empty(), "{text:?} passed");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_spec_panic(at in 0..FULL.len(), piece in "[\\PC\n\t]{0,12}", cut in 0_usize..40) {
        let start = FULL.floor_char_boundary(at);
        let end = FULL.floor_char_boundary((start + cut).min(FULL.len()));
        let text = format!("{}{piece}{}", &FULL[..start], &FULL[end..]);
        findings(&text);
    }
}
