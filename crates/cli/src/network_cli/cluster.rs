//! The cluster: its nodes, and how they get in and out.

use super::args::ClusterCommand;
use super::node_connection::NodeConnection;
use super::output::{Output, TableCell, format_time, json_text, json_time, print_note, printable};
use crate::cli_error::CliError;
use debros_client::Client;
use debros_client::rpc::{
    ClusterNode, ClusterNodeStatus, ClusterStatusResponse, DataHealth, DatabaseDifference,
};
use serde_json::json;

pub(super) async fn run(
    connection: &NodeConnection,
    out: Output,
    wanted: ClusterCommand,
) -> Result<(), CliError> {
    let client = connection.operator_client().await?;
    match wanted {
        ClusterCommand::Init => init(&client, out).await,
        ClusterCommand::Status => status(&client, out).await,
        ClusterCommand::Token => token(&client, out).await,
        ClusterCommand::Remove { node } => remove(&client, out, node).await,
        ClusterCommand::StepDown => step_down(&client, out).await,
    }
}

async fn init(client: &Client, out: Output) -> Result<(), CliError> {
    let id = client.cluster().init().await?;
    out.write_result(
        || json!({ "status": "ok", "cluster_id": id }),
        || format!("the node is the first of the cluster {}", printable(&id)),
    )?;
    print_note("`network-node token` or `network-cli cluster token` lets other nodes in");
    Ok(())
}

async fn token(client: &Client, out: Output) -> Result<(), CliError> {
    let made = client.cluster().create_join_token().await?;
    out.write_result(
        || json!({ "token": made.token, "expires_at": json_time(made.expires_at) }),
        || printable(&made.token),
    )?;
    print_note(&format!(
        "good for one node until {}: network-node --join TOKEN",
        format_time(made.expires_at)
    ));
    Ok(())
}

async fn remove(client: &Client, out: Output, node: String) -> Result<(), CliError> {
    let removed = client.cluster().remove(node).await?;
    out.write_result(
        || {
            json!({
                "status": "ok",
                "peer_id": removed.peer_id,
                "name": removed.name,
                "without_new_key": removed.without_new_key,
            })
        },
        || format!("removed {} ({})", printable(&removed.name), printable(&removed.peer_id)),
    )?;
    if !removed.without_new_key.is_empty() {
        let names: Vec<_> = removed.without_new_key.iter().map(|name| printable(name)).collect();
        print_note(&format!(
            "these nodes are away and get the cluster's new key when they come back: {}",
            names.join(", ")
        ));
    }
    Ok(())
}

async fn step_down(client: &Client, out: Output) -> Result<(), CliError> {
    let leader = client.cluster().step_down().await?;
    out.write_result(
        || json!({ "status": "ok", "leader": json_text(&leader) }),
        || match leader.as_str() {
            "" => "the node does not lead any more; no other one is elected yet".to_owned(),
            leader => format!("{} leads now", printable(leader)),
        },
    )
}

async fn status(client: &Client, out: Output) -> Result<(), CliError> {
    let status = client.cluster().status().await?;
    if out.is_json() {
        return out.write_json(&status_json(&status));
    }
    if status.cluster_id.is_empty() {
        print_note("the node is part of no cluster: `network-cli cluster init` begins one");
        return Ok(());
    }
    let rows = status.nodes.iter().map(|status_of| {
        let known = ClusterNode::default();
        let node = status_of.node.as_ref().unwrap_or(&known);
        let is_leader = status.leader.as_ref() == Some(&node.peer_id);
        vec![
            TableCell::from(name_cell(node, status_of)),
            node.peer_id.as_str().into(),
            node.role.as_str().into(),
            status.leader.as_ref().map_or("-", |_| if is_leader { "yes" } else { "no" }).into(),
            if status_of.connected { "yes" } else { "no" }.into(),
            TableCell::Number(number_cell(status_of.applied_entry)),
            TableCell::Number(number_cell(status_of.lag)),
            node.version.as_str().into(),
            format_time(status_of.last_seen).into(),
            node.addresses.join(" ").into(),
        ]
    });
    let header = [
        "NAME",
        "PEER",
        "ROLE",
        "LEADER",
        "CONNECTED",
        "APPLIED",
        "LAG",
        "VERSION",
        "LAST SEEN",
        "ADDRESSES",
    ];
    out.write_table(&header, rows)?;
    let term = status.term.map(|term| format!(", term {term}")).unwrap_or_default();
    print_note(&format!("cluster {}{term}; * is the node that was asked", status.cluster_id));
    status.nodes.iter().flat_map(health_notes).for_each(|note| print_note(&note));
    Ok(())
}

/// What is not as it should be with a node's copy of the data, or was not.
fn health_notes(status: &ClusterNodeStatus) -> Vec<String> {
    let name = printable(status.node.as_ref().map_or("", |node| node.name.as_str()));
    let Some(health) = &status.health else { return Vec::new() };
    let mut notes = Vec::new();
    if !health.problem.is_empty() {
        notes.push(format!("{name} does not follow the log: {}", printable(&health.problem)));
    }
    notes.extend(health.differences.iter().map(|found| {
        let (what, entry) = (database_name(found), found.entry);
        if found.leader_differs {
            format!(
                "the leader's copy of {what} differs from those of {name} and others (entry {entry}): have another node lead with \
                 `network-cli cluster step-down` on the leader"
            )
        } else {
            format!("{name}'s copy of {what} differs from the leader's (entry {entry})")
        }
    }));
    if health.reseedings > 0 {
        notes.push(format!(
            "{name} took a new copy of the data by itself, {} in all; last at {}: {}",
            health.reseedings,
            format_time(health.reseeded_at),
            printable(&health.reseeding_reason)
        ));
    }
    notes
}

fn database_name(difference: &DatabaseDifference) -> String {
    match difference.namespace.as_str() {
        "" => "the system's database".to_owned(),
        namespace => format!("the database of {}", printable(namespace)),
    }
}

/// `null` where the node did not say.
fn health_json(health: &DataHealth) -> serde_json::Value {
    let differences: Vec<_> = health
        .differences
        .iter()
        .map(|found| {
            json!({
                "namespace": json_text(&found.namespace),
                "entry": found.entry,
                "leader_differs": found.leader_differs,
                "found_at": json_time(found.found_at),
            })
        })
        .collect();
    json!({
        "problem": json_text(&health.problem),
        "differences": differences,
        "reseedings": health.reseedings,
        "reseeding_reason": json_text(&health.reseeding_reason),
        "reseeded_at": json_time(health.reseeded_at),
    })
}

fn name_cell(node: &ClusterNode, status: &ClusterNodeStatus) -> String {
    if status.is_self { format!("{}*", node.name) } else { node.name.clone() }
}

/// `-` where it is not known.
fn number_cell(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn status_json(status: &ClusterStatusResponse) -> serde_json::Value {
    let nodes: Vec<_> = status
        .nodes
        .iter()
        .map(|status_of| {
            let known = ClusterNode::default();
            let node = status_of.node.as_ref().unwrap_or(&known);
            json!({
                "name": node.name,
                "peer_id": node.peer_id,
                "role": node.role,
                "is_self": status_of.is_self,
                "is_leader": status.leader.as_ref().map(|leader| *leader == node.peer_id),
                "connected": status_of.connected,
                "addresses": node.addresses,
                "raft_address": json_text(&node.raft_address),
                "version": json_text(&node.version),
                "joined_at": json_time(node.joined_at),
                "last_seen": json_time(status_of.last_seen),
                "applied_entry": status_of.applied_entry,
                "lag": status_of.lag,
                "health": status_of.health.as_ref().map(health_json),
            })
        })
        .collect();
    json!({
        "cluster_id": json_text(&status.cluster_id),
        "leader": status.leader,
        "term": status.term,
        "nodes": nodes,
    })
}

#[cfg(test)]
mod tests {
    use super::{health_notes, status_json};
    use debros_client::rpc::{
        ClusterNode, ClusterNodeStatus, ClusterStatusResponse, DataHealth, DatabaseDifference,
    };

    #[test]
    fn what_is_wrong_with_a_nodes_data_is_said() {
        let node = Some(ClusterNode { name: "two".into(), ..Default::default() });
        let differences = [false, true].map(|leader_differs| DatabaseDifference {
            namespace: "app".into(),
            entry: 7,
            leader_differs,
            found_at: 1,
        });
        let health = DataHealth {
            reseedings: 3,
            reseeding_reason: "the log was cut".into(),
            reseeded_at: 1,
            differences: differences.into(),
            problem: "it is stuck".into(),
        };
        let mut status =
            ClusterNodeStatus { node, health: Some(health), ..ClusterNodeStatus::default() };
        let notes = health_notes(&status);
        let parts = ["does not follow the log: it is stuck", "two's copy of the database of app"];
        let parts = [&parts[..], &["the leader's copy", "3 in all; last at"]].concat();
        assert!(notes.iter().zip(&parts).all(|(note, part)| note.contains(part)), "{notes:?}");
        assert_eq!(notes.len(), parts.len());
        let json = status_json(&ClusterStatusResponse {
            nodes: vec![status.clone()],
            ..Default::default()
        });
        let health = &json["nodes"][0]["health"];
        assert_eq!(
            (health["reseedings"].as_u64(), health["problem"].as_str()),
            (Some(3), Some("it is stuck"))
        );
        assert_eq!(health["differences"][1]["leader_differs"], true);
        status.health = Some(DataHealth::default());
        assert!(health_notes(&status).is_empty());
    }

    #[test]
    fn what_is_not_known_is_null_in_json() {
        let node = Some(ClusterNode { name: "one".into(), ..Default::default() });
        let status = ClusterStatusResponse {
            cluster_id: "cafe".into(),
            nodes: vec![ClusterNodeStatus { node, is_self: true, ..Default::default() }],
            ..Default::default()
        };
        let json = status_json(&status);
        assert_eq!(json["cluster_id"], "cafe");
        for key in ["leader", "term"] {
            assert!(json[key].is_null(), "{key}");
        }
        let node = &json["nodes"][0];
        assert_eq!((node["name"].as_str(), node["is_self"].as_bool()), (Some("one"), Some(true)));
        for key in ["is_leader", "lag", "applied_entry", "last_seen", "version", "health"] {
            assert!(node[key].is_null(), "{key}");
        }
        assert!(status_json(&ClusterStatusResponse::default())["cluster_id"].is_null());
    }
}
