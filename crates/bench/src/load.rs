//! The load generator: one thread, raw TCP, prepared requests, one request in flight on each
//! connection.

use crate::proc_stat;
use crate::request_template::{FIRST, RequestTemplate, parse_answer};
use anyhow::{Context as _, Result, ensure};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The settings of the measurement of one cell: a figure of the table of `make bench`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadPlan {
    /// Connections, each with one request in flight.
    pub(crate) connections: usize,
    /// Not counted.
    pub(crate) warm_up: Duration,
    /// Counted.
    pub(crate) duration: Duration,
    /// Keys are `FIRST..FIRST + keys`. Each connection has a part of them to itself, from which it
    /// draws at random.
    pub(crate) keys: u64,
    /// The first of the numbers that are new in every request.
    pub(crate) fresh: u64,
    /// Draws the keys.
    pub(crate) seed: u64,
}

/// The result of one cell's run.
#[derive(Debug, Default)]
pub(crate) struct LoadOutcome {
    /// Requests finished within the counted time.
    pub(crate) counted: u64,
    /// Counted requests per second.
    pub(crate) rate: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    /// Microseconds.
    pub(crate) p99: f64,
    /// All requests answered, warm-up included.
    pub(crate) answered: u64,
    /// Key and fresh number of each connection's last request.
    pub(crate) last: Vec<(u64, u64)>,
    /// Processor time of the generator per request, microseconds.
    pub(crate) generator_cpu: f64,
}

struct ConnectionSamples {
    latencies: Vec<u32>,
    answered: u64,
    last: Option<(u64, u64)>,
}

/// Drives one server with one kind of request, and verifies every answer.
///
/// # Errors
/// A connection that breaks, an answer with another status than 2xx, or a wrong one.
pub(crate) fn run(
    address: SocketAddr,
    template: &RequestTemplate,
    plan: LoadPlan,
) -> Result<LoadOutcome> {
    // A thread of its own: its processor time is the generator's.
    std::thread::scope(|scope| {
        scope
            .spawn(|| run_on_thread(address, template, plan))
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn run_on_thread(
    address: SocketAddr,
    template: &RequestTemplate,
    plan: LoadPlan,
) -> Result<LoadOutcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut streams = Vec::with_capacity(plan.connections);
        for _ in 0..plan.connections {
            let stream = TcpStream::connect(address)
                .await
                .with_context(|| format!("connect to {address}"))?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let cpu_before = proc_stat::thread_cpu()?;
        let count_from = Instant::now() + plan.warm_up;
        let stop_at = count_from + plan.duration;
        let mut running = JoinSet::new();
        for (index, stream) in streams.into_iter().enumerate() {
            running.spawn(run_connection(
                stream,
                template.clone(),
                plan,
                index as u64,
                count_from,
                stop_at,
            ));
        }
        let mut latencies = Vec::new();
        let mut outcome = LoadOutcome::default();
        while let Some(samples) = running.join_next().await {
            let samples = samples??;
            latencies.extend(samples.latencies);
            outcome.answered += samples.answered;
            outcome.last.extend(samples.last);
        }
        let cpu_time = proc_stat::thread_cpu()?.saturating_sub(cpu_before);
        ensure!(!latencies.is_empty(), "no request was answered within {:?}", plan.duration);
        latencies.sort_unstable();
        outcome.counted = latencies.len() as u64;
        outcome.rate = latencies.len() as f64 / plan.duration.as_secs_f64();
        outcome.p50 = percentile(&latencies, 0.50);
        outcome.p99 = percentile(&latencies, 0.99);
        outcome.generator_cpu = cpu_time.as_secs_f64() * 1e6 / outcome.answered as f64;
        Ok(outcome)
    })
}

async fn run_connection(
    mut stream: TcpStream,
    mut template: RequestTemplate,
    plan: LoadPlan,
    index: u64,
    count_from: Instant,
    stop_at: Instant,
) -> Result<ConnectionSamples> {
    let connections = plan.connections as u64;
    let mut random = Xorshift64::new(plan.seed ^ (index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut buffer = vec![0_u8; 16 * 1024];
    let mut samples =
        ConnectionSamples { latencies: Vec::with_capacity(1 << 14), answered: 0, last: None };
    let mut sent_at = Instant::now();
    while sent_at < stop_at {
        // Every connection has keys of its own: its last put decides what the key holds at the end.
        let key = FIRST + (random.next() % (plan.keys / connections).max(1)) * connections + index;
        let fresh = plan.fresh + samples.answered * connections + index;
        send_and_check(&mut stream, &mut template, &mut buffer, key, fresh).await?;
        samples.answered += 1;
        samples.last = Some((key, fresh));
        let now = Instant::now();
        if now >= count_from && now <= stop_at {
            let nanoseconds = (now - sent_at).as_nanos();
            samples.latencies.push(u32::try_from(nanoseconds).unwrap_or(u32::MAX));
        }
        sent_at = now;
    }
    Ok(samples)
}

/// Sends one request, reads its answer and checks it.
pub(crate) async fn send_and_check(
    stream: &mut TcpStream,
    template: &mut RequestTemplate,
    buffer: &mut [u8],
    key: u64,
    fresh: u64,
) -> Result<()> {
    stream.write_all(template.fill_numbers(key, fresh)).await?;
    let mut filled = 0;
    let answer = loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        ensure!(read > 0, "the server closed the connection before it had answered");
        filled += read;
        if let Some(answer) = parse_answer(&buffer[..filled])? {
            break answer;
        }
        ensure!(filled < buffer.len(), "an answer is longer than {} bytes", buffer.len());
    };
    ensure!(answer.end == filled, "the server sent more than the answer");
    template.check_answer(answer.status, &buffer[answer.body_at..answer.end], key)
}

/// Reads one answer from a connection: its status, and its body as text.
pub(crate) async fn read_answer(stream: &mut TcpStream) -> Result<(u16, String)> {
    let mut bytes = Vec::new();
    let answer = loop {
        if let Some(answer) = parse_answer(&bytes)? {
            break answer;
        }
        ensure!(
            stream.read_buf(&mut bytes).await? > 0,
            "the server closed the connection before it had answered"
        );
    };
    Ok((answer.status, String::from_utf8_lossy(&bytes[answer.body_at..answer.end]).into_owned()))
}

/// Sends a request once and returns the body of its answer.
pub(crate) fn request_once(
    address: SocketAddr,
    template: &RequestTemplate,
    key: u64,
) -> Result<String> {
    let mut stream =
        std::net::TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut template = template.clone();
    stream.write_all(template.fill_numbers(key, FIRST))?;
    let mut bytes = Vec::new();
    let mut piece = [0; 16 * 1024];
    let answer = loop {
        if let Some(answer) = parse_answer(&bytes)? {
            break answer;
        }
        let read = stream.read(&mut piece)?;
        ensure!(read > 0, "the server closed the connection before it had answered");
        bytes.extend_from_slice(&piece[..read]);
    };
    let body = &bytes[answer.body_at..answer.end];
    template.check_answer(answer.status, body, key)?;
    Ok(String::from_utf8_lossy(body).into_owned())
}

/// Sends a request for each of the first `keys` keys, on 64 connections.
pub(crate) fn put_all(address: SocketAddr, template: &RequestTemplate, keys: u64) -> Result<()> {
    const LANES: u64 = 64;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut lanes = JoinSet::new();
        for lane in 0..LANES {
            let mut template = template.clone();
            lanes.spawn(async move {
                let mut stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let mut buffer = vec![0_u8; 16 * 1024];
                for key in (FIRST + lane..FIRST + keys).step_by(LANES as usize) {
                    send_and_check(&mut stream, &mut template, &mut buffer, key, key).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(lane) = lanes.join_next().await {
            lane??;
        }
        Ok(())
    })
}

/// Microseconds at a share of sorted nanoseconds.
pub(crate) fn percentile(sorted: &[u32], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, |&nanoseconds| f64::from(nanoseconds) / 1000.0)
}

/// xorshift64*: good enough to draw keys, and costs next to nothing.
struct Xorshift64(u64);

impl Xorshift64 {
    fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::{LoadPlan, percentile, run};
    use crate::request_template::{AnswerCheck, FIRST, KEY, RequestTemplate};
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::time::Duration;

    #[test]
    fn percentiles_are_of_the_sorted_list() {
        let sorted: Vec<u32> = (1..=100).map(|n| n * 1000).collect();
        assert_eq!(percentile(&sorted, 0.5), 51.0);
        assert_eq!(percentile(&sorted, 0.99), 100.0);
    }

    /// A server that answers every request with the same body.
    fn server(body: &'static str) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                            body.len()
                        );
                        if stream.write_all(answer.as_bytes()).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        address
    }

    fn plan(connections: usize) -> LoadPlan {
        LoadPlan {
            connections,
            warm_up: Duration::from_millis(10),
            duration: Duration::from_millis(100),
            keys: 1,
            fresh: FIRST,
            seed: 1,
        }
    }

    #[test]
    fn requests_are_counted() {
        let template =
            RequestTemplate::http("GET", &format!("/{KEY}"), "", "", AnswerCheck::ContainsKey);
        let outcome = run(server("1000000000"), &template, plan(1)).unwrap();
        assert!(
            outcome.counted > 0 && outcome.answered >= outcome.counted && outcome.last.len() == 1
        );
    }

    #[test]
    fn a_wrong_answer_ends_the_run() {
        let template =
            RequestTemplate::http("GET", &format!("/{KEY}"), "", "", AnswerCheck::ContainsKey);
        let error = run(server("2000000000"), &template, plan(2)).unwrap_err();
        assert!(error.to_string().contains("wrong answer"), "{error}");
    }
}
