//! A server between the worker and a service that cuts, resets, stalls, slows and answers in the service's place.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What goes wrong, once, from when it is armed on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// All connections end after so many bytes, from the worker (`up`) or to it, by a reset or as if closed.
    Cut { up: bool, after_bytes: u64, reset: bool },
    /// Nothing passes after so many bytes.
    Stall { up: bool, after_bytes: u64 },
    /// Connections end, and new ones are refused.
    Refuse,
    /// Every packet takes so long.
    Slow { pause_ms: u64 },
    /// Requests from this one on get this answer of HTTP, so many times.
    Answer { status: u16, first: u64, times: u64 },
    /// The service does what this request says, and its answer is lost.
    LoseAnswer { request: u64 },
}

/// A proxy of one service.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    line: Arc<Line>,
}

struct Line {
    service: SocketAddr,
    fault: Mutex<Option<Fault>>,
    up_bytes: AtomicU64,
    down_bytes: AtomicU64,
    requests: AtomicU64,
    /// Goes up to end all connections: whether by a reset.
    cut: watch::Sender<(u64, bool)>,
    /// Goes up when the fault is over.
    healed: watch::Sender<u64>,
}

/// What becomes of a packet.
enum Verdict {
    Pass,
    Wait(Duration),
    Stall,
    /// So many bytes of it pass, then all connections end.
    Cut(usize, bool),
    Answer(u16),
    PassAndLoseAnswer,
}

impl Proxy {
    pub(super) async fn start(service: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let line = Arc::new(Line {
            service,
            fault: Mutex::new(None),
            up_bytes: AtomicU64::new(0),
            down_bytes: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            cut: watch::channel((0, false)).0,
            healed: watch::channel(0).0,
        });
        let accepting = Arc::clone(&line);
        tokio::spawn(async move {
            while let Ok((worker, _)) = listener.accept().await {
                tokio::spawn(connection(worker, Arc::clone(&accepting)));
            }
        });
        Self { address, line }
    }

    /// Makes something go wrong from now on.
    pub(super) fn arm(&self, fault: Fault) {
        for count in [&self.line.up_bytes, &self.line.down_bytes, &self.line.requests] {
            count.store(0, Ordering::Relaxed);
        }
        *self.line.fault.lock().unwrap() = Some(fault);
        if let Fault::Refuse = fault {
            self.line.cut_all(true);
        }
    }

    /// Lets everything pass again. What stalled ends.
    pub(super) fn heal(&self) {
        let fault = self.line.fault.lock().unwrap().take();
        if let Some(Fault::Stall { .. }) = fault {
            self.line.cut_all(true);
        }
        self.line.healed.send_modify(|count| *count += 1);
    }
}

impl Line {
    fn cut_all(&self, reset: bool) {
        self.cut.send_modify(|(count, by_reset)| {
            *count += 1;
            *by_reset = reset;
        });
    }

    fn fault(&self) -> Option<Fault> {
        *self.fault.lock().unwrap()
    }

    fn judge(&self, is_up: bool, packet: &[u8]) -> Verdict {
        let count = if is_up { &self.up_bytes } else { &self.down_bytes };
        let before = count.fetch_add(packet.len() as u64, Ordering::Relaxed);
        let after = before + packet.len() as u64;
        let request =
            if is_up && is_request(packet) { self.requests.fetch_add(1, Ordering::Relaxed) } else { u64::MAX };
        match self.fault() {
            Some(Fault::Cut { up, after_bytes, reset }) if up == is_up && (before..after).contains(&after_bytes) => {
                Verdict::Cut((after_bytes - before) as usize, reset)
            }
            Some(Fault::Stall { up, after_bytes }) if up == is_up && after > after_bytes => Verdict::Stall,
            Some(Fault::Slow { pause_ms }) => Verdict::Wait(Duration::from_millis(pause_ms)),
            Some(Fault::Answer { status, first, times }) if (first..first + times).contains(&request) => {
                Verdict::Answer(status)
            }
            Some(Fault::LoseAnswer { request: wanted }) if wanted == request => Verdict::PassAndLoseAnswer,
            _ => Verdict::Pass,
        }
    }
}

fn is_request(packet: &[u8]) -> bool {
    ["GET /", "PUT /", "HEAD /", "POST /", "DELETE /"].iter().any(|method| packet.starts_with(method.as_bytes()))
}

/// One connection of a worker, and that to the service.
async fn connection(worker: TcpStream, line: Arc<Line>) {
    if let Some(Fault::Refuse) = line.fault() {
        let _ = worker.set_zero_linger();
        return;
    }
    let Ok(service) = TcpStream::connect(line.service).await else {
        let _ = worker.set_zero_linger();
        return;
    };
    let _ = (worker.set_nodelay(true), service.set_nodelay(true));
    let (worker, service) = (Arc::new(worker), Arc::new(service));
    let mut cut = line.cut.subscribe();
    let loses = AtomicU64::new(0);
    let both = async {
        tokio::join!(pump(&worker, &service, true, &line, &loses), pump(&service, &worker, false, &line, &loses))
    };
    tokio::select! {
        _ = both => {}
        _ = cut.changed() => {
            if cut.borrow().1 {
                let _ = (worker.set_zero_linger(), service.set_zero_linger());
            }
        }
    }
}

/// Passes bytes on in one direction until it ends.
async fn pump(from: &TcpStream, to: &TcpStream, is_up: bool, line: &Line, loses: &AtomicU64) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = match read(from, &mut buffer).await {
            0 => {
                // The other side hears of the end; what it still has to say passes.
                let _ = shutdown(to);
                return;
            }
            count => count,
        };
        let packet = &buffer[..count];
        if !is_up && loses.load(Ordering::Relaxed) == 1 {
            line.cut_all(true);
            return std::future::pending().await;
        }
        match line.judge(is_up, packet) {
            Verdict::Pass => {}
            Verdict::Wait(pause) => tokio::time::sleep(pause).await,
            Verdict::Stall => {
                let mut healed = line.healed.subscribe();
                let _ = healed.changed().await;
                return;
            }
            Verdict::Cut(passes, reset) => {
                write(to, &packet[..passes]).await;
                line.cut_all(reset);
                return std::future::pending().await;
            }
            Verdict::Answer(status) => {
                drain(from, packet).await;
                let body = "<Error><Code>SlowDown</Code><Message>chaos</Message></Error>";
                let length = body.len();
                let head = format!("HTTP/1.1 {status} Chaos\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                write(from, format!("{head}{body}").as_bytes()).await;
                let _ = (shutdown(from), shutdown(to));
                return;
            }
            Verdict::PassAndLoseAnswer => loses.store(1, Ordering::Relaxed),
        }
        write(to, packet).await;
    }
}

/// Reads what is left of a request whose first packet is there: its body.
async fn drain(from: &TcpStream, packet: &[u8]) {
    let Some(end) = packet.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return };
    let head = String::from_utf8_lossy(&packet[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let mut left = length.unwrap_or(0).saturating_sub(packet.len() - end - 4);
    let mut buffer = vec![0; 16 << 10];
    while left > 0 {
        match read(from, &mut buffer).await {
            0 => return,
            count => left = left.saturating_sub(count),
        }
    }
}

/// Reads what is there; 0 at the end, also by an error.
async fn read(from: &TcpStream, buffer: &mut [u8]) -> usize {
    loop {
        if from.readable().await.is_err() {
            return 0;
        }
        match from.try_read(buffer) {
            Ok(count) => return count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return 0,
        }
    }
}

/// Writes all of it, unless the connection has ended.
async fn write(to: &TcpStream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        if to.writable().await.is_err() {
            return;
        }
        match to.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Says to one side that nothing more comes.
fn shutdown(stream: &TcpStream) -> std::io::Result<()> {
    use std::os::fd::AsFd;
    std::net::TcpStream::from(stream.as_fd().try_clone_to_owned()?).shutdown(std::net::Shutdown::Write)
}
