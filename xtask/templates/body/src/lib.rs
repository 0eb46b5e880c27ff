//! Limits how long requests are, and replaces words in the text of responses.

mod config;

use plugwright_sdk::{Answer, AsyncPlugin, ConfigError, Host, LocalResponse, Request, Response};

pub use self::config::Config;

/// Reads bodies.
#[derive(Debug)]
pub struct PluginName {
    config: Config,
}

impl AsyncPlugin for PluginName {
    type Config = Config;

    fn configure(config: Config, _: &mut impl Host) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self { config })
    }

    async fn on_request(&self, mut request: Request) -> Answer {
        // What is compressed cannot be read here.
        request.remove_header("accept-encoding")?;
        let response = if request.is_end() {
            request.forward().await
        } else {
            let mut body = request.into_body();
            if body.whole().await?.len() > self.config.max_request_bytes {
                return Err(LocalResponse::new(413).details("request_too_large"));
            }
            body.forward().await
        };
        if response.is_end() || !is_text(&response) { Ok(()) } else { self.replace(response).await }
    }
}

impl PluginName {
    async fn replace(&self, mut response: Response) -> Answer {
        // Both are about the text as it was, and have to go before it.
        response.remove_header("content-length")?;
        response.remove_header("etag")?;
        let mut body = response.into_body();
        let text = body.whole().await?;
        if let Ok(text) = String::from_utf8(text)
            && let Some(replaced) = self.config.replaced(&text)
        {
            body.replace(replaced.as_bytes())?;
        }
        Ok(())
    }
}

fn is_text(response: &Response) -> bool {
    let kind = response.header("content-type").unwrap_or_default().to_ascii_lowercase();
    response.header("content-encoding").is_none() && (kind.starts_with("text/") || kind.starts_with("application/json"))
}

plugwright_sdk::register!(async PluginName);
