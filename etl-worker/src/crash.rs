//! Named points at which a test can kill the worker, to prove what the next attempt makes of it.

/// The environment variable that names the point at which to die.
pub const ENV_CRASH_AT: &str = "REPORT_CRASH_AT";
/// The environment variable that names the point at which to stand still until a SIGCONT: a zombie.
pub const ENV_STOP_AT: &str = "REPORT_STOP_AT";

/// Kills this process as SIGKILL would, or stops it as SIGSTOP would, if the environment names this point. Only builds
/// with debug assertions do.
pub fn point(name: &str) {
    #[cfg(debug_assertions)]
    for (variable, signal) in [(ENV_CRASH_AT, "-KILL"), (ENV_STOP_AT, "-STOP")] {
        if std::env::var(variable).is_ok_and(|wanted| wanted == name) {
            tracing::warn!("point {name}: kill {signal}");
            let pid = std::process::id().to_string();
            let sent = std::process::Command::new("kill").args([signal, &pid]).status();
            if variable == ENV_CRASH_AT {
                // Where there is no `kill`, as in the image, an abort leaves as little behind.
                debug_assert!(sent.is_err(), "SIGKILL returns to nobody");
                std::process::abort();
            }
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
