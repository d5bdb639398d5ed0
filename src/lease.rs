//! Who may write: the process that holds the Lease. It lets go on SIGTERM, and ends when it has lost it.

use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::{Error, Result};

/// How long a lease is valid without being renewed: so long a crashed operator's work stands still.
const DURATION_SECONDS: u64 = 15;
/// How long before that it is renewed. It covers the differences between clocks, and a slow API server.
const GRACE_SECONDS: u64 = 5;

/// A hold on the Lease, or the wait for it.
pub struct Lease {
    state: watch::Receiver<bool>,
    task: JoinHandle<Result<LeaseManager, kube_lease_manager::LeaseManagerError>>,
}

impl Lease {
    /// Begins to try for the Lease.
    pub async fn start(client: Client, namespace: &str, name: &str, identity: &str) -> Result<Self> {
        let failed = |source| Error::Lease { namespace: namespace.into(), name: name.into(), source: Box::new(source) };
        let manager = LeaseManagerBuilder::new(client, name)
            .with_namespace(namespace)
            .with_identity(identity)
            .with_duration(DURATION_SECONDS)
            .with_grace(GRACE_SECONDS)
            .build()
            .await
            .map_err(failed)?;
        let (state, task) = manager.watch().await;
        Ok(Self { state, task })
    }

    /// Waits until it is held.
    pub async fn acquired(&mut self) -> Result<()> {
        self.state.wait_for(|held| *held).await.map(drop).map_err(|_| Error::LeaseLost)
    }

    /// Waits until it is lost.
    pub async fn lost(&mut self) -> Error {
        // An error says that the manager's task has ended, which is no hold either.
        let _ = self.state.wait_for(|held| !*held).await;
        Error::LeaseLost
    }

    /// Lets go, so that another process takes over at once.
    pub async fn release(self) {
        drop(self.state);
        match self.task.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the lease could not be released; it expires by itself"),
            Err(error) => tracing::warn!(%error, "the lease's task has died"),
        }
    }
}
