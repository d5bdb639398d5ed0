//! The operator's process: arguments, signals, wiring.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Parser;
use kube::Client;
use report_operator::build::Settings;
use report_operator::controller::{self, Context};
use report_operator::health::{self, Health};
use report_operator::lease::Lease;
use report_operator::metrics::Metrics;
use report_operator::observe::Caches;
use report_operator::{Error, Result, telemetry};
use tokio::signal::unix::{SignalKind, signal};

/// Keeps reporting data fresh: turns each ReportPipeline into a CronJob, each of its Jobs into a ReportRun, and each
/// worker's result into a status.
///
/// It runs in a pod, as the chart charts/report-operator installs it, or outside of the cluster with KUBECONFIG set:
///
///   WORKER_IMAGE=docker.io/report-operator/etl-worker:0.1.0 POD_NAMESPACE=default report-operator
///
/// Then look at `kubectl get reportpipelines,reportruns`. RUST_LOG chooses what is logged, such as
/// info,report_operator=debug.
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Args {
    /// The image of the pods that run pipelines. Its version must be the operator's
    #[arg(long, env = "WORKER_IMAGE")]
    worker_image: String,
    /// When the kubelet pulls that image: Always, IfNotPresent or Never. Default: as Kubernetes decides by the tag
    #[arg(long, env = "WORKER_IMAGE_PULL_POLICY", default_value = "")]
    worker_image_pull_policy: String,
    /// Names of Secrets with registry credentials, which must be in each pipeline's namespace
    #[arg(long, env = "WORKER_IMAGE_PULL_SECRETS", value_delimiter = ',')]
    worker_image_pull_secrets: Vec<String>,
    /// The only namespace in which pipelines are run; a Role there is enough. Empty: all namespaces
    #[arg(long, env = "WATCH_NAMESPACE", default_value = "")]
    watch_namespace: String,
    /// A name in front of each pipeline's identity in ledgers, where several clusters write into one database
    #[arg(long, env = "INSTALLATION", default_value = "")]
    installation: String,
    /// The namespace of the Lease by which one of several operators is chosen
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pod_namespace: String,
    /// The name of that Lease
    #[arg(long, env = "LEASE_NAME", default_value = "report-operator")]
    lease_name: String,
    /// Where /healthz, /readyz and /metrics are served
    #[arg(long, env = "HTTP_ADDRESS", default_value = "0.0.0.0:8080")]
    http_address: SocketAddr,
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let args = Args::parse();
    telemetry::init();
    match run(args).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the operator ends");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let client = Client::try_default().await.map_err(|source| Error::NoCluster { source: Box::new(source) })?;
    let (caches, metrics) = (Arc::<Caches>::default(), Arc::<Metrics>::default());
    let health = Health::start(Arc::clone(&caches), Arc::clone(&metrics));
    let mut server = tokio::spawn(health::serve(args.http_address, Arc::clone(&health)));

    let namespace = Some(args.watch_namespace).filter(|namespace| !namespace.is_empty());
    controller::probe(&client, namespace.as_deref()).await?;
    let streaming = controller::streams_lists(&client).await;
    let identity = identity();
    let mut lease = Lease::start(client.clone(), &args.pod_namespace, &args.lease_name, &identity).await?;

    let mut stop = std::pin::pin!(asked_to_stop());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        worker_image = args.worker_image,
        identity,
        "waiting for the lease"
    );
    tokio::select! {
        held = lease.acquired() => held?,
        () = &mut stop => { lease.release().await; return Ok(()) }
        served = &mut server => return Err(ended("the server of /healthz and /metrics", served)),
    }
    tracing::info!(namespace = namespace.as_deref().unwrap_or("all"), streaming, "this operator leads");
    health.leads();

    let settings = Settings {
        worker_image: args.worker_image,
        pull_policy: args.worker_image_pull_policy,
        pull_secrets: args.worker_image_pull_secrets.into_iter().filter(|name| !name.is_empty()).collect(),
        installation: args.installation,
    };
    let context = Arc::new(Context::new(client, caches, settings, metrics, identity));
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let mut work = tokio::spawn(controller::run(context, namespace, streaming, async { drop(finished.await) }));
    tokio::select! {
        // Nothing may be written without the lease: the process ends at once, with what is under way.
        error = lease.lost() => return Err(error),
        worked = &mut work => return Err(ended("the controller", worked.map(Ok))),
        served = &mut server => return Err(ended("the server of /healthz and /metrics", served)),
        () = &mut stop => {
            tracing::info!("asked to stop: finishing what is under way");
            drop(finish);
            tokio::select! {
                _ = &mut work => {}
                error = lease.lost() => return Err(error),
            }
        }
    }
    lease.release().await;
    Ok(())
}

/// A part of the process that should go on for ever has ended.
fn ended(part: &'static str, how: std::result::Result<Result<()>, tokio::task::JoinError>) -> Error {
    match how {
        Ok(Err(error)) => error,
        Ok(Ok(())) => Error::Ended { part, source: None },
        Err(broken) => Error::Ended { part, source: Some(broken) },
    }
}

/// Who holds the lease: the pod's name, and a number for two processes on one machine.
fn identity() -> String {
    let host =
        std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "report-operator".into());
    format!("{host}-{}", std::process::id())
}

async fn asked_to_stop() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
