//! Compiles the protocol's message definitions. No protoc program is needed: protox is a compiler
//! in Rust.

/// Messages that carry secrets: how they are shown is written by hand, in `src/redacted_debug.rs`.
const SECRET: [&str; 10] = [
    "Request",
    "Proof",
    "SessionResponse",
    "CreateApiKeyResponse",
    "RefreshRequest",
    "LogoutRequest",
    "ClusterKeyMessage",
    "JoinTokenContent",
    "JoinClusterRequest",
    "CreateJoinTokenResponse",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["debros/v1/rpc.proto"], ["proto"])?;
    prost_build::Config::new()
        .bytes(["."])
        .skip_debug(SECRET.map(|name| format!(".debros.v1.{name}")))
        // What stands inside a message is skipped with it; the calls themselves are shown.
        .enum_attribute(".debros.v1.Request.call", "#[derive(Debug)]")
        .compile_fds(files)?;
    Ok(())
}
