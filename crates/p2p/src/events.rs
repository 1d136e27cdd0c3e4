//! The events of an open stream, as the caller reads them.

use crate::handler::EventSource;
use crate::remote_events::RemoteEvents;
use debros_proto::{Error, rpc};
use futures::stream::Stream;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The events of an open stream. Dropping it cancels the stream at the node.
pub struct Events(Source);

enum Source {
    Local(EventSource),
    Remote(RemoteEvents),
}

impl Events {
    pub(crate) fn local(source: EventSource) -> Self {
        Self(Source::Local(source))
    }

    pub(crate) fn remote(events: RemoteEvents) -> Self {
        Self(Source::Remote(events))
    }
}

impl Stream for Events {
    type Item = Result<rpc::Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.0 {
            Source::Local(source) => source.as_mut().poll_next(cx),
            Source::Remote(events) => events.poll_next(cx),
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Local(_) => f.write_str("Events(local)"),
            Source::Remote(_) => f.write_str("Events(remote)"),
        }
    }
}
