//! `pubsub …`: messages by topic.

use super::args::PubsubCommand;
use super::input;
use super::node_connection::NodeConnection;
use super::output::{Output, json_time, print_note, printable};
use crate::cli_error::CliError;
use debros_client::{Client, PubsubEvent};
use debros_proto::json::encode_base64;
use debros_proto::limits::MAX_MESSAGE_BYTES;
use debros_proto::words::counted;
use serde_json::json;
use std::time::Duration;

pub(super) async fn run(
    connection: &NodeConnection,
    out: Output,
    command: PubsubCommand,
) -> Result<(), CliError> {
    let client = connection.user_client().await?;
    match command {
        PubsubCommand::Publish { topic, message, text } => {
            let data = input::read(message, text, MAX_MESSAGE_BYTES)?;
            let size = data.len();
            client.pubsub().publish(topic.clone(), data).await?;
            out.write_result(
                || json!({ "status": "ok", "topic": topic, "size": size }),
                || format!("published {} to {}", counted(size as u64, "byte"), printable(&topic)),
            )
        }
        PubsubCommand::Subscribe { topic, duration } => {
            subscribe(connection, client, out, &topic, duration).await
        }
        PubsubCommand::Topics => {
            let topics = client.pubsub().topics().await?;
            if out.is_json() {
                return out.write_json(&json!({ "topics": topics }));
            }
            let lines: String =
                topics.iter().map(|topic| format!("{}\n", printable(topic))).collect();
            out.write_bytes(lines.as_bytes())
        }
    }
}

/// Ends without an error after the duration or at Ctrl-C.
async fn subscribe(
    connection: &NodeConnection,
    client: Client,
    out: Output,
    topic: &str,
    duration: Option<Duration>,
) -> Result<(), CliError> {
    let mut subscription = client.pubsub().subscribe(topic).await?;
    print_note(&format!("subscribed to {}; Ctrl-C ends", printable(topic)));
    let end = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let mut end = std::pin::pin!(end);
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            () = &mut end => return Ok(()),
            _ = &mut interrupt => return Ok(()),
            event = subscription.next() => match event {
                Some(Ok(PubsubEvent::Message(data))) => write_message(out, topic, &data)?,
                Some(Ok(PubsubEvent::Missed(count))) => print_note(&format!("missed {}: more came than was read", counted(count, "message"))),
                Some(Ok(PubsubEvent::Reconnected)) => print_note("the connection was lost and is there again; messages in between were not seen"),
                // A subscription lives no longer than the token that it was made with; the session
                // lives on.
                Some(Err(error)) if error.code.is_unauthenticated() => match connection.renew_credential().await? {
                    Some(token) => {
                        subscription = connection.client_with(&token).pubsub().subscribe(topic).await?;
                        print_note("the session was renewed; messages in between were not seen");
                    }
                    None => return Err(error.into()),
                },
                Some(Err(error)) => return Err(error.into()),
                None => return Err(CliError::unreachable("the node ended the subscription")),
            },
        }
    }
}

/// One line for each message. Text as it is, when it goes to no terminal, which it could steer.
fn write_message(out: Output, topic: &str, data: &[u8]) -> Result<(), CliError> {
    if out.is_json() {
        let mut object = json!({ "topic": topic, "data_base64": encode_base64(data), "received_at": json_time(debros_proto::now_ms()) });
        if let Ok(text) = std::str::from_utf8(data) {
            object["text"] = text.into();
        }
        return out.write_json(&object);
    }
    if out.is_terminal() {
        return match std::str::from_utf8(data) {
            Ok(text) => out.write_line(&printable(text)),
            Err(_) => {
                out.write_line(&format!("<{} of binary data>", counted(data.len() as u64, "byte")))
            }
        };
    }
    let mut line = data.to_vec();
    line.push(b'\n');
    out.write_bytes(&line)
}
