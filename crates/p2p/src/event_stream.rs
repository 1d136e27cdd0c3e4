//! The events of an open stream, as the caller reads them.

use crate::handler::EventSource;
use crate::remote_events::RemoteEvents;
use debros_proto::{Error, rpc};
use futures::stream::Stream;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The events of an open stream. Dropping it cancels the stream at the node.
pub struct EventStream(EventOrigin);

enum EventOrigin {
    Local(EventSource),
    Remote(RemoteEvents),
}

impl EventStream {
    pub(crate) fn local(source: EventSource) -> Self {
        Self(EventOrigin::Local(source))
    }

    pub(crate) fn remote(events: RemoteEvents) -> Self {
        Self(EventOrigin::Remote(events))
    }
}

impl Stream for EventStream {
    type Item = Result<rpc::Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.0 {
            EventOrigin::Local(source) => source.as_mut().poll_next(cx),
            EventOrigin::Remote(events) => events.poll_next(cx),
        }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            EventOrigin::Local(_) => f.write_str("Events(local)"),
            EventOrigin::Remote(_) => f.write_str("Events(remote)"),
        }
    }
}
