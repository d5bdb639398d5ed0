//! PostgreSQL, MariaDB and S3 of this test's own, since it ends and starts them, each behind a proxy.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::proxy::Proxy;
use crate::harness::Settings;

/// The ports of dev/services without an offset.
const PORTS: [u16; 4] = [15432, 13306, 17070, 18080];
/// Sets of services that may be there already: a developer's own, CI's, other tests'.
const OFFSETS: std::ops::Range<u16> = 5000..13000;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Service {
    Postgres,
    Mysql,
    S3,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::S3 => "s3",
        }
    }
}

pub(super) struct Services {
    state: tempfile::TempDir,
    /// Where they are: the twin's way, and the readers'.
    pub(super) settings: Settings,
    proxies: [Proxy; 3],
}

impl Services {
    pub(super) async fn start() -> Self {
        // Servers run as users of their own, who have to get into the folder.
        let state = tempfile::Builder::new().prefix("report-operator-chaos-").tempdir_in("/var/tmp").unwrap();
        let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        std::fs::set_permissions(state.path(), mode).unwrap();
        let offset = OFFSETS.step_by(50).map(|from| from + (std::process::id() % 50) as u16);
        let offset = offset.into_iter().find(|offset| are_free(*offset)).expect("no free ports");
        let settings = Settings::new();
        let mut services = Self { state, settings, proxies: proxies(["127.0.0.1:1".parse().unwrap(); 3]).await };
        services.script(&["up", "--port-offset", &offset.to_string()]);
        let env = std::fs::read_to_string(services.folder().join("env")).unwrap();
        services.settings = (env.lines())
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let address = |name: &str| {
            let value = &services.settings[name];
            let end = value.rsplit_once('@').or(value.rsplit_once("//")).unwrap().1;
            end.split('/').next().unwrap().parse::<SocketAddr>().unwrap()
        };
        services.proxies =
            proxies([address("TEST_POSTGRES_URL"), address("TEST_MYSQL_URL"), address("TEST_S3_ENDPOINT")]).await;
        services
    }

    fn folder(&self) -> PathBuf {
        self.state.path().join("services")
    }

    pub(super) fn proxy(&self, service: Service) -> &Proxy {
        &self.proxies[service as usize]
    }

    /// The same settings by the proxies: the worker's way.
    pub(super) fn by_proxy(&self) -> Settings {
        let mut settings = self.settings.clone();
        for (name, service) in
            [("SECRET_DB_URL", Service::Postgres), ("SECRET_MY_URL", Service::Mysql), ("AWS_ENDPOINT_URL", Service::S3)]
        {
            let proxy = self.proxy(service).address;
            let url = match service {
                Service::Postgres => format!("postgres://app:testpw@{proxy}/reporting"),
                Service::Mysql => format!("mysql://app:testpw@{proxy}/reporting"),
                Service::S3 => format!("http://{proxy}"),
            };
            settings.insert(name.into(), url);
        }
        settings
    }

    /// Ends a server, as asked to or by a crash, and starts it again on its data.
    pub(super) fn restart(&self, service: Service, crash: bool) {
        let signal = match (service, crash) {
            (_, false) => "INT",
            // PostgreSQL's processes outlive one that is killed; all of them end at once by this.
            (Service::Postgres, true) => "QUIT",
            (Service::Mysql | Service::S3, true) => "KILL",
        };
        self.script(&["restart", service.name(), signal]);
    }

    pub(super) fn heal(&self) {
        self.proxies.iter().for_each(Proxy::heal);
    }

    fn script(&self, arguments: &[&str]) {
        let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/services"))
            .args(arguments)
            .env("SERVICES_STATE", self.folder())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "dev/services {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        let down = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/services"))
            .arg("down")
            .env("SERVICES_STATE", self.folder())
            .status();
        if !down.is_ok_and(|status| status.success()) {
            eprintln!("the services in {} could not be stopped", self.folder().display());
        }
    }
}

async fn proxies(services: [SocketAddr; 3]) -> [Proxy; 3] {
    let [postgres, mysql, s3] = services;
    [Proxy::start(postgres).await, Proxy::start(mysql).await, Proxy::start(s3).await]
}

fn are_free(offset: u16) -> bool {
    PORTS.iter().all(|port| TcpListener::bind(("127.0.0.1", port + offset)).is_ok())
}
