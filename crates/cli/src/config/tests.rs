//! Tests of the configuration as a whole: every setting from every source, and everything that is
//! refused.

use super::{
    ConfigFile, ConfigSources, GATEWAY, GatewaySettings, ListItemKind, MergedConfig, NODE,
    NodeSettings, SettingDefault, SettingKind, SettingStatus, SettingTable,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PEER: &str =
    "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
const WALLET: &str = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8";

fn file(text: &str) -> ConfigSources {
    ConfigSources {
        file: Some(ConfigFile::parse(Path::new("node.yaml"), text, true).unwrap()),
        ..ConfigSources::default()
    }
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load(sources: &ConfigSources) -> Result<NodeSettings, String> {
    NodeSettings::load(sources, None).map_err(|problems| problems.to_string())
}

fn printed(name: &str) -> ConfigSources {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/printed").join(name);
    ConfigSources { file: Some(ConfigFile::read(&path, true).unwrap()), ..ConfigSources::default() }
}

/// A value that every kind takes and that differs from every default, and one that it refuses.
fn samples(kind: SettingKind) -> (String, Option<&'static str>) {
    let (good, bad) = match kind {
        SettingKind::Bool => ("true", Some("yes")),
        SettingKind::Text => ("some text", Some("a\u{7}b")),
        SettingKind::Namespace => ("other-app", Some("Not A Namespace")),
        SettingKind::Path => ("/srv/x", Some("a\u{0}b")),
        SettingKind::Choice(words) => return (words[words.len() - 1].to_owned(), Some("neither")),
        SettingKind::Integer { max, .. } => return (max.to_string(), Some("100001")),
        SettingKind::Duration { .. } => ("1m30s", Some("90")),
        SettingKind::Size { .. } => ("2GiB", Some("2 giga")),
        SettingKind::ListenAddress => ("127.0.0.1:9999", Some("9999")),
        SettingKind::Host => ("db.example.org:9", Some("a b")),
        SettingKind::JoinAddress => ("http://10.0.0.1:5001", Some("10.0.0.1")),
        SettingKind::WebAddress => ("https://api.example.org", Some("api.example.org")),
        SettingKind::List(ListItemKind::Text) => ("https://a.example", None),
        SettingKind::List(ListItemKind::Multiaddr) => ("/ip4/127.0.0.1/tcp/9", Some("127.0.0.1:9")),
        SettingKind::List(ListItemKind::Peer) => (PEER, Some("/ip4/127.0.0.1/tcp/9")),
        SettingKind::List(ListItemKind::Namespace) => ("other", Some("BAD")),
        SettingKind::List(ListItemKind::ApiKey) => ("ak_x:other", Some("no-namespace")),
        SettingKind::List(ListItemKind::Wallet) => {
            (WALLET, Some("0x70997970c51812dc3a010c7d01b50e0d17dc79"))
        }
        SettingKind::List(ListItemKind::Authority) => {
            ("gw.example:8443", Some("https://gw.example"))
        }
        SettingKind::List(ListItemKind::Network) => ("10.0.0.0/8", Some("10.0.0.0/33")),
    };
    (good.to_owned(), bad)
}

fn yaml(table: &SettingTable, section: &str, name: &str, value: &str) -> ConfigSources {
    let is_list =
        table.find(section, name).is_some_and(|key| matches!(key.kind, SettingKind::List(_)));
    let value = serde_json::Value::from(value).to_string();
    let value = if is_list { format!("[{value}]") } else { value };
    let text = if section.is_empty() {
        format!("{name}: {value}\n")
    } else {
        format!("{section}:\n  {name}: {value}\n")
    };
    let file = ConfigFile::parse(Path::new("x.yaml"), &text, !section.is_empty()).unwrap();
    ConfigSources { file: Some(file), ..ConfigSources::default() }
}

/// Lesson 30: the file was parsed and thrown away, and keys that nobody read were accepted. Every
/// setting is read from the file, from its variable and from its flag, in this order of rank; or it
/// is refused with the reason.
#[test]
fn lesson_30_every_setting_is_read_from_every_source_or_refused() {
    for table in [&NODE, &GATEWAY] {
        for key in table.keys {
            let (good, bad) = samples(key.kind);
            let mut sources = yaml(table, key.section, key.name, &good);
            let merged = MergedConfig::merge(table, &sources);
            if let SettingStatus::Later { off, reason } = key.status {
                if !off.contains(&good.as_str()) {
                    let error = merged.unwrap_err().to_string();
                    assert!(
                        error.contains(&key.path())
                            && error.contains(reason)
                            && error.contains("x.yaml:2"),
                        "{error}"
                    );
                }
                continue;
            }
            let read = |sources: &ConfigSources| {
                let settings = MergedConfig::merge(table, sources)
                    .unwrap_or_else(|problems| panic!("{problems}"));
                let setting = settings.get(&key.path()).clone();
                (setting.value.to_plain(), setting.origin.to_string())
            };
            let line = if key.section.is_empty() { 1 } else { 2 };
            assert_eq!(read(&sources), (good.clone(), format!("x.yaml:{line}")), "{}", key.path());
            for alias in key.aliases {
                assert_eq!(read(&yaml(table, key.section, alias, &good)).0, good);
            }
            for name in key
                .more_env
                .iter()
                .rev()
                .map(|name| (*name).to_owned())
                .chain([table.env_name(key)])
            {
                sources.env.insert(0, (name.clone(), good.clone()));
                assert_eq!(read(&sources), (good.clone(), format!("env {name}")));
            }
            if let Some(flag) = key.flag {
                sources.add_flag(table, flag, Some(good.clone()));
                assert_eq!(read(&sources), (good.clone(), format!("flag {flag}")));
            }
            let Some(bad) = bad else { continue };
            let from_env = ConfigSources {
                env: vec![(table.env_name(key), bad.to_owned())],
                ..ConfigSources::default()
            };
            for sources in [yaml(table, key.section, key.name, bad), from_env] {
                let error = MergedConfig::merge(table, &sources).unwrap_err().to_string();
                assert!(
                    error.contains(&key.path()) && error.contains(&key.kind.describe_allowed()),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn defaults_are_those_of_the_specification() {
    let settings = MergedConfig::merge(&NODE, &ConfigSources::default()).unwrap();
    for (path, expected) in [
        ("node.id", ""),
        ("node.type", "node"),
        ("node.listen_addresses", "/ip4/0.0.0.0/tcp/4001,/ip4/0.0.0.0/udp/4001/quic-v1"),
        ("node.data_dir", "./data/node"),
        ("node.max_connections", "50"),
        ("node.disable_anonrc", "true"),
        ("database.engine", "auto"),
        ("database.data_dir", "./data/node/db"),
        ("database.replication_factor", "3"),
        ("database.shard_count", "1"),
        ("database.max_database_size", "1GiB"),
        ("database.max_namespace_size", "256MiB"),
        ("database.max_owner_size", "512MiB"),
        ("database.backup_interval", "24h"),
        ("database.rqlite_port", "5001"),
        ("database.rqlite_raft_port", "7001"),
        ("discovery.bootstrap_peers", ""),
        ("discovery.discovery_interval", "15s"),
        ("discovery.bootstrap_port", "4001"),
        ("security.enable_tls", "false"),
        ("security.open_namespaces", "default"),
        ("gateway.enabled", "false"),
        ("gateway.listen_addr", ":8080"),
        ("logging.level", "info"),
        ("logging.format", "console"),
    ] {
        assert_eq!(settings.get(path).value.to_plain(), expected, "{path}");
    }
    let bootstrap =
        MergedConfig::merge(&NODE, &file("node:\n  type: bootstrap\n  data_dir: /d\n")).unwrap();
    assert_eq!(bootstrap.number("node.max_connections"), 100);
    assert_eq!(bootstrap.text("database.data_dir"), "/d/db");
}

/// What one owner may take leaves room for others, and takes nothing from a namespace that was
/// given more.
#[test]
fn an_owner_has_half_of_the_database_or_what_a_namespace_has() {
    for (given, expected) in [
        ("max_database_size: 4GiB", "2GiB"),
        ("max_namespace_size: 768MiB", "768MiB"),
        ("max_namespace_size: 0", "0"),
        ("max_namespace_size: 0\n  max_owner_size: 1GiB", "1GiB"),
        ("max_owner_size: 0", "0"),
    ] {
        let settings =
            MergedConfig::merge(&NODE, &file(&format!("database:\n  {given}\n"))).unwrap();
        assert_eq!(settings.get("database.max_owner_size").value.to_plain(), expected, "{given}");
    }
}

/// Lesson 32: settings that no code used. The two files of the source document start a node
/// unchanged, and each value that does not act is reported in one line.
#[test]
fn lesson_32_the_printed_files_are_accepted_and_say_what_is_in_effect() {
    let bootstrap = load(&printed("bootstrap.yaml")).unwrap();
    let notices = bootstrap.notices().join("\n");
    assert_eq!(bootstrap.notices().len(), 2, "{notices}");
    for part in [
        "database.shard_count is 16",
        "1 shard is in effect",
        "bootstrap.yaml:11",
        "discovery.http_adv_address is 127.0.0.1",
    ] {
        assert!(notices.contains(part), "{part} in\n{notices}");
    }
    let node = load(&printed("node.yaml")).unwrap();
    let notices = node.notices().join("\n");
    assert_eq!(node.notices().len(), 4, "{notices}");
    for part in ["no cluster is joined", "<YOUR_BOOTSTRAP_PEER_ID>"] {
        assert!(notices.contains(part), "{part} in\n{notices}");
    }
    let config = node.node_config(debros_node::NodeBuildInfo::default());
    assert_eq!(config.cluster.replication_factor, 3);
    assert_eq!(config.cluster.rqlite_http.to_string(), "127.0.0.1:5002");
    assert_eq!(config.cluster.raft_address, "127.0.0.1:7002");
    assert_eq!(config.cluster.raft_listen.to_string(), "127.0.0.1:7002");
    assert!(config.bootstrap_peers.is_empty());
    assert_eq!(config.database.data_dir, PathBuf::from("./data/db"));
    assert_eq!(config.database.max_size, 1 << 30);
    assert_eq!(config.database.backup_interval, Some(Duration::from_secs(86_400)));
    assert_eq!(config.listen_addresses[0].to_string(), "/ip4/0.0.0.0/tcp/4002");
    assert!(load(&ConfigSources::default()).unwrap().notices().is_empty());
}

#[test]
fn unknown_keys_are_told_with_their_line_and_a_guess() {
    for (text, expected) in [
        (
            "node:\n  max_conections: 5\n",
            "node.yaml:2: node.max_conections is not a setting; did you mean node.max_connections?",
        ),
        (
            "database:\n  max_connections: 5\n",
            "node.yaml:2: database.max_connections is not a setting; did you mean node.max_connections?",
        ),
        (
            "security:\n  key_file: x\n",
            "node.yaml:2: security.key_file is not a setting; allowed here: enable_tls, ",
        ),
        (
            "node:\n  solana_wallet: x\n",
            "node.yaml:2: node.solana_wallet is not a setting; allowed here: id, type, ",
        ),
        (
            "wallets:\n  x: y\n",
            "node.yaml:2: wallets.x is not a setting; the sections are node, database, ",
        ),
        ("data_dir: x\n", "node.yaml:1: data_dir is not a setting; did you mean node.data_dir?"),
    ] {
        let error = load(&file(text)).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_and_name_key_file_line_and_what_is_allowed() {
    let mut sources =
        file("node:\n  type: boss\n  max_connections: 0\nlogging:\n  level: loud\n  format:\n");
    sources.env = env(&[
        ("DEBROS_DATABASE_BACKUP_INTERVAL", "1 day"),
        ("DEBROS_DATABSE_ENGINE", "x"),
        ("DEBROS_NODE_IDD", "x"),
    ]);
    let error = load(&sources).unwrap_err();
    let expected = "\
environment variable DEBROS_DATABSE_ENGINE: is not a setting; did you mean DEBROS_DATABASE_ENGINE?
environment variable DEBROS_NODE_IDD: is not a setting; did you mean DEBROS_NODE_ID?
node.yaml:2: node.type: \"boss\" is not one of the choices; write bootstrap, node
node.yaml:3: node.max_connections: \"0\" is out of range; write a whole number from 1 to 100000
environment variable DEBROS_DATABASE_BACKUP_INTERVAL: database.backup_interval: \"1 day\" is not a time span; write a time \
span from 1m to 8784h such as 15s, 500ms or 24h, or 0 for off
node.yaml:5: logging.level: \"loud\" is not one of the choices; write debug, info, warn, error
node.yaml:6: logging.format has no value; write console, json, or leave the line out";
    assert_eq!(error, expected);
}

#[test]
fn values_of_later_features_are_refused_unless_they_mean_off() {
    for (text, word) in [
        ("node:\n  disable_anonrc: false\n", "Anyone"),
        ("node:\n  disable_anon_rc: false\n", "Anyone"),
    ] {
        let error = load(&file(text)).unwrap_err();
        assert!(error.starts_with("node.yaml:2: ") && error.contains(word), "{error}");
    }
    load(&file("node:\n  disable_anonrc: true\n")).unwrap();
}

/// What is set for the cluster's database reaches the node.
#[test]
fn settings_of_rqlite_act() {
    let cluster = |text: &str| {
        let settings = load(&file(text)).unwrap();
        (
            settings.node_config(debros_node::NodeBuildInfo::default()).cluster,
            settings.notices().join("\n"),
        )
    };
    for (engine, is_wanted) in [("auto", true), ("rqlite", true), ("embedded", false)] {
        let (config, _) = cluster(&format!("database:\n  engine: {engine}\n"));
        assert_eq!(config.is_wanted, is_wanted, "{engine}");
    }
    let (config, _) = cluster("database:\n  rqlited_path: /opt/rqlited\n  rqlite_port: 5\n");
    assert_eq!(config.rqlited, Some(PathBuf::from("/opt/rqlited")));
    assert_eq!(config.rqlite_http.to_string(), "127.0.0.1:5");
    for (address, told, listens) in [
        ("''", "127.0.0.1:9", "127.0.0.1:9"),
        ("192.0.2.7", "192.0.2.7:9", "0.0.0.0:9"),
        ("192.0.2.7:70", "192.0.2.7:70", "0.0.0.0:9"),
        ("'[2001:db8::7]:70'", "[2001:db8::7]:70", "[::]:9"),
    ] {
        let text = format!(
            "database:\n  rqlite_raft_port: 9\ndiscovery:\n  raft_adv_address: {address}\n"
        );
        let (config, notices) = cluster(&text);
        assert_eq!(config.raft_address, told, "{address}");
        assert_eq!(config.raft_listen.to_string(), listens, "{address}");
        assert_eq!(notices, "", "{address}");
    }
    let (config, notices) = cluster("discovery:\n  raft_adv_address: db.example.org\n");
    assert_eq!(config.raft_address, "127.0.0.1:7001");
    assert!(notices.contains("db.example.org (node.yaml:2), but loopback is in effect"));
}

#[test]
fn open_namespaces_and_admin_wallets_reach_the_node() {
    let config = |sources: &ConfigSources| {
        load(sources).unwrap().node_config(debros_node::NodeBuildInfo::default())
    };
    let names = |sources: &ConfigSources| -> Vec<String> {
        config(sources).open_namespaces.iter().map(ToString::to_string).collect()
    };
    assert_eq!(names(&ConfigSources::default()), ["default"]);
    assert!(config(&ConfigSources::default()).admin_wallets.is_empty());
    let text =
        format!("security:\n  open_namespaces: [play, default]\n  admin_wallets: ['{WALLET}']\n");
    assert_eq!(names(&file(&text)), ["play", "default"]);
    assert_eq!(config(&file(&text)).admin_wallets, [WALLET.parse().unwrap()]);
    assert!(names(&file("security:\n  open_namespaces: []\n")).is_empty());
    let error = load(&file("security:\n  admin_wallets: [owner]\n")).unwrap_err();
    assert!(
        error.starts_with("node.yaml:2: security.admin_wallets: \"owner\" is not a wallet"),
        "{error}"
    );
}

#[test]
fn what_browsers_and_proxies_need_reaches_both_kinds_of_gateway() {
    let sources = ConfigSources {
        env: env(&[
            ("GATEWAY_PUBLIC_URL", "https://api.example.org"),
            ("GATEWAY_TRUSTED_PROXIES", "10.0.0.0/8,192.0.2.1"),
        ]),
        dev: true,
        ..ConfigSources::default()
    };
    let node = load(&sources).unwrap();
    let separate = GatewaySettings::load(&ConfigSources { dev: false, ..sources }).unwrap();
    let texts = |networks: Vec<ipnet::IpNet>| {
        networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    for (url, networks) in [
        (node.public_url(), node.trusted_proxies()),
        (separate.public_url(), separate.trusted_proxies()),
    ] {
        assert_eq!(url, Some("https://api.example.org"));
        assert_eq!(texts(networks), "10.0.0.0/8 192.0.2.1/32");
    }
    let nothing = GatewaySettings::load(&ConfigSources::default()).unwrap();
    assert!(nothing.public_url().is_none() && nothing.trusted_proxies().is_empty());
    let node =
        load(&file("gateway:\n  public_url: https://gw.example/db\n  trusted_proxies: ['::1']\n"))
            .unwrap();
    assert_eq!(
        (node.public_url(), texts(node.trusted_proxies())),
        (Some("https://gw.example/db"), "::1/128".into())
    );
}

#[test]
fn settings_that_need_each_other_are_checked_together() {
    for (text, expected) in [
        (
            "security:\n  enable_tls: true\n  certificate_file: /c\n",
            "security.private_key_file is empty",
        ),
        ("node:\n  listen_addresses: []\n", "at least one multiaddr"),
        ("node:\n  data_dir: ''\n", "node.data_dir is empty"),
        ("node:\n  disable_anonrc: true\n  disable_anon_rc: true\n", "names of one setting"),
    ] {
        let error = load(&file(text)).unwrap_err();
        assert!(error.starts_with("node.yaml:") && error.contains(expected), "{error}");
    }
    let tls = load(&file(
        "security:\n  enable_tls: true\n  certificate_file: /c\n  private_key_file: /k\n",
    ))
    .unwrap();
    assert!(tls.notices()[0].contains("gateway.enabled is false"));
    assert_eq!(tls.tls_files(), Some(("/c".into(), "/k".into())));
}

#[test]
fn the_log_level_variable_stands_between_file_and_own_variable() {
    let mut sources = file("logging:\n  level: error\n");
    assert_eq!(load(&sources).unwrap().log_settings().level, "error");
    sources.env = env(&[("LOG_LEVEL", "debug")]);
    assert_eq!(load(&sources).unwrap().log_settings().level, "debug");
    sources.env.extend(env(&[("DEBROS_LOGGING_LEVEL", "warn")]));
    assert_eq!(load(&sources).unwrap().log_settings().level, "warn");
    sources.env = env(&[("LOG_LEVEL", "")]);
    assert_eq!(load(&sources).unwrap().log_settings().level, "error");
}

#[test]
fn ports_and_peers_are_completed() {
    let settings = NodeSettings::load(&ConfigSources::default(), Some("0")).unwrap();
    let config = settings.node_config(debros_node::NodeBuildInfo::default());
    let addresses: Vec<String> = config.listen_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"]);
    for bad in ["65536", "-1", "x", ""] {
        let error =
            NodeSettings::load(&ConfigSources::default(), Some(bad)).unwrap_err().to_string();
        assert!(error.starts_with("--p2p-port: ") && error.contains("from 0 to 65535"), "{error}");
    }
    let text = format!(
        "discovery:\n  bootstrap_port: 4444\n  bootstrap_peers: [{}]\n",
        PEER.replace("/tcp/4001", "")
    );
    let config = load(&file(&text)).unwrap().node_config(debros_node::NodeBuildInfo::default());
    assert_eq!(config.bootstrap_peers[0].to_string(), PEER.replace("4001", "4444"));
}

#[test]
fn variables_of_others_are_left_alone() {
    let others = [
        ("DEBROS_API_KEY", "x"),
        ("DEBROS_NODE_SERVICE_HOST", "x"),
        ("DEBROS_NODE_PORT_4001_TCP", "x"),
        ("NODE_ID", "x"),
    ];
    load(&ConfigSources { env: env(&others), ..ConfigSources::default() }).unwrap();
    let others = [
        ("GATEWAY_BASE_URL", "x"),
        ("GATEWAY_API_KEY", "x"),
        ("GATEWAY_PORT", "9"),
        ("GATEWAY_SERVICE_HOST", "x"),
    ];
    GatewaySettings::load(&ConfigSources { env: env(&others), ..ConfigSources::default() })
        .unwrap();
    let error = GatewaySettings::load(&ConfigSources {
        env: env(&[("GATEWAY_ADRR", "x")]),
        ..ConfigSources::default()
    })
    .unwrap_err();
    assert!(error.to_string().contains("GATEWAY_ADDR"), "{error}");
}

/// What one program documents, another must not refuse: they are set in one shell, or in one file
/// for all containers.
#[test]
fn no_documented_variable_of_one_program_stops_another() {
    let pages = [
        include_str!("../../../../README.md"),
        include_str!("../../../../configs/README.md"),
        include_str!("../network_cli/args.rs"),
        include_str!("../network_cli/auth_args.rs"),
        include_str!("../network_cli/gateway_lookup.rs"),
    ];
    let is_part =
        |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
    let words = pages.iter().flat_map(|page| page.split(|letter: char| !is_part(letter)));
    let names: std::collections::BTreeSet<&str> = words
        .filter(|word| word.starts_with("DEBROS_") || word.starts_with("GATEWAY_"))
        .filter(|word| !word.ends_with('_'))
        .collect();
    assert!(
        names.contains("DEBROS_GATEWAY_URL") && names.contains("GATEWAY_CORS_ORIGINS"),
        "{names:?}"
    );
    for name in names {
        let sources =
            ConfigSources { env: env(&[(name, "http://127.0.0.1:1")]), ..ConfigSources::default() };
        let node = NodeSettings::load(&sources, None).err().map(|problems| problems.to_string());
        let gateway = GatewaySettings::load(&sources).err().map(|problems| problems.to_string());
        for problem in node.iter().chain(&gateway) {
            assert!(!problem.contains("is not a setting"), "{problem}");
        }
    }
}

#[test]
fn the_gateway_reads_its_own_names_and_hides_its_keys() {
    let sources = ConfigSources {
        env: env(&[("GATEWAY_API_KEYS", "ak_s3cret:a"), ("GATEWAY_REQUIRE_AUTH", "false")]),
        ..ConfigSources::default()
    };
    let gateway = GatewaySettings::load(&sources).unwrap();
    assert!(
        !gateway.access_settings().is_auth_required() && gateway.access_settings().needs_operator()
    );
    assert_eq!(gateway.access_settings().api_keys(), ["ak_s3cret:a"]);
    assert!(!gateway.to_annotated_yaml().contains("s3cret"), "{}", gateway.to_annotated_yaml());
    // The same variables hold inside a node; the address of a separate gateway does not make it
    // two.
    let node = load(&ConfigSources {
        env: env(&[("GATEWAY_API_KEYS", "ak_s3cret:a"), ("GATEWAY_BOOTSTRAP_PEERS", PEER)]),
        dev: true,
        ..ConfigSources::default()
    });
    let node = node.unwrap();
    assert!(!node.to_annotated_yaml().contains("s3cret"));
    assert_eq!(node.embedded_gateway().unwrap().1.access_settings().api_keys(), ["ak_s3cret:a"]);
    for (name, value) in [
        ("GATEWAY_TLS_CERTIFICATE_FILE", "/c"),
        ("GATEWAY_BOOTSTRAP_PEERS", "/ip4/1.2.3.4/tcp/1/p2p/<ID>"),
    ] {
        GatewaySettings::load(&ConfigSources {
            env: env(&[(name, value)]),
            ..ConfigSources::default()
        })
        .unwrap_err();
    }
}

#[test]
fn every_default_can_be_read_and_every_setting_has_a_meaning() {
    for table in [&NODE, &GATEWAY] {
        for key in table.keys {
            assert!(key.doc.ends_with('.') && key.doc.len() < 130, "{}", key.path());
            if let SettingDefault::InDataDir(name) = key.default {
                assert!(!name.is_empty());
            }
        }
        for dev in [false, true] {
            let settings =
                MergedConfig::merge(table, &ConfigSources { dev, ..ConfigSources::default() })
                    .unwrap();
            assert_eq!(settings.all().len(), table.keys.len());
        }
    }
}

#[test]
fn print_config_is_yaml_that_reads_back_and_names_every_origin() {
    let mut sources = file("node:\n  id: a\ndatabase:\n  shard_count: 16\n");
    sources.env = env(&[("DEBROS_GATEWAY_ENABLED", "true"), ("LOG_LEVEL", "warn")]);
    sources.add_flag(&NODE, "--data-dir", Some("/srv/debros".into()));
    let settings = NodeSettings::load(&sources, Some("4009")).unwrap();
    let text = settings.to_annotated_yaml();
    insta::assert_snapshot!(text);
    let back = load(&file(&text)).unwrap();
    let values = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| line.split(" # ").next().unwrap_or_default().trim_end().to_owned())
            .collect()
    };
    assert_eq!(values(&back.to_annotated_yaml())[..42], values(&text)[..42]);
}
