//! Answers calls from when there is something to answer them.

use crate::dispatcher::RpcHandler;
use debros_p2p::{CallContext, Handler, Reply};
use debros_proto::rpc::Request;
use debros_proto::{Code, Error, Result};
use futures::future::BoxFuture;
use std::sync::OnceLock;

/// A handler that is set when the node's services have started; the host runs before.
#[derive(Default)]
pub(crate) struct LateHandler(OnceLock<RpcHandler>);

impl LateHandler {
    /// From now on calls are answered by this handler.
    pub(crate) fn set_handler(&self, handler: RpcHandler) {
        // There is one place that does it.
        let _ = self.0.set(handler);
    }
}

impl Handler for LateHandler {
    fn call(&self, context: CallContext, request: Request) -> BoxFuture<'static, Result<Reply>> {
        match self.0.get() {
            Some(handler) => handler.call(context, request),
            None => Box::pin(async {
                Err(Error::new(Code::Unavailable, "the node is starting; try again"))
            }),
        }
    }
}
