//! Topics.

use super::Answer;
use crate::caller::Caller;
use crate::pubsub::Hub;
use debros_engine::{CallOptions, Database, Engine};
use debros_proto::limits::MAX_MESSAGE_BYTES;
use debros_proto::rpc::{self, response};
use debros_proto::{Code, Error, Result, Topic};
use std::sync::Arc;

pub(super) async fn publish(
    engine: &dyn Engine,
    hub: &Hub,
    caller: &Caller,
    request: rpc::PublishRequest,
    options: CallOptions,
) -> Result<Answer> {
    let topic = Topic::new(&request.topic)?;
    let size = request.data.len();
    if size > MAX_MESSAGE_BYTES {
        let message = format!("the message has {size} bytes: at most {MAX_MESSAGE_BYTES} are allowed");
        return Err(Error::new(Code::TooLarge, message));
    }
    let namespace = caller.namespace()?;
    // A message leaves nothing in the database that a record could be committed with, so the record stands alone: it is
    // durable before the message goes out, and a second call with the key finds it.
    let replayed = match options.guard {
        Some(_) => engine.transaction(&Database::System, Vec::new(), options).await?.replayed,
        None => false,
    };
    if !replayed {
        hub.publish(namespace, &topic, request.data).await;
    }
    Ok(Answer::Plain { result: response::Result::Publish(rpc::PublishResponse {}), replayed })
}

pub(super) fn subscribe(hub: &Arc<Hub>, caller: &Caller, request: rpc::SubscribeRequest) -> Result<Answer> {
    let topic = Topic::new(&request.topic)?;
    let subscription = hub.subscribe(caller.namespace()?.clone(), topic)?;
    let result = response::Result::Subscribe(rpc::SubscribeResponse {});
    Ok(Answer::Stream { result, events: Box::pin(subscription) })
}

pub(super) fn topics(hub: &Hub, caller: &Caller) -> Result<Answer> {
    let topics = hub.topics(caller.namespace()?);
    Ok(response::Result::Topics(rpc::TopicsResponse { topics }).into())
}
