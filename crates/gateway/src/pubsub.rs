//! `/v1/pubsub` without its WebSocket: publishing one message, and listing topics.

use crate::api_call::ApiCall;
use crate::error::{ErrorBody, HandlerResult};
use crate::respond::{Done, done, json};
use debros_proto::json::decode_base64;
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// A message.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PublishBody {
    /// 1 to 256 bytes of UTF-8.
    topic: String,
    /// The message in base64, up to 1 MiB of bytes.
    #[schema(content_encoding = "base64")]
    data_base64: String,
}

/// Topics with live subscriptions.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct TopicsAnswer {
    topics: Vec<String>,
}

/// Publishes a message to a topic.
#[utoipa::path(
    post, path = "/v1/pubsub/publish", tag = "pubsub", operation_id = "pubsub_publish", request_body = PublishBody,
    responses((status = 200, body = Done), (status = 413, body = ErrorBody)),
)]
pub(crate) async fn publish(mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    let PublishBody { topic, data_base64 } = call.read_json().await?;
    call.client.pubsub().publish(topic, decode_base64(&data_base64)?).await?;
    done(StatusCode::OK)
}

/// Lists the topics that have subscribers.
#[utoipa::path(
    get, path = "/v1/pubsub/topics", tag = "pubsub", operation_id = "pubsub_topics",
    responses((status = 200, body = TopicsAnswer)),
)]
pub(crate) async fn topics(mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    let topics = call.client.pubsub().topics().await?;
    json(StatusCode::OK, &TopicsAnswer { topics })
}
