//! Tells the programs which commit they are built from, and when. Works without git and without a
//! repository.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

// As a build dependency, the crate and all that it needs would be compiled a second time.
#[path = "../proto/src/time.rs"]
#[allow(dead_code, unreachable_pub, reason = "a part of it is enough here")]
mod time;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../proto/src/time.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    // Each commit and checkout writes a line there, so that this runs again then and at no other
    // time. A file that does not exist must not be named: it would count as changed at every build.
    for name in ["logs/HEAD", "HEAD"] {
        if let Some(path) = git(&["rev-parse", "--path-format=absolute", "--git-path", name])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
            break;
        }
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=DEBROS_BUILD_COMMIT={commit}");
    println!(
        "cargo::rustc-env=DEBROS_BUILD_TIME={}",
        time::rfc3339(seconds().saturating_mul(1000))
    );
}

/// The moment of the build, or the one that a reproducible build asks for.
fn seconds() -> i64 {
    let asked = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.trim().parse().ok());
    asked.unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|since| since.as_secs().try_into().ok())
            .unwrap_or(0)
    })
}

/// What git answers; nothing when there is no git or no repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
