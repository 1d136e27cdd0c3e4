//! `auth members …`: the wallets that may act in a namespace.

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
    connection: &NodeConnection,
    out: Output,
    command: MembersCommand,
) -> Result<(), CliError> {
    let explain = |error: Error| connection.permission_error(error);
    match command {
        MembersCommand::List { operator_args } => {
            let client = connection.reader_client(operator_args.operator).await?;
            list(out, client.members().list().await.map_err(explain)?)
        }
        MembersCommand::Set { wallet, role, operator_args } => {
            let wallet = Wallet::parse(&wallet)?;
            let client = connection.manager_client(operator_args.operator).await?;
            let member = client.members().set(wallet.to_string(), role).await.map_err(explain)?;
            let text = format!("{} is {} now", printable(&member.wallet), printable(&member.role));
            out.write_result(|| SetMemberAnswer::from(member), || text)
        }
        MembersCommand::Remove { wallet, operator_args } => {
            let wallet = Wallet::parse(&wallet)?;
            let client = connection.manager_client(operator_args.operator).await?;
            let removed = client.members().remove(wallet.to_string()).await.map_err(explain)?;
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
