//! A channel to the handler in this process: the call itself, with nothing encoded, queued or spawned.

use crate::calls::{GRACE, late, no_stream, opens_stream, writes};
use crate::events::Events;
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
    match reply(handler, request, timeout).await? {
        Reply::Response(response) | Reply::Stream(response, _) => Ok(response),
    }
}

pub(crate) async fn open(
    handler: &Arc<dyn Handler>,
    request: rpc::Request,
    timeout: Duration,
) -> Result<(rpc::Response, Events), Error> {
    if !opens_stream(&request) {
        return Err(no_stream());
    }
    match reply(handler, request, timeout).await? {
        Reply::Response(response) => {
            let nothing: EventSource = Box::pin(stream::empty());
            Ok((response, Events::local(nothing)))
        }
        Reply::Stream(response, events) => Ok((response, Events::local(events))),
    }
}

async fn reply(handler: &Arc<dyn Handler>, request: rpc::Request, timeout: Duration) -> Result<Reply, Error> {
    let writes = writes(&request);
    let context = CallContext { peer: None, trust: None, deadline: Instant::now() + timeout };
    // The timer is only armed when the handler does not answer at once.
    match tokio::time::timeout(timeout + GRACE, handler.call(context, request)).await {
        Ok(reply) => reply,
        Err(_) => Err(late(writes, timeout)),
    }
}
