//! `recover`: makes the node of a survivor the first one of its cluster again.

use crate::cli_error::{CliError, FAILED, USAGE};
use crate::config::NodeSettings;
use crate::dialled_members::dial_members;
use crate::network_cli::output::{format_time, print_note, printable};
use crate::network_cli::terminal::{ask_line, is_interactive};
use crate::version;
use debros_node::{NodeBuildInfo, NodeConfig, RecoveryError, RecoverySurvey, SeenMember};
use std::io::Write as _;

/// Says what is there, asks, and does it. `yes` takes the place of the answer.
pub(super) async fn run(settings: &NodeSettings, yes: bool) -> Result<(), CliError> {
    let build = NodeBuildInfo { version: version::VERSION.into(), commit: version::COMMIT.into() };
    let config = settings.node_config(build);
    let survey = debros_node::survey_recovery(&config).map_err(explain)?;
    let data_dir = config.data_dir.clone();
    let members = tokio::task::spawn_blocking(move || dial_members(&data_dir)).await;
    let members = members.map_err(|error| CliError::new(error.to_string()))?;
    print_note(&printable_lines(&survey_text(&survey, &members)));
    if !yes {
        confirm(&survey.name).await?;
    }
    let recovered = debros_node::recover(&config).await.map_err(explain)?;
    let names = |names: &[String]| match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    };
    writeln!(
        std::io::stdout(),
        "{} is the only node of its cluster now, with everything up to entry {}; removed: {}",
        printable(&survey.name),
        recovered.last_entry,
        printable(&names(&recovered.removed))
    )?;
    print_note(&next_steps(&config));
    Ok(())
}

fn next_steps(config: &NodeConfig) -> String {
    format!(
        "start the node as usual; others join it with a token (`network-node token --data-dir {}`) and empty data folders",
        config.data_dir.display()
    )
}

fn survey_text(survey: &RecoverySurvey, members: &[(SeenMember, Option<String>)]) -> String {
    let RecoverySurvey { name, cluster_id, durable, durable_at, .. } = survey;
    let mut lines = vec![format!(
        "{name} is a node of the cluster {cluster_id}. Its files have everything up to entry {durable} (written down at {}); what its \
         rqlited's log holds beyond that is applied too.",
        format_time(*durable_at)
    )];
    if members.is_empty() {
        lines.push("No other nodes are noted in its data folder.".to_owned());
    }
    for (member, failure) in members {
        let now = match failure {
            None => "ITS RAFT PORT ANSWERS NOW".to_owned(),
            Some(why) => format!("its Raft port cannot be reached: {why}"),
        };
        lines.push(format!(
            "  {} ({}{}), seen last at {}; {now}",
            member.name,
            member.peer_id,
            if member.is_voter { ", votes" } else { "" },
            format_time(member.last_seen)
        ));
    }
    if members.iter().any(|(_, failure)| failure.is_none()) {
        lines.push(
            "Nodes that answer are not lost: where a majority can come back, start it and leave this.".to_owned(),
        );
    }
    lines.push(format!(
        "After this {name} is the only node of its cluster. The others are removed for good, and the cluster gets another key: none \
         of them comes back with what it holds. Writes that only others had are gone. Of several survivors take the one with the \
         highest entry."
    ));
    lines.join("\n")
}

fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

async fn confirm(name: &str) -> Result<(), CliError> {
    if !is_interactive() {
        return Err(CliError::usage(
            "recovering removes all other nodes of the cluster for good, and nobody can be asked here: give --yes to go on without \
             being asked",
        ));
    }
    let answer = ask_line("Type the node's name to go on: ".to_owned()).await?;
    if answer.is_some_and(|answer| answer == name) {
        Ok(())
    } else {
        Err(CliError::new("the answer is not the node's name: nothing was changed"))
    }
}

fn explain(error: RecoveryError) -> CliError {
    let exit = match error {
        RecoveryError::Embedded | RecoveryError::Alone { .. } => USAGE,
        _ => FAILED,
    };
    CliError { exit, ..CliError::new(error.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::survey_text;
    use debros_node::{RecoverySurvey, SeenMember};

    #[test]
    fn what_is_found_names_the_others_and_those_that_still_answer() {
        let survey = RecoverySurvey {
            name: "three".into(),
            cluster_id: "cafe".into(),
            durable: 41,
            durable_at: 1_700_000_000_000,
            others: Vec::new(),
        };
        let member = |name: &str| SeenMember {
            peer_id: format!("peer-{name}"),
            name: name.into(),
            raft_address: "10.0.0.1:7001".into(),
            is_voter: true,
            last_seen: 1_700_000_000_000,
        };
        let lost = (member("one"), Some("connection refused".to_owned()));
        let text = survey_text(&survey, std::slice::from_ref(&lost));
        for part in ["entry 41", "one (peer-one, votes), seen last at 2023-11-14", "are gone"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("not lost"));
        let text = survey_text(&survey, &[lost, (member("two"), None)]);
        assert!(text.contains("ANSWERS NOW") && text.contains("not lost"), "{text}");
    }
}
