//! Tests of the credential file.

use super::{CredentialFile, CredentialFileError, StoredCredential, fs};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

const NOW: Duration = Duration::from_secs(10);

fn entry(peer_id: &str, namespace: &str, wallet: &str) -> StoredCredential {
    StoredCredential {
        peer_id: peer_id.into(),
        namespace: namespace.into(),
        wallet: wallet.into(),
        api_key: format!("ak_{peer_id}{wallet}:{namespace}"),
        stored_at: 1,
        ..StoredCredential::default()
    }
}

fn in_folder(home: &Path) -> CredentialFile {
    CredentialFile::in_folder(home.join(".debros"))
}

async fn put(store: &CredentialFile, entry: StoredCredential) {
    store.lock(NOW).await.unwrap().put(entry).unwrap();
}

async fn put_current(store: &CredentialFile, entry: StoredCredential) {
    store.lock(NOW).await.unwrap().put_current(entry).unwrap();
}

fn key(
    store: &CredentialFile,
    peer: &str,
    namespace: Option<&str>,
    wallet: Option<&str>,
) -> Option<String> {
    store.find(peer, namespace, wallet).unwrap().map(|entry| entry.api_key)
}

/// Lesson 37: two formats overwrote one file. Entries of several nodes, namespaces and wallets live
/// beside each other.
#[tokio::test]
async fn lesson_37_credentials_of_several_nodes_namespaces_and_wallets_are_kept_together() {
    let home = tempfile::tempdir().unwrap();
    let store = in_folder(home.path());
    assert_eq!(key(&store, "a", None, None), None);
    for (peer, namespace, wallet) in [
        ("a", "one", "0x1"),
        ("a", "one", "0x2"),
        ("a", "two", ""),
        ("b", "one", "0x1"),
        ("a", "one", "0x1"),
    ] {
        put(&store, entry(peer, namespace, wallet)).await;
    }
    assert_eq!(store.entries().unwrap().len(), 4);
    assert_eq!(key(&store, "a", Some("two"), None).unwrap(), "ak_a:two");
    assert_eq!(key(&store, "a", Some("one"), Some("0x2")).unwrap(), "ak_a0x2:one");
    assert_eq!(key(&store, "c", None, None), None);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&store.path()), mode(store.folder())), (0o600, 0o700));
}

#[tokio::test]
async fn the_current_entry_is_used_until_another_is_made_current() {
    let home = tempfile::tempdir().unwrap();
    let store = in_folder(home.path());
    put(&store, entry("a", "one", "0x1")).await;
    put(&store, StoredCredential { stored_at: 2, ..entry("a", "one", "0x2") }).await;
    put(&store, StoredCredential { stored_at: 3, ..entry("a", "two", "0x2") }).await;
    put(&store, StoredCredential { stored_at: 4, ..entry("b", "two", "0x2") }).await;
    assert_eq!(key(&store, "a", None, None).unwrap(), "ak_a0x1:one");
    // A silent refresh of another entry does not change what commands use.
    put(&store, StoredCredential { stored_at: 9, ..entry("a", "one", "0x2") }).await;
    assert_eq!(key(&store, "a", None, None).unwrap(), "ak_a0x1:one");
    put_current(&store, entry("a", "one", "0x2")).await;
    assert_eq!(key(&store, "a", None, None).unwrap(), "ak_a0x2:one");
    // In another namespace: the same wallet, before one that is newer.
    put(&store, StoredCredential { stored_at: 99, ..entry("a", "two", "0x1") }).await;
    assert_eq!(key(&store, "a", Some("two"), None).unwrap(), "ak_a0x2:two");
    assert_eq!(
        store.entries().unwrap().iter().filter(|entry| entry.current).count(),
        2,
        "one of each node"
    );
}

#[tokio::test]
async fn when_the_current_entry_is_signed_out_no_other_one_takes_its_place() {
    let home = tempfile::tempdir().unwrap();
    let store = in_folder(home.path());
    for (namespace, wallet) in [("one", "0x1"), ("two", "0x2"), ("two", "0x3"), ("three", "0x2")] {
        put(&store, entry("a", namespace, wallet)).await;
    }
    put(&store, entry("b", "one", "0x2")).await;
    // Beside a current one, another namespace's only wallet is meant when that namespace is named;
    // of several, none.
    assert_eq!(key(&store, "a", Some("three"), None).unwrap(), "ak_a0x2:three");
    assert_eq!(key(&store, "a", Some("two"), None), None);
    let current = store.find("a", None, None).unwrap().unwrap();
    store.lock(NOW).await.unwrap().remove(&current).unwrap();
    for namespace in [None, Some("one"), Some("two"), Some("three")] {
        assert_eq!(key(&store, "a", namespace, None), None, "{namespace:?}");
    }
    assert_eq!(
        key(&store, "b", None, None).unwrap(),
        "ak_b0x2:one",
        "another node's is not touched"
    );
    // New tokens for one of them choose none; naming a wallet does.
    store
        .lock(NOW)
        .await
        .unwrap()
        .update(StoredCredential { stored_at: 9, ..entry("a", "two", "0x2") })
        .unwrap();
    assert_eq!(key(&store, "a", None, None), None);
    assert_eq!(key(&store, "a", None, Some("0x2")).unwrap(), "ak_a0x2:two", "the newest");
    put_current(&store, entry("a", "two", "0x2")).await;
    assert_eq!(key(&store, "a", None, None).unwrap(), "ak_a0x2:two");
}

#[tokio::test]
async fn an_entry_goes_when_another_node_listens_at_its_address_on_this_machine() {
    let home = tempfile::tempdir().unwrap();
    let store = in_folder(home.path());
    let at = |peer: &str, url: &str| StoredCredential {
        gateway_url: url.into(),
        ..entry(peer, "one", "")
    };
    for url in ["http://127.0.0.1:8080", "https://api.example.org"] {
        put(&store, at("a", url)).await;
        put(&store, at("b", url)).await;
        assert_eq!(
            store.find("a", None, None).unwrap().is_some(),
            url.contains("example"),
            "{url}"
        );
    }
}

#[tokio::test]
async fn a_file_that_others_may_read_is_refused_with_the_command_that_mends_it() {
    let home = tempfile::tempdir().unwrap();
    let store = in_folder(home.path());
    put(&store, entry("a", "one", "")).await;
    fs::set_permissions(store.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let error = store.find("a", None, None).unwrap_err().to_string();
    assert!(error.contains("mode 644") && error.contains("chmod 600 "), "{error}");
    fs::set_permissions(store.path(), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(store.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    let error = store.find("a", None, None).unwrap_err().to_string();
    assert!(error.contains("chmod 700 "), "{error}");
}

#[tokio::test]
async fn a_file_of_another_format_is_an_error_and_stays_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let store = in_folder(home.path());
    put(&store, entry("a", "one", "")).await;
    for bad in [
        "",
        "{",
        r#"{"gateways":{"x":"ak_secret"}}"#,
        r#"{"version":1,"credentials":[]}"#,
        r#"{"version":3,"credentials":[]}"#,
    ] {
        fs::write(store.path(), bad).unwrap();
        let error = store.lock(NOW).await.unwrap().put(entry("b", "one", "")).unwrap_err();
        assert!(
            matches!(error, CredentialFileError::Format { .. })
                && !error.to_string().contains("secret"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(store.path()).unwrap(), bad);
    }
}

#[tokio::test]
async fn one_program_at_a_time_changes_the_file() {
    let home = tempfile::tempdir().unwrap();
    let store = in_folder(home.path());
    let held = store.lock(NOW).await.unwrap();
    let error = store.lock(Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, CredentialFileError::Busy { .. }), "{error}");
    drop(held);
    store.lock(Duration::ZERO).await.unwrap();
}

#[test]
fn no_secret_is_shown() {
    let entry = StoredCredential {
        refresh_token: "rt_secret".into(),
        access_token: "ey_secret".into(),
        ..entry("a", "one", "0x1")
    };
    let shown = format!("{entry:?}");
    assert!(
        shown.contains("0x1") && !shown.contains("secret") && !shown.contains("ak_"),
        "{shown}"
    );
}

#[test]
fn an_access_token_that_is_about_to_end_is_not_started_with() {
    let entry = StoredCredential {
        access_token: "t".into(),
        access_expires_at: 100_000,
        ..StoredCredential::default()
    };
    assert_eq!(entry.usable_access_token(60_000), Some("t"));
    assert_eq!(entry.usable_access_token(80_000), None);
    assert_eq!(
        StoredCredential { access_token: String::new(), ..entry }.usable_access_token(0),
        None
    );
}
