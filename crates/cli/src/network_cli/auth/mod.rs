//! `auth …`: signing in and out, the credential's identity, wallets, API keys, members.

mod keys;
pub(super) mod login;
mod logout;
mod members;
mod wallets;

use super::auth_args::{AuthCommand, WalletCommand};
use super::node_connection::NodeConnection;
use super::output::{Output, format_time, printable};
use crate::cli_error::CliError;
use debros_gateway::answers::WhoAmIAnswer;
use serde_json::json;

/// Does what needs no node; gives every other command back.
pub(super) fn run_offline(
    out: Output,
    command: AuthCommand,
) -> Result<Option<AuthCommand>, CliError> {
    match command {
        AuthCommand::Wallets => wallets::list(out)?,
        AuthCommand::Wallet(WalletCommand::New { keystore, password_file }) => {
            wallets::create_wallet(out, keystore, password_file.as_deref())?;
        }
        AuthCommand::Sign { wallet, message } => wallets::sign_message(out, &wallet, message)?,
        AuthCommand::Login(how) => {
            login::check_interactive(&how)?;
            return Ok(Some(AuthCommand::Login(how)));
        }
        other => return Ok(Some(other)),
    }
    Ok(None)
}

pub(super) async fn run(
    connection: &NodeConnection,
    out: Output,
    command: AuthCommand,
) -> Result<(), CliError> {
    match command {
        AuthCommand::Login(how) => login::run(connection, out, &how).await,
        AuthCommand::Logout { all } => logout::run(connection, out, all).await,
        AuthCommand::Whoami => show_identity(connection, out).await,
        AuthCommand::Token => {
            let credential = connection.credential().await?;
            out.write_result(|| json!({ "token": credential }), || credential.to_owned())
        }
        AuthCommand::Use { wallet } => wallets::use_wallet(connection, out, &wallet).await,
        AuthCommand::Keys(keys) => keys::run(connection, out, keys).await,
        AuthCommand::Members(members) => members::run(connection, out, members).await,
        // Done before a node was looked for.
        AuthCommand::Wallets | AuthCommand::Wallet(_) | AuthCommand::Sign { .. } => Ok(()),
    }
}

async fn show_identity(connection: &NodeConnection, out: Output) -> Result<(), CliError> {
    let identity = connection.user_client().await?.network().who_am_i().await?;
    if out.is_json() {
        return out.write_json(&WhoAmIAnswer::from(identity));
    }
    let scopes = if identity.scopes.is_empty() {
        "all of the role".to_owned()
    } else {
        identity.scopes.join(" ")
    };
    let mut lines = vec![("method", identity.method), ("subject", identity.subject)];
    if !identity.wallet.is_empty() {
        lines.push(("wallet", identity.wallet));
    }
    lines.extend([("namespace", identity.namespace), ("role", identity.role), ("scopes", scopes)]);
    if !identity.key_prefix.is_empty() {
        lines.push(("key", format!("{}…", identity.key_prefix)));
    }
    if identity.operator {
        lines.push(("operator", "yes: it may call what operators may".to_owned()));
    }
    lines.push(("created", format_time(identity.created_at)));
    lines.push(("expires", format_time(identity.expires_at)));
    let text: Vec<String> =
        lines.iter().map(|(name, value)| format!("{name:<11}{}", printable(value))).collect();
    out.write_line(&text.join("\n"))
}
