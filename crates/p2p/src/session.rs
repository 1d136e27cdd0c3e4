//! One served stream: reads the caller's frames, starts its calls, and ends them when the caller leaves.

use crate::call::{Caller, Refusal};
use crate::opened_stream::Opened;
use crate::outbox::Outbox;
use crate::quota::{Arriving, Quota};
use crate::serving::Serving;
use crate::trust::PeerTrust;
use crate::wire::{Patience, Reset, Wire, WireConfig};
use debros_proto::rpc::{Frame, frame::Body};
use libp2p::PeerId;
use std::pin::pin;
use std::sync::Arc;

/// Serves a stream until the caller closes it, breaks the rules, or the node stops.
pub(crate) async fn serve(
    serving: Arc<Serving>,
    peer: PeerId,
    trust: Arc<PeerTrust>,
    quota: Arc<Quota>,
    stream: Opened,
) -> Result<(), Reset> {
    let limits = &serving.limits;
    let outbox = Arc::new(Outbox::new(limits.write_queue_bytes, limits.response_frame_bytes));
    let config = WireConfig {
        frame_limit: limits.request_frame_bytes,
        partial_frame_timeout: limits.partial_frame_timeout,
        patience: Patience::WholeFrame,
        write_stall_timeout: limits.write_stall_timeout,
        arriving: Some(Arriving::new(&quota.request_bytes, &serving.request_bytes)),
    };
    let wire = Wire::new(stream, outbox.clone(), config, serving.metrics.clone());
    let caller = Arc::new(Caller::new(peer, trust, serving.clone(), quota, outbox.clone()));
    let end = tokio::select! {
        end = run(&caller, wire) => end,
        () = serving.over.cancelled() => Ok(()),
    };
    // Whoever still runs has nobody to answer.
    outbox.close();
    caller.abort_all();
    end
}

/// Reads and writes until the caller leaves; or, when the node stops, until every call has ended and was answered.
async fn run(caller: &Arc<Caller>, mut wire: Wire) -> Result<(), Reset> {
    let mut stopping = pin!(caller.serving.stopping.cancelled());
    let mut idle = pin!(caller.tasks.wait());
    let mut closing = false;
    loop {
        tokio::select! {
            biased;
            frame = wire.next() => match frame? {
                Some((frame, size)) => {
                    receive(caller, frame, size, closing)?;
                    tokio::task::coop::consume_budget().await;
                }
                // The caller has left. A broken connection looks the same, so nothing is answered any more.
                None => return Ok(()),
            },
            () = &mut stopping, if !closing => {
                closing = true;
                caller.tasks.close();
                caller.end_subscriptions();
            }
            () = &mut idle, if closing => return wire.finish().await,
        }
    }
}

fn receive(caller: &Arc<Caller>, frame: Frame, size: usize, closing: bool) -> Result<(), Reset> {
    match frame.body {
        Some(Body::Request(_)) if closing => caller.refuse(frame.id, Refusal::Stopping),
        Some(Body::Request(request)) => caller.start(frame.id, request, size),
        Some(Body::Credit(credit)) => {
            caller.credit(frame.id, credit.events);
            Ok(())
        }
        Some(Body::Cancel(_)) => {
            caller.cancel(frame.id);
            Ok(())
        }
        Some(Body::Response(_) | Body::Error(_) | Body::Event(_) | Body::End(_)) => Err(Reset::Violation),
        // A kind of frame that a newer version added.
        None => Ok(()),
    }
}
