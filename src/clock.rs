//! The only place of the operator that reads the time.

use jiff::Timestamp;

/// What time it is. Tests bring their own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// The time in whole seconds, which is what Kubernetes' timestamps hold: a finer one would make a status differ from
    /// what is read back.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn now(self) -> Timestamp {
        whole_seconds(Timestamp::now())
    }

    /// The time as events have it.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn now_exact(self) -> Timestamp {
        Timestamp::now()
    }
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
