//! A channel to the handler in this process: the call itself, with nothing encoded, queued or
//! spawned.

use crate::call_semantics::{
    DEADLINE_GRACE, is_write, no_stream_error, opens_stream, timeout_error,
};
use crate::event_stream::EventStream;
use crate::handler::{CallContext, EventSource, Handler, Reply};
use debros_proto::{Error, rpc};
use futures::stream;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) async fn call(
    handler: &Arc<dyn Handler>,
    request: rpc::Request,
    timeout: Duration,
) -> Result<rpc::Response, Error> {
    match call_handler(handler, request, timeout).await? {
        Reply::Response(response) | Reply::Stream(response, _) => Ok(response),
    }
}

pub(crate) async fn open(
    handler: &Arc<dyn Handler>,
    request: rpc::Request,
    timeout: Duration,
) -> Result<(rpc::Response, EventStream), Error> {
    if !opens_stream(&request) {
        return Err(no_stream_error());
    }
    match call_handler(handler, request, timeout).await? {
        Reply::Response(response) => {
            let nothing: EventSource = Box::pin(stream::empty());
            Ok((response, EventStream::local(nothing)))
        }
        Reply::Stream(response, events) => Ok((response, EventStream::local(events))),
    }
}

async fn call_handler(
    handler: &Arc<dyn Handler>,
    request: rpc::Request,
    timeout: Duration,
) -> Result<Reply, Error> {
    let is_write = is_write(&request);
    let context = CallContext { peer: None, trust: None, deadline: Instant::now() + timeout };
    // The timer is only armed when the handler does not answer at once.
    match tokio::time::timeout(timeout + DEADLINE_GRACE, handler.call(context, request)).await {
        Ok(reply) => reply,
        Err(_) => Err(timeout_error(is_write, timeout)),
    }
}
