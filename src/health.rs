//! `/healthz`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::observe::Caches;
use crate::{Error, Result};

/// How often the event loop says that it is alive.
const BEAT: Duration = Duration::from_secs(1);
/// How long it may be silent. The kubelet then starts the process anew.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What is known of the process.
pub struct Health {
    started: Instant,
    last_beat_ms: AtomicU64,
    is_leader: AtomicBool,
    caches: Arc<Caches>,
    metrics: Arc<Metrics>,
}

impl Health {
    /// Begins to watch over the event loop.
    pub fn start(caches: Arc<Caches>, metrics: Arc<Metrics>) -> Arc<Self> {
        let health = Self {
            started: Instant::now(),
            last_beat_ms: AtomicU64::new(0),
            is_leader: AtomicBool::new(false),
            caches,
            metrics,
        };
        let health = Arc::new(health);
        let beating = Arc::clone(&health);
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(BEAT);
            loop {
                interval.tick().await;
                beating.last_beat_ms.store(beating.uptime_ms(), Ordering::Relaxed);
            }
        });
        health
    }

    /// From now on the process is the one that writes.
    pub fn leads(&self) {
        self.is_leader.store(true, Ordering::Relaxed);
        self.metrics.leader.set(1);
    }

    fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_alive(&self) -> bool {
        self.uptime_ms().saturating_sub(self.last_beat_ms.load(Ordering::Relaxed)) < SILENCE_MAX.as_millis() as u64
    }

    /// A process that stands by is ready: it would take over at once. The one that leads is ready when it has seen all.
    fn is_ready(&self) -> bool {
        !self.is_leader.load(Ordering::Relaxed) || self.caches.is_ready()
    }
}

/// The routes, callable without a socket.
pub fn app(health: Arc<Health>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(health)
}

/// Serves until the process ends.
pub async fn serve(address: SocketAddr, health: Arc<Health>) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    axum::serve(listener, app(health)).await.map_err(|source| Error::Listen { address, source })
}

async fn healthz(State(health): State<Arc<Health>>) -> impl IntoResponse {
    if health.is_alive() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the event loop has stopped\n")
    }
}

async fn readyz(State(health): State<Arc<Health>>) -> impl IntoResponse {
    if health.is_ready() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the caches are not complete yet\n")
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], health.metrics.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_stands_by_is_ready_and_one_that_leads_only_with_its_caches() {
        let health = Health::start(Arc::default(), Arc::default());
        assert!(health.is_alive() && health.is_ready());
        health.leads();
        assert!(!health.is_ready());
    }
}
