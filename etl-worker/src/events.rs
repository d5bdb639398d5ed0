//! What a run says while it goes on: one line per stage on a terminal, one JSON record otherwise.

/// Hears what happens in a run.
pub trait Progress: Send + Sync {
    /// Something has begun or ended: `what` names it (`source orders`), `text` says it in a few words.
    fn step(&self, stage: &'static str, what: &str, text: &str);
}

/// Says it to the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Log;

impl Progress for Log {
    fn step(&self, stage: &'static str, what: &str, text: &str) {
        tracing::info!(stage, what, "{text}");
    }
}

/// Says it to a person: one line per step.
#[derive(Debug)]
pub struct Terminal {
    started: std::time::Instant,
}

impl Default for Terminal {
    fn default() -> Self {
        Self { started: std::time::Instant::now() }
    }
}

impl Progress for Terminal {
    fn step(&self, stage: &'static str, what: &str, text: &str) {
        use std::io::Write;
        let seconds = self.started.elapsed().as_secs_f64();
        let _ = writeln!(std::io::stderr(), "{seconds:7.1} s  {stage:<9}  {what:<28}  {text}");
    }
}
