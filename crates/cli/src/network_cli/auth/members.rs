//! `auth members …`: who may act in a namespace.

use super::keys::hint_operator_option;
use crate::cli_error::CliError;
use crate::network_cli::auth_args::MembersCommand;
use crate::network_cli::node_connection::NodeConnection;
use crate::network_cli::output::{Output, TableCell, format_time, printable};
use debros_auth::Wallet;
use debros_client::Error;
use debros_client::rpc::Member;
use debros_gateway::answers::{MembersAnswer, SetMemberAnswer};
use serde_json::json;

pub(super) async fn run(
    session: &NodeConnection,
    out: Output,
    command: MembersCommand,
) -> Result<(), CliError> {
    let told = |error: Error| hint_operator_option(session, error);
    match command {
        MembersCommand::List { right } => {
            let client = session.reader_client(right.operator).await?;
            list(out, client.members().list().await.map_err(told)?)
        }
        MembersCommand::Set { wallet, role, right } => {
            let wallet = Wallet::parse(&wallet)?;
            let client = session.manager_client(right.operator).await?;
            let member = client.members().set(wallet.to_string(), role).await.map_err(told)?;
            let text = format!("{} is {} now", printable(&member.wallet), printable(&member.role));
            out.write_result(|| SetMemberAnswer::from(member), || text)
        }
        MembersCommand::Remove { wallet, right } => {
            let wallet = Wallet::parse(&wallet)?;
            let client = session.manager_client(right.operator).await?;
            let removed = client.members().remove(wallet.to_string()).await.map_err(told)?;
            out.write_result(
                || json!({ "status": "ok", "wallet": wallet.to_string(), "removed": removed }),
                || {
                    if removed {
                        format!("{wallet} has no role any more")
                    } else {
                        format!("{wallet} had no role")
                    }
                },
            )
        }
    }
}

fn list(out: Output, members: Vec<Member>) -> Result<(), CliError> {
    if out.is_json() {
        return out.write_json(&MembersAnswer::from(members));
    }
    let rows = members.iter().map(|member| {
        let granted_by = if member.granted_by.is_empty() { "-" } else { &member.granted_by };
        [member.wallet.as_str(), &member.role, granted_by, &format_time(member.created_at)]
            .map(TableCell::from)
            .into()
    });
    out.write_table(&["WALLET", "ROLE", "GRANTED BY", "SINCE"], rows)
}
