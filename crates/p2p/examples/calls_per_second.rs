//! How many small calls a second two processes exchange over one channel.
//!
//! ```text
//! calls_per_second serve                         prints an address, serves until it is killed
//! calls_per_second call <address> <callers>      prints calls per second, for about ten seconds
//! calls_per_second here <callers>                the same against a handler in this process
//! ```
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use debros_p2p::{
    CallContext, Channel, Handler, Host, HostConfig, Keypair, Multiaddr, PeerLimits, Reply,
};
use debros_proto::rpc::{self, request::Call, response::Result as Answer};
use debros_proto::{Code, Error};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SECONDS: u64 = 10;

struct Echo;

impl Handler for Echo {
    fn call(
        &self,
        _: CallContext,
        request: rpc::Request,
    ) -> BoxFuture<'static, Result<Reply, Error>> {
        Box::pin(async move {
            let Some(Call::Put(put)) = request.call else {
                return Err(Error::new(Code::Unimplemented, "only puts"));
            };
            let answer = rpc::PutResponse { version: 1, size: put.value.len() as u64 };
            Ok(Reply::Response(rpc::Response {
                replayed: false,
                result: Some(Answer::Put(answer)),
            }))
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", listen @ ..] => {
            let listen = listen.first().copied().unwrap_or("/ip4/127.0.0.1/tcp/0").parse()?;
            let config = HostConfig {
                listen: vec![listen],
                limits: PeerLimits::default(),
                ..HostConfig::client(Keypair::generate_ed25519(), "calls_per_second")
            };
            let host = Host::start(config, Some(Arc::new(Echo))).await?;
            println!("{}", host.listen_addresses()[0]);
            std::future::pending::<()>().await;
        }
        ["call", address, callers] => {
            let address: Multiaddr = address.parse()?;
            let host = Host::start(
                HostConfig::client(Keypair::generate_ed25519(), "calls_per_second"),
                None,
            )
            .await?;
            let peer = host.connect(address, Duration::from_secs(5)).await?;
            measure(host.open(peer).await?, callers.parse()?).await;
        }
        ["here", callers] => measure(Channel::local(Arc::new(Echo)), callers.parse()?).await,
        _ => println!("calls_per_second serve | call <address> <callers> | here <callers>"),
    }
    Ok(())
}

async fn measure(channel: Channel, callers: usize) {
    let done = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + Duration::from_secs(SECONDS);
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let (channel, done) = (channel.clone(), done.clone());
            tokio::spawn(async move {
                let value = bytes::Bytes::from(vec![7; 100]);
                while Instant::now() < end {
                    let put = rpc::PutRequest {
                        key: "a-key-of-usual-length".into(),
                        value: value.clone(),
                        ..Default::default()
                    };
                    let request = rpc::Request {
                        credential: "ak_0123456789abcdefghijklmnopqrstuv:default".into(),
                        call: Some(Call::Put(put)),
                        ..Default::default()
                    };
                    match channel.call(request, Duration::from_secs(5)).await {
                        Ok(_) => drop(done.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => return println!("failed: {error}"),
                    }
                }
            })
        })
        .collect();
    futures::future::join_all(callers).await;
    println!("{} calls per second", done.load(Ordering::Relaxed) / SECONDS);
}
