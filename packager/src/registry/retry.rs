//! Trying again: bounded, with back-off, and no longer than a registry's `Retry-After` asks for.

use std::time::Duration;

use super::{Progress, RegistryError};

/// How often and after how long a failed step that may be repeated is tried again.
#[derive(Debug, Clone)]
pub struct Retry {
    /// Attempts in all; at least one is made.
    pub attempts: u32,
    /// Pause before the second attempt; doubled each time.
    pub first_pause: Duration,
    /// No pause is longer, whatever a registry asks for.
    pub longest_pause: Duration,
    /// How to pause.
    pub pause: fn(Duration),
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 4,
            first_pause: Duration::from_millis(400),
            longest_pause: Duration::from_secs(30),
            pause: std::thread::sleep,
        }
    }
}

impl Retry {
    /// The default number of attempts, without any pause between them.
    pub fn at_once() -> Self {
        Self { pause: |_| {}, ..Self::default() }
    }

    /// Run a step until it succeeds, fails for good, or there are no attempts left.
    pub(super) fn run<T>(
        &self,
        progress: &dyn Progress,
        step: impl FnMut() -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        self.run_while(RegistryError::is_transient, progress, step)
    }

    /// The same, with another idea of what is worth trying again.
    pub(super) fn run_while<T>(
        &self,
        again: impl Fn(&RegistryError) -> bool,
        progress: &dyn Progress,
        mut step: impl FnMut() -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut attempt = 1;
        loop {
            match step() {
                Err(error) if again(&error) && attempt < self.attempts => {
                    let pause = self.pause_after(attempt, error.retry_after());
                    progress.retry(&error, pause);
                    (self.pause)(pause);
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    fn pause_after(&self, attempt: u32, asked: Option<u64>) -> Duration {
        let backoff = self.first_pause.saturating_mul(1 << (attempt - 1).min(16));
        asked.map_or(backoff, |seconds| backoff.max(Duration::from_secs(seconds))).min(self.longest_pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_follow_retry_after_and_are_capped() {
        let retry = Retry::default();
        let pauses: Vec<_> = (1..=8).map(|attempt| retry.pause_after(attempt, None).as_millis()).collect();
        assert_eq!(pauses, [400, 800, 1600, 3200, 6400, 12800, 25600, 30000]);
        assert_eq!(retry.pause_after(1, Some(7)), Duration::from_secs(7));
        assert_eq!(retry.pause_after(4, Some(1)), Duration::from_millis(3200), "never sooner than the back-off");
        assert_eq!(retry.pause_after(1, Some(u64::MAX)), Duration::from_secs(30));
        assert_eq!(retry.pause_after(u32::MAX, None), Duration::from_secs(30));
    }
}
