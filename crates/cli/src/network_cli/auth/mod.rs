//! `auth …`: signing in and out, what the credential stands for, wallets, API keys, members.

mod keys;
pub(super) mod login;
mod logout;
mod members;
mod wallets;

pub(super) use wallets::OPERATOR;

use super::auth_args::{AuthCommand, WalletCommand};
use super::output::{Output, printable, time};
use super::session::Session;
use crate::fail::Failure;
use debros_gateway::answers::WhoAmIAnswer;
use serde_json::json;

/// Does what needs no node; gives every other command back.
pub(super) fn offline(out: Output, command: AuthCommand) -> Result<Option<AuthCommand>, Failure> {
    match command {
        AuthCommand::Wallets => wallets::list(out)?,
        AuthCommand::Wallet(WalletCommand::New { keystore, password_file }) => {
            wallets::make(out, keystore, password_file.as_deref())?;
        }
        AuthCommand::Sign { wallet, message } => wallets::sign(out, &wallet, message)?,
        AuthCommand::Login(how) => {
            login::check(&how)?;
            return Ok(Some(AuthCommand::Login(how)));
        }
        other => return Ok(Some(other)),
    }
    Ok(None)
}

pub(super) async fn run(session: &Session, out: Output, command: AuthCommand) -> Result<(), Failure> {
    match command {
        AuthCommand::Login(how) => login::run(session, out, &how).await,
        AuthCommand::Logout { all } => logout::run(session, out, all).await,
        AuthCommand::Whoami => whoami(session, out).await,
        AuthCommand::Token => {
            let credential = session.credential().await?;
            out.result(|| json!({ "token": credential }), || credential.to_owned())
        }
        AuthCommand::Use { wallet } => wallets::choose(session, out, &wallet).await,
        AuthCommand::Keys(keys) => keys::run(session, out, keys).await,
        AuthCommand::Members(members) => members::run(session, out, members).await,
        // Done before a node was looked for.
        AuthCommand::Wallets | AuthCommand::Wallet(_) | AuthCommand::Sign { .. } => Ok(()),
    }
}

async fn whoami(session: &Session, out: Output) -> Result<(), Failure> {
    let who = session.user().await?.network().who_am_i().await?;
    if out.is_json() {
        return out.json(&WhoAmIAnswer::from(who));
    }
    let scopes = if who.scopes.is_empty() { "all of the role".to_owned() } else { who.scopes.join(" ") };
    let mut lines = vec![("method", who.method), ("subject", who.subject)];
    if !who.wallet.is_empty() {
        lines.push(("wallet", who.wallet));
    }
    lines.extend([("namespace", who.namespace), ("role", who.role), ("scopes", scopes)]);
    if !who.key_prefix.is_empty() {
        lines.push(("key", format!("{}…", who.key_prefix)));
    }
    if who.operator {
        lines.push(("operator", "yes: it may call what operators may".to_owned()));
    }
    lines.push(("created", time(who.created_at)));
    lines.push(("expires", time(who.expires_at)));
    let text: Vec<String> = lines.iter().map(|(name, value)| format!("{name:<11}{}", printable(value))).collect();
    out.line(&text.join("\n"))
}
