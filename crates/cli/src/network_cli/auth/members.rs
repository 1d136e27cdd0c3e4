//! `auth members …`: who may act in a namespace.

use super::keys::may_as_operator;
use crate::fail::Failure;
use crate::network_cli::auth_args::MembersCommand;
use crate::network_cli::output::{Output, Shown, printable, time};
use crate::network_cli::session::Session;
use debros_auth::Wallet;
use debros_client::Error;
use debros_client::rpc::Member;
use debros_gateway::answers::{MembersAnswer, SetMemberAnswer};
use serde_json::json;

pub(super) async fn run(session: &Session, out: Output, command: MembersCommand) -> Result<(), Failure> {
    let told = |error: Error| may_as_operator(session, error);
    match command {
        MembersCommand::List { right } => {
            let client = session.reader(right.operator).await?;
            list(out, client.members().list().await.map_err(told)?)
        }
        MembersCommand::Set { wallet, role, right } => {
            let wallet = Wallet::parse(&wallet)?;
            let client = session.manager(right.operator).await?;
            let member = client.members().set(wallet.to_string(), role).await.map_err(told)?;
            let text = format!("{} is {} now", printable(&member.wallet), printable(&member.role));
            out.result(|| SetMemberAnswer::from(member), || text)
        }
        MembersCommand::Remove { wallet, right } => {
            let wallet = Wallet::parse(&wallet)?;
            let client = session.manager(right.operator).await?;
            let removed = client.members().remove(wallet.to_string()).await.map_err(told)?;
            out.result(
                || json!({ "status": "ok", "wallet": wallet.to_string(), "removed": removed }),
                || if removed { format!("{wallet} has no role any more") } else { format!("{wallet} had no role") },
            )
        }
    }
}

fn list(out: Output, members: Vec<Member>) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&MembersAnswer::from(members));
    }
    let rows = members.iter().map(|member| {
        let granted_by = if member.granted_by.is_empty() { "-" } else { &member.granted_by };
        [member.wallet.as_str(), &member.role, granted_by, &time(member.created_at)].map(Shown::from).into()
    });
    out.table(&["WALLET", "ROLE", "GRANTED BY", "SINCE"], rows)
}
