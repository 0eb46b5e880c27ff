//! What a signed-in browser carries: tokens and their times, sealed.

use std::fmt;

const VERSION: u8 = 1;

/// A session, as it is in the cookies.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// When the user signed in, in seconds since the Unix epoch.
    pub(crate) created: u64,
    /// When the token that requests carry expires.
    pub(crate) expires: u64,
    /// The token that requests carry.
    pub(crate) forwarded: String,
    /// The ID token where that is another one.
    pub(crate) id_token: Option<String>,
    pub(crate) refresh_token: Option<String>,
    /// The user, who must stay the same when tokens are refreshed.
    pub(crate) subject: String,
    /// The nonce of the sign-in, for the same reason.
    pub(crate) nonce: String,
}

// Tokens are never printed.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("created", &self.created)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// The ID token, as a hint at signing out.
    pub(crate) fn id_token_hint(&self) -> &str {
        self.id_token.as_deref().unwrap_or(&self.forwarded)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer(vec![VERSION]);
        writer.number(self.created);
        writer.number(self.expires);
        for text in [
            self.forwarded.as_str(),
            self.id_token.as_deref().unwrap_or_default(),
            self.refresh_token.as_deref().unwrap_or_default(),
            &self.subject,
            &self.nonce,
        ] {
            writer.text(text);
        }
        writer.0
    }

    /// Reads what [`encode`](Self::encode) of this version wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        if reader.byte()? != VERSION {
            return None;
        }
        let (created, expires) = (reader.number()?, reader.number()?);
        let mut text = || reader.text();
        let optional = |text: String| (!text.is_empty()).then_some(text);
        let session = Self {
            created,
            expires,
            forwarded: text()?,
            id_token: optional(text()?),
            refresh_token: optional(text()?),
            subject: text()?,
            nonce: text()?,
        };
        reader.0.is_empty().then_some(session)
    }
}

/// Writes numbers and texts so that each knows its end.
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn number(&mut self, number: u64) {
        self.0.extend(number.to_be_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend(text.as_bytes());
    }
}

/// Reads what a [`Writer`] wrote.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*number))
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Session;

    fn session() -> Session {
        Session {
            created: 1,
            expires: u64::MAX,
            forwarded: "a.b.c".to_owned(),
            id_token: None,
            refresh_token: Some("refresh".to_owned()),
            subject: "é".to_owned(),
            nonce: String::new(),
        }
    }

    #[test]
    fn a_session_is_read_as_it_was_written() {
        assert_eq!(Session::decode(&session().encode()), Some(session()));
    }

    #[test]
    fn anything_else_is_no_session() {
        let bytes = session().encode();
        for length in 0..bytes.len() {
            assert_eq!(Session::decode(&bytes[..length]), None, "{length}");
        }
        assert_eq!(Session::decode(&[bytes.as_slice(), b"x"].concat()), None);
        assert_eq!(Session::decode(&[&[2], &bytes[1..]].concat()), None);
        assert_eq!(Session::decode(&[1; 40]), None);
    }

    #[test]
    fn tokens_are_not_printed() {
        let text = format!("{:?}", session());
        assert!(!text.contains("a.b.c") && !text.contains("refresh\""), "{text}");
    }
}
