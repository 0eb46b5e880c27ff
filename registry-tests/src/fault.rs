//! What may go wrong, as data.

use crate::route::Operation;

/// One thing that goes wrong.
#[derive(Debug, Clone)]
pub struct Fault {
    /// With which operation; `None` is any.
    pub on: Option<Operation>,
    /// How many requests pass before it starts.
    pub after: usize,
    /// How often it happens; `None` is always.
    pub times: Option<usize>,
    /// What happens.
    pub does: Does,
}

/// What happens instead of the right answer, or to it.
#[derive(Debug, Clone)]
pub enum Does {
    /// Answer with this status and the specification's error body.
    Status(u16),
    /// Answer with this status and header.
    StatusWith(u16, &'static str, String),
    /// Answer with this status and body.
    StatusBody(u16, String),
    /// Change the body's last byte.
    WrongContent,
    /// Send the right length and break off after so many bytes.
    Truncate(usize),
    /// Send the right length, and after so many bytes nothing more, on a connection that stays open.
    StallAfter(usize),
    /// End the body after so many bytes, as if that were all.
    Short(usize),
    /// Add so many bytes to the body.
    Oversize(usize),
    /// Give another `Docker-Content-Digest`.
    LyingDigest,
    /// Redirect there (307).
    Redirect(String),
    /// 500, with everything that the client showed in the message.
    Echo,
    /// Give this header, or this value of it.
    Header(&'static str, String),
    /// Give another `Content-Type`.
    ContentType(&'static str),
    /// Send the body byte by byte with so many milliseconds in between, for ever so long.
    Drip(u64),
    /// Take so many bytes of the request's body, keep them, and close the connection.
    BreakUpload(usize),
    /// Forget the upload, and go on as if it had never been begun.
    ForgetUpload,
    /// Never answer.
    Stall,
    /// Close the connection without an answer.
    Hangup,
}

impl Fault {
    /// It happens each time.
    pub fn always(on: Operation, does: Does) -> Self {
        Self { on: Some(on), after: 0, times: None, does }
    }

    /// It happens so many times, and then all is well.
    pub fn times(times: usize, on: Operation, does: Does) -> Self {
        Self { on: Some(on), after: 0, times: Some(times), does }
    }

    /// Whatever is asked for.
    pub fn everywhere(does: Does) -> Self {
        Self { on: None, after: 0, times: None, does }
    }

    /// Take this request, if the fault fits it and is not used up.
    pub(crate) fn strikes(&mut self, operation: Operation) -> bool {
        if self.on.is_some_and(|on| on != operation) {
            return false;
        }
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        match &mut self.times {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}
