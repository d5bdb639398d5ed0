//! Named points at which a test can kill the worker, to prove what the next attempt makes of it.

/// The environment variable that names the point.
pub const ENV_CRASH_AT: &str = "REPORT_CRASH_AT";

/// Kills this process, as SIGKILL would, if the environment names this point. Only builds with debug assertions do.
pub fn point(name: &str) {
    #[cfg(debug_assertions)]
    if std::env::var(ENV_CRASH_AT).is_ok_and(|wanted| wanted == name) {
        tracing::warn!("crash point {name}: killing the worker");
        let pid = std::process::id().to_string();
        let _ = std::process::Command::new("kill").args(["-KILL", &pid]).status();
        // Where there is no `kill`, as in the image, an abort leaves as little behind.
        std::process::abort();
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
