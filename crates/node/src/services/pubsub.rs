//! Topics.

use super::ServiceReply;
use crate::caller::Caller;
use crate::pubsub::TopicHub;
use debros_engine::{CallOptions, Engine, TargetDatabase};
use debros_proto::limits::MAX_MESSAGE_BYTES;
use debros_proto::rpc::{self, response};
use debros_proto::{Code, Error, Result, Topic};
use std::sync::Arc;

pub(super) async fn publish(
    engine: &dyn Engine,
    hub: &TopicHub,
    caller: &Caller,
    request: rpc::PublishRequest,
    options: CallOptions,
) -> Result<ServiceReply> {
    let topic = Topic::new(&request.topic)?;
    let size = request.data.len();
    if size > MAX_MESSAGE_BYTES {
        let message =
            format!("the message has {size} bytes: at most {MAX_MESSAGE_BYTES} are allowed");
        return Err(Error::new(Code::TooLarge, message));
    }
    let namespace = caller.namespace()?;
    // A message leaves nothing in the database that a record could be committed with, so the record
    // stands alone: it is durable before the message goes out, and a second call with the key finds
    // it.
    let replayed = match options.idempotency_key {
        Some(_) => engine.transaction(&TargetDatabase::System, Vec::new(), options).await?.replayed,
        None => false,
    };
    if !replayed {
        hub.publish(namespace, &topic, request.data).await;
    }
    Ok(ServiceReply::Plain { result: response::Result::Publish(rpc::PublishResponse {}), replayed })
}

pub(super) fn subscribe(
    hub: &Arc<TopicHub>,
    caller: &Caller,
    request: rpc::SubscribeRequest,
) -> Result<ServiceReply> {
    let topic = Topic::new(&request.topic)?;
    let subscription = hub.subscribe(caller.namespace()?.clone(), topic)?;
    let result = response::Result::Subscribe(rpc::SubscribeResponse {});
    Ok(ServiceReply::Stream { result, events: Box::pin(subscription) })
}

pub(super) fn topics(hub: &TopicHub, caller: &Caller) -> Result<ServiceReply> {
    let topics = hub.topics(caller.namespace()?);
    Ok(response::Result::Topics(rpc::TopicsResponse { topics }).into())
}
