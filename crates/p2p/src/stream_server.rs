//! One served stream: reads the caller's frames, starts its calls, and ends them when the caller
//! leaves.

use crate::framed_stream::{FrameTimeoutStart, FramedStream, FramedStreamConfig, StreamError};
use crate::opened_stream::OpenedStream;
use crate::peer_quota::{ArrivingBytes, PeerQuota};
use crate::peer_trust::PeerTrust;
use crate::send_queue::SendQueue;
use crate::served_stream::{CallRefusal, ServedStream};
use crate::serving_context::ServingContext;
use debros_proto::rpc::{Frame, frame::Body};
use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use std::pin::pin;
use std::sync::Arc;

/// Serves a stream until the caller closes it, breaks the rules, or the node stops.
pub(crate) async fn serve(
    serving: Arc<ServingContext>,
    peer: PeerId,
    connection: ConnectionId,
    trust: Arc<PeerTrust>,
    quota: Arc<PeerQuota>,
    stream: OpenedStream,
) -> Result<(), StreamError> {
    let limits = &serving.limits;
    let send_queue =
        Arc::new(SendQueue::new(limits.write_queue_bytes, limits.response_frame_bytes));
    let config = FramedStreamConfig {
        frame_limit: limits.request_frame_bytes,
        partial_frame_timeout: limits.partial_frame_timeout,
        timeout_start: FrameTimeoutStart::FirstByte,
        write_stall_timeout: limits.write_stall_timeout,
        arriving: Some(ArrivingBytes::new(&quota.request_bytes, &serving.request_bytes)),
    };
    let framed = FramedStream::new(stream, send_queue.clone(), config, serving.metrics.clone());
    let caller = Arc::new(ServedStream::new(
        peer,
        connection,
        trust,
        serving.clone(),
        quota,
        send_queue.clone(),
    ));
    let end = tokio::select! {
        end = run(&caller, framed) => end,
        () = serving.abort.cancelled() => Ok(()),
    };
    // The answers of calls that still run have no receiver.
    send_queue.close();
    caller.abort_all();
    end
}

/// Reads and writes until the caller leaves; or, when the node stops, until every call has ended
/// and was answered.
async fn run(caller: &Arc<ServedStream>, mut framed: FramedStream) -> Result<(), StreamError> {
    let mut stopping = pin!(caller.serving.stopping.cancelled());
    let mut idle = pin!(caller.tasks.wait());
    let mut closing = false;
    loop {
        tokio::select! {
            biased;
            frame = framed.next_frame() => match frame? {
                Some((frame, size)) => {
                    handle_frame(caller, frame, size, closing)?;
                    tokio::task::coop::consume_budget().await;
                }
                // The caller has left. A broken connection looks the same, so nothing is answered
                // any more.
                None => return Ok(()),
            },
            () = &mut stopping, if !closing => {
                closing = true;
                caller.tasks.close();
                caller.end_subscriptions();
            }
            () = &mut idle, if closing => return framed.flush_and_close().await,
        }
    }
}

fn handle_frame(
    caller: &Arc<ServedStream>,
    frame: Frame,
    size: usize,
    closing: bool,
) -> Result<(), StreamError> {
    match frame.body {
        Some(Body::Request(_)) if closing => caller.refuse_call(frame.id, CallRefusal::Stopping),
        Some(Body::Request(request)) => caller.start_call(frame.id, request, size),
        Some(Body::Credit(credit)) => {
            caller.add_credit(frame.id, credit.events);
            Ok(())
        }
        Some(Body::Cancel(_)) => {
            caller.cancel_call(frame.id);
            Ok(())
        }
        Some(Body::Response(_) | Body::Error(_) | Body::Event(_) | Body::End(_)) => {
            Err(StreamError::Violation)
        }
        // A kind of frame that a newer version added.
        None => Ok(()),
    }
}
