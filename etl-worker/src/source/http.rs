//! Source `http`: one URL, streamed into the scratch folder.
//!
//! Gives the bytes as they were served; nothing is decompressed on the way. Memory: one write buffer.
//! Retries: what may pass by itself (no connection, silence, a body that breaks off, 408, 425, 429, 5xx), from the
//! body's first byte each time; `Retry-After` is honoured. Redirects are followed here and not by the client, since it
//! would send secret headers of any name along to another host.
//! Errors: `login_denied`, `input_missing`, `input_too_large`, `secret_invalid`, `disk_exceeded`, and
//! `source_unreachable` after the last attempt. No message holds a query, a user's name in a URL, or a header's value.

use std::cell::Cell;
use std::fmt;
use std::io::{Error as IoError, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use report_api::checked::CheckedSource;
use report_api::connection::SecretKey;
use report_api::source::HttpSource;
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, COOKIE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
};
use reqwest::{Client, Response, StatusCode};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::time::{Instant, timeout};
use url::{Origin, Url};

use super::{RawInput, hexadecimal};
use crate::env::Env;
use crate::error::{Code, Result, RunError};

/// Attempts in all. With the pauses below that is up to a minute of waiting, which covers a restart of a web server;
/// longer outages are for the Job's own retries.
const ATTEMPTS_MAX: usize = 5;
/// The pause after the first attempt; each one after that is twice as long, and up to as much again at random.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest pause of our own choosing.
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// The longest pause that a server may ask for by `Retry-After`; one that asks for more gets less.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// How long connecting may take, DNS and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Redirects in a row. File hosts use one or two; more is a loop.
const REDIRECTS_MAX: usize = 5;
/// What is collected before a write: chunks from the network are some kilobytes only.
const BUFFER_BYTES: usize = 256 << 10;

/// The one HTTP client: rustls, no redirects by itself, no decompression.
pub fn client() -> Result<Client> {
    Client::builder()
        .use_rustls_tls()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("report-operator/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| RunError::new(Code::Internal, "can't set up the HTTP client").caused_by(error))
}

/// Fetches the URL.
pub(super) async fn fetch(http: &HttpSource, source: &CheckedSource, env: &Env) -> Result<RawInput> {
    let pauses = ExponentialBuilder::new()
        .with_min_delay(PAUSE_FIRST)
        .with_factor(2.0)
        .with_max_delay(PAUSE_MAX)
        .with_max_times(ATTEMPTS_MAX - 1)
        .with_jitter();
    fetch_with(http, source, env, pauses).await
}

/// The same with other pauses, so that tests need not wait.
pub(super) async fn fetch_with(
    http: &HttpSource,
    source: &CheckedSource,
    env: &Env,
    pauses: ExponentialBuilder,
) -> Result<RawInput> {
    let fetch = Fetch::new(http, source, env)?;
    let started = Instant::now();
    let attempts = Cell::new(0);
    let attempt = || {
        attempts.set(attempts.get() + 1);
        fetch.attempt()
    };
    attempt
        .retry(pauses)
        .sleep(tokio::time::sleep)
        .when(|failure| matches!(failure, Failure::Passing { .. }))
        .adjust(|failure, pause| pause.map(|pause| failure.retry_after().unwrap_or(pause)))
        .notify(|failure, pause| {
            let text =
                format!("{failure}; attempt {} of {ATTEMPTS_MAX} in {:.1} s", attempts.get() + 1, pause.as_secs_f32());
            env.progress.step("extract", &format!("source {}", source.name), &text);
        })
        .await
        .map_err(|failure| match failure {
            Failure::Final(error) => *error,
            Failure::Passing { what, cause, .. } => {
                let (attempts, seconds) = (attempts.get(), started.elapsed().as_secs());
                let message = format!("{} failed after {attempts} attempts in {seconds} s: {what}", fetch.shown);
                RunError { source: cause, ..RunError::at(Code::SourceUnreachable, fetch.field("url"), message) }
            }
        })
}

/// How an attempt ended without the file.
enum Failure {
    /// Another attempt would end the same way.
    Final(Box<RunError>),
    /// Another attempt may go well.
    Passing { what: String, cause: Option<Box<dyn std::error::Error + Send + Sync>>, retry_after: Option<Duration> },
}

impl Failure {
    fn passing(what: impl Into<String>) -> Self {
        Self::Passing { what: what.into(), cause: None, retry_after: None }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Final(_) => None,
            Self::Passing { retry_after, .. } => *retry_after,
        }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Self::Final(Box::new(error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Final(error) => write!(f, "{error}"),
            Self::Passing { what, .. } => f.write_str(what),
        }
    }
}

/// One source to fetch, with everything looked up.
struct Fetch<'a> {
    env: &'a Env,
    source: &'a CheckedSource,
    url: Url,
    /// The URL without what may be secret.
    shown: String,
    /// Sent along every redirect.
    headers: HeaderMap,
    /// Sent to the URL's own origin only.
    secret_headers: HeaderMap,
    silence_max: Duration,
    bytes_max: u64,
    path: PathBuf,
}

impl<'a> Fetch<'a> {
    fn new(http: &HttpSource, source: &'a CheckedSource, env: &'a Env) -> Result<Self> {
        let url = Url::parse(&http.url).map_err(|error| {
            RunError::at(Code::ManifestInvalid, format!("{}.http.url", source.field), "is not a URL").caused_by(error)
        })?;
        let (headers, secret_headers) = headers(http, source, env)?;
        Ok(Self {
            env,
            source,
            shown: shown(&url),
            url,
            headers,
            secret_headers,
            silence_max: Duration::from_secs(http.timeout_seconds()),
            bytes_max: http.bytes_max(),
            path: env.scratch().join(format!("source-{}", source.name)),
        })
    }

    /// One attempt: the answer's head, then its body into the file, which starts anew.
    async fn attempt(&self) -> Result<RawInput, Failure> {
        let response = self.answer().await?;
        let length = length(&response);
        self.check_size(length.unwrap_or(0))?;
        let (bytes, sha256) = self.save(response).await?;
        match length {
            Some(length) if bytes != length => {
                Err(Failure::passing(format!("the body broke off after {bytes} of {length} bytes")))
            }
            _ => Ok(RawInput { path: self.path.clone(), bytes, sha256: Some(sha256) }),
        }
    }

    /// The first answer that is no redirect, if it is a good one.
    async fn answer(&self) -> Result<Response, Failure> {
        let mut url = self.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let response = self.send(url.clone()).await?;
            let Some(next) = redirect(&response, &url) else {
                return self.judge(response);
            };
            url = next;
        }
        Err(self.missing(format!("{} redirects more than {REDIRECTS_MAX} times; name the last address", self.shown)))
    }

    async fn send(&self, url: Url) -> Result<Response, Failure> {
        let mut request = self.env.http.get(url.clone()).headers(self.headers.clone());
        if same_origin(&url.origin(), &self.url.origin()) {
            request = request.headers(self.secret_headers.clone());
        }
        match timeout(CONNECT_TIMEOUT + self.silence_max, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(broken(&format!("can't reach {}", host(&url)), error)),
            Err(_) => Err(self.silent()),
        }
    }

    /// What the status says.
    fn judge(&self, response: Response) -> Result<Response, Failure> {
        let (status, shown) = (response.status(), &self.shown);
        if status.is_success() {
            return Ok(response);
        }
        Err(match status {
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                self.passing_status(&response)
            }
            status if status.is_server_error() => self.passing_status(&response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RunError::at(
                Code::LoginDenied,
                self.field("headers"),
                format!("{shown} answers {status}; check the headers and the Secrets that they come from"),
            )
            .into(),
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                self.missing(format!("{shown} answers {status}; correct the address, or publish the file there"))
            }
            _ => self.missing(format!("{shown} answers {status}; check the address and the headers")),
        })
    }

    /// Writes the body to the file; gives its size and digest.
    async fn save(&self, mut response: Response) -> Result<(u64, String), Failure> {
        let file = tokio::fs::File::create(&self.path).await.map_err(|error| self.unwritable(error))?;
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let mut hash = Sha256::new();
        let mut bytes = 0;
        loop {
            let chunk = match timeout(self.silence_max, response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => break,
                Ok(Err(error)) => return Err(broken(&format!("the body broke off after {bytes} bytes"), error)),
                Err(_) => return Err(self.silent()),
            };
            bytes += chunk.len() as u64;
            self.check_size(bytes)?;
            hash.update(&chunk);
            file.write_all(&chunk).await.map_err(|error| self.unwritable(error))?;
        }
        file.flush().await.map_err(|error| self.unwritable(error))?;
        Ok((bytes, hexadecimal(&hash.finalize())))
    }

    /// A status that may be another one next time. `Retry-After` is a number of seconds or a date (RFC 9110, 10.2.3).
    fn passing_status(&self, response: &Response) -> Failure {
        let wanted = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(|text| {
            let date =
                || jiff::fmt::rfc2822::parse(text).ok()?.timestamp().duration_since(self.env.now()).try_into().ok();
            text.trim().parse().ok().map(Duration::from_secs).or_else(date)
        });
        Failure::Passing {
            what: format!("{} answers {}", host(response.url()), response.status()),
            cause: None,
            retry_after: wanted.map(|pause: Duration| pause.min(RETRY_AFTER_MAX)),
        }
    }

    fn check_size(&self, bytes: u64) -> Result<()> {
        if bytes > self.bytes_max {
            return Err(RunError::at(
                Code::InputTooLarge,
                self.field("maxSize"),
                format!("{} has more than {} bytes; raise maxSize if that is right", self.shown, self.bytes_max),
            ));
        }
        if bytes > self.env.scratch_bytes {
            return Err(self.full());
        }
        Ok(())
    }

    fn full(&self) -> RunError {
        let message = format!(
            "{} does not fit into the scratch folder of {} bytes; raise spec.worker.scratch",
            self.shown, self.env.scratch_bytes
        );
        RunError::at(Code::DiskExceeded, &self.source.field, message)
    }

    fn unwritable(&self, error: IoError) -> RunError {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => self.full(),
            _ => RunError::at(Code::DiskExceeded, &self.source.field, "can't write to the scratch folder"),
        }
        .caused_by(error)
    }

    fn silent(&self) -> Failure {
        Failure::passing(format!("{} was silent for {} s", host(&self.url), self.silence_max.as_secs()))
    }

    fn missing(&self, message: String) -> Failure {
        RunError::at(Code::InputMissing, self.field("url"), message).into()
    }

    fn field(&self, name: &str) -> String {
        format!("{}.http.{name}", self.source.field)
    }
}

/// The headers to send: those for every host, and those for the URL's own origin.
fn headers(http: &HttpSource, source: &CheckedSource, env: &Env) -> Result<(HeaderMap, HeaderMap)> {
    let (mut plain, mut secret) = (HeaderMap::new(), HeaderMap::new());
    for (index, header) in http.headers.iter().enumerate() {
        let field = |part: &str| format!("{}.http.headers[{index}].{part}", source.field);
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| {
            RunError::at(Code::ManifestInvalid, field("name"), format!("{:?} is not a header's name", header.name))
        })?;
        // The error of from_str is not kept: it is about the value.
        if let Some(from) = &header.value_from {
            let key = SecretKey::from(&from.secret_key_ref);
            let mut value = HeaderValue::from_str(env.secret(&key, &field("valueFrom"))?).map_err(|_| {
                let text = format!(
                    "the key {} of the Secret {} can't be a header: it holds a line break or another control character",
                    key.key, key.name
                );
                RunError::at(Code::SecretInvalid, field("valueFrom"), text)
            })?;
            value.set_sensitive(true);
            secret.insert(name, value);
        } else {
            let value = HeaderValue::from_str(header.value.as_deref().unwrap_or_default()).map_err(|_| {
                RunError::at(Code::ManifestInvalid, field("value"), "holds a line break or another control character")
            })?;
            let private = name == AUTHORIZATION || name == COOKIE;
            if private { &mut secret } else { &mut plain }.insert(name, value);
        }
    }
    Ok((plain, secret))
}

fn redirect(response: &Response, url: &Url) -> Option<Url> {
    if !response.status().is_redirection() {
        return None;
    }
    let next = url.join(response.headers().get(LOCATION)?.to_str().ok()?).ok()?;
    matches!(next.scheme(), "http" | "https").then_some(next)
}

/// Opaque origins are equal to themselves only; those of http and https are tuples.
fn same_origin(one: &Origin, other: &Origin) -> bool {
    one == other
}

fn length(response: &Response) -> Option<u64> {
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A connection that failed. The error's own text would name the URL, query included.
fn broken(what: &str, error: reqwest::Error) -> Failure {
    Failure::Passing { what: what.into(), cause: Some(Box::new(error.without_url())), retry_after: None }
}

/// The URL without user, password, query and fragment, any of which may be secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // These fail for URLs without a host only, which hold neither.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or("the host");
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
