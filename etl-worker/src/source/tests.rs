//! Sources against real files and a real server on this machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use backon::ExponentialBuilder;
use report_api::checked::{BadRows, CheckedSource, FormatKind, SourceKind};
use report_api::column::ContractMode;
use report_api::connection::{SecretKeyRef, ValueFrom};
use report_api::format::Compression;
use report_api::source::http::Header;
use report_api::source::{FileSource, HttpSource};
use report_api::units::{Size, Span};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::http::fetch_with;
use super::{RawInput, fetch};
use crate::env::Env;
use crate::error::{Code, Result};
use crate::events::Progress;

/// SHA-256 of `abc` (FIPS 180-2, appendix B.1).
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[tokio::test]
async fn http_gives_the_bytes_as_served_with_their_digest() {
    let test = Test::new(Router::new().route("/", get(async || "abc"))).await;
    let input = test.fetch("/").await.unwrap();
    assert_eq!((input.bytes, input.sha256.as_deref()), (3, Some(ABC)));
    assert_eq!(std::fs::read(&input.path).unwrap(), b"abc");
    assert!(input.path.starts_with(test.env.scratch()));
}

#[tokio::test]
async fn http_sends_headers_and_looks_secrets_up() {
    let seen = Arc::new(Mutex::new(HeaderMap::new()));
    let keep = Arc::clone(&seen);
    let mut test =
        Test::new(Router::new().route("/", get(async move |headers: HeaderMap| *keep.lock().unwrap() = headers))).await;
    test.fetch("/").await.unwrap();
    assert_eq!(seen.lock().unwrap()["user-agent"], concat!("report-operator/", env!("CARGO_PKG_VERSION")));
    assert!(!seen.lock().unwrap().contains_key("accept-encoding"));
    test.http.headers = vec![plain("Accept", "text/csv"), secret("User-Agent", "bls", "email")];
    test.fetch("/").await.unwrap();
    assert_eq!(seen.lock().unwrap()["accept"], "text/csv");
    assert_eq!(seen.lock().unwrap()["user-agent"], "me@example.com");
}

#[tokio::test]
async fn http_names_a_secret_that_is_not_there_and_shows_none_that_is_bad() {
    let mut test = Test::new(Router::new()).await;
    for (key, want) in [
        ("gone", "spec.sources[2].http.headers[0].valueFrom: the key gone of the Secret bls has no value here"),
        ("bad", "spec.sources[2].http.headers[0].valueFrom: the key bad of the Secret bls can't be a header"),
    ] {
        test.http.headers = vec![secret("Authorization", "bls", key)];
        let error = test.fetch("/").await.unwrap_err();
        assert_eq!(error.code, Code::SecretInvalid);
        assert!(error.to_string().starts_with(want), "{error}");
        assert!(!error.to_string().contains("hush"), "{error}");
    }
}

#[tokio::test]
async fn http_tries_again_what_may_pass() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let answer = async move || match count.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => StatusCode::from_u16(status).unwrap().into_response(),
            _ => "abc".into_response(),
        };
        let test = Test::new(Router::new().route("/", get(answer))).await;
        assert_eq!(test.fetch("/").await.unwrap().sha256.unwrap(), ABC, "{status}");
        assert_eq!(calls.load(Ordering::Relaxed), 3, "{status}");
        let steps = test.steps.lock().unwrap();
        assert!(steps[0].contains(&format!("answers {status}")) && steps[0].contains("attempt 2 of 5"), "{steps:?}");
        assert!(steps[0].starts_with("extract source given: 127.0.0.1:"), "{steps:?}");
    }
}

#[tokio::test]
async fn http_gives_up_after_five_attempts() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let answer = async move || {
        count.fetch_add(1, Ordering::Relaxed);
        StatusCode::SERVICE_UNAVAILABLE
    };
    let test = Test::new(Router::new().route("/file.csv", get(answer))).await;
    let error = test.fetch("/file.csv?token=hush").await.unwrap_err();
    assert_eq!((error.code, calls.load(Ordering::Relaxed)), (Code::SourceUnreachable, 5));
    let want = format!(
        "spec.sources[2].http.url: {}/file.csv failed after 5 attempts in 0 s: {} answers 503 Service Unavailable",
        test.origin,
        test.origin.trim_start_matches("http://")
    );
    assert_eq!(error.to_string(), want);
}

#[tokio::test]
async fn http_waits_as_long_as_retry_after_says() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let answer = async move || match count.fetch_add(1, Ordering::Relaxed) {
        0 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response(),
        _ => "abc".into_response(),
    };
    let test = Test::new(Router::new().route("/", get(answer))).await;
    let started = Instant::now();
    test.fetch("/").await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn http_tells_final_answers_apart() {
    for (status, code, want) in [
        (401, Code::LoginDenied, "spec.sources[2].http.headers: ORIGIN/x answers 401 Unauthorized; check the headers"),
        (403, Code::LoginDenied, "spec.sources[2].http.headers: ORIGIN/x answers 403 Forbidden; check the headers"),
        (404, Code::InputMissing, "spec.sources[2].http.url: ORIGIN/x answers 404 Not Found; correct the address"),
        (410, Code::InputMissing, "spec.sources[2].http.url: ORIGIN/x answers 410 Gone; correct the address"),
        (400, Code::InputMissing, "spec.sources[2].http.url: ORIGIN/x answers 400 Bad Request; check the address"),
        (304, Code::InputMissing, "spec.sources[2].http.url: ORIGIN/x answers 304 Not Modified; check the address"),
    ] {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let answer = async move || {
            count.fetch_add(1, Ordering::Relaxed);
            StatusCode::from_u16(status).unwrap()
        };
        let test = Test::new(Router::new().route("/x", get(answer))).await;
        let error = test.fetch("/x?key=hush").await.unwrap_err();
        assert_eq!((error.code, calls.load(Ordering::Relaxed)), (code, 1), "{error}");
        assert!(error.to_string().starts_with(&want.replace("ORIGIN", &test.origin)), "{error}");
        assert!(!error.to_string().contains("hush"), "{error}");
    }
}

#[tokio::test]
async fn http_stops_at_the_size_that_is_allowed() {
    let chunks = async || {
        let chunks = (0..64).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 1024]));
        axum::body::Body::from_stream(futures::stream::iter(chunks))
    };
    let known = async || vec![b'x'; 64 << 10];
    let mut test = Test::new(Router::new().route("/chunks", get(chunks)).route("/known", get(known))).await;
    for path in ["/chunks", "/known"] {
        test.http.max_size = Some(Size("64Ki".into()));
        assert_eq!(test.fetch(path).await.unwrap().bytes, 64 << 10, "{path}");
        test.http.max_size = Some(Size("63Ki".into()));
        let error = test.fetch(path).await.unwrap_err();
        assert_eq!(error.code, Code::InputTooLarge, "{error}");
        assert_eq!(error.field.as_deref(), Some("spec.sources[2].http.maxSize"));
    }
}

#[tokio::test]
async fn http_stops_before_the_scratch_folder_is_full() {
    let mut test = Test::new(Router::new().route("/", get(async || vec![b'x'; 1025]))).await;
    test.env.scratch_bytes = 1024;
    assert_eq!(test.fetch("/").await.unwrap_err().code, Code::DiskExceeded);
}

#[tokio::test]
async fn http_fetches_a_body_that_broke_off_again_from_its_start() {
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nxx";
    let cut_chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nxx\r\n";
    let whole = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc";
    let test = Test::at(raw_server(vec![cut, cut_chunk, "", whole]).await);
    let input = test.fetch("/").await.unwrap();
    assert_eq!((input.bytes, input.sha256.as_deref()), (3, Some(ABC)));
    assert_eq!(std::fs::read(&input.path).unwrap(), b"abc");
    let steps = test.steps.lock().unwrap();
    assert!(steps.len() == 3 && steps[0].contains("the body broke off after 2 bytes"), "{steps:?}");
}

#[tokio::test]
async fn http_gives_up_on_bodies_that_always_break_off() {
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nxx";
    let test = Test::at(raw_server(vec![cut; 5]).await);
    let error = test.fetch("/?key=hush").await.unwrap_err();
    assert_eq!(error.code, Code::SourceUnreachable);
    assert!(error.to_string().contains("failed after 5 attempts in 0 s: the body broke off after 2 bytes"), "{error}");
    assert!(!error.to_string().contains("hush"), "{error}");
}

#[tokio::test]
async fn http_gives_up_on_silence() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let body = async move || {
        // The first answer starts and then says nothing more.
        let rest = match count.fetch_add(1, Ordering::Relaxed) {
            0 => futures::future::Either::Left(futures::future::pending()),
            _ => futures::future::Either::Right(futures::future::ready(Ok::<_, std::io::Error>("bc"))),
        };
        let start = futures::stream::once(futures::future::ready(Ok("a")));
        axum::body::Body::from_stream(futures::StreamExt::chain(start, futures::stream::once(rest)))
    };
    let mut test = Test::new(Router::new().route("/", get(body))).await;
    test.http.timeout = Some(Span("1s".into()));
    assert_eq!(test.fetch("/").await.unwrap().sha256.unwrap(), ABC);
    assert!(test.steps.lock().unwrap()[0].contains("was silent for 1 s"), "{:?}", test.steps);
}

#[tokio::test]
async fn http_names_a_host_that_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = Test::at(origin.clone()).fetch("/?key=hush").await.unwrap_err();
    assert_eq!(error.code, Code::SourceUnreachable);
    let host = origin.trim_start_matches("http://");
    let want = format!("spec.sources[2].http.url: {origin}/ failed after 5 attempts in 0 s: can't reach {host}: ");
    assert!(error.to_string().starts_with(&want), "{error}");
    assert!(error.to_string().contains("refused") && !error.to_string().contains("hush"), "{error}");
}

#[tokio::test]
async fn http_follows_five_redirects() {
    let hop = async |uri: Uri| {
        let left: u32 = uri.path()[1..].parse().unwrap();
        if left == 0 { "abc".into_response() } else { Redirect::temporary(&format!("/{}", left - 1)).into_response() }
    };
    let test = Test::new(Router::new().route("/{left}", get(hop))).await;
    assert_eq!(test.fetch("/5").await.unwrap().sha256.unwrap(), ABC);
    let error = test.fetch("/6").await.unwrap_err();
    assert_eq!(error.code, Code::InputMissing);
    assert!(error.to_string().contains("redirects more than 5 times"), "{error}");
}

#[tokio::test]
async fn http_keeps_secrets_from_another_host_that_it_is_sent_to() {
    let seen = Arc::new(Mutex::new(HeaderMap::new()));
    let keep = Arc::clone(&seen);
    let other = Test::new(Router::new().fallback(async move |request: Request| {
        keep.lock().unwrap().clone_from(request.headers());
        "abc"
    }))
    .await;
    let target = format!("{}/there", other.origin);
    let mut test = Test::new(Router::new().route("/", get(async move || Redirect::temporary(&target)))).await;
    test.http.headers =
        vec![secret("X-Api-Key", "bls", "email"), plain("Authorization", "Bearer x"), plain("X-Plain", "y")];
    test.fetch("/").await.unwrap();
    let seen = seen.lock().unwrap();
    assert!(!seen.contains_key("x-api-key") && !seen.contains_key("authorization"), "{seen:?}");
    assert_eq!(seen["x-plain"], "y");
}

#[tokio::test]
async fn file_is_used_in_place() {
    let test = Test::at(String::new());
    std::fs::write(test.files.path().join("abc.csv"), "abc").unwrap();
    let want = RawInput { path: test.files.path().join("abc.csv"), bytes: 3, sha256: None };
    let found = test.file("abc.csv").await.unwrap();
    assert_eq!(found, want);
    assert_eq!(found.digest(&Arc::new(AtomicBool::new(true))).await.unwrap(), ABC);
    // Nobody waits for a digest that nobody wants.
    assert!(found.digest(&Arc::new(AtomicBool::new(false))).await.is_err());
    let absolute = want.path.to_str().unwrap();
    assert_eq!(test.file(absolute).await.unwrap(), want);
}

#[tokio::test]
async fn file_errors_name_the_path() {
    let test = Test::at(String::new());
    std::fs::create_dir(test.files.path().join("folder")).unwrap();
    let files = test.files.path().display();
    for (path, want) in [
        (
            "gone.csv",
            format!("spec.sources[2].file.path: there is no file gone.csv (a relative path starts at {files})"),
        ),
        ("/no/such/file", "spec.sources[2].file.path: there is no file /no/such/file".to_owned()),
        (
            "folder",
            format!(
                "spec.sources[2].file.path: folder is not a file (a relative path starts at {files}); name one file"
            ),
        ),
    ] {
        let error = test.file(path).await.unwrap_err();
        assert_eq!((error.code, error.to_string()), (Code::InputMissing, want));
    }
}

#[test]
fn file_that_may_not_be_read_is_a_missing_right() {
    // A test that runs as root could read any file.
    let given = source(SourceKind::File(FileSource { path: "closed.csv".into() }));
    let error =
        super::file::explain(std::io::ErrorKind::PermissionDenied.into(), "closed.csv", &given, Path::new("files"));
    assert_eq!(error.code, Code::PermissionDenied);
    let want = "spec.sources[2].file.path: closed.csv may not be read (a relative path starts at files); give";
    assert!(error.to_string().starts_with(want), "{error}");
}

/// A source and where it is fetched to.
struct Test {
    env: Env,
    http: HttpSource,
    origin: String,
    files: TempDir,
    steps: Arc<Mutex<Vec<String>>>,
}

impl Test {
    /// A server with these routes, and a source on it.
    async fn new(routes: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self::at(origin)
    }

    fn at(origin: String) -> Self {
        let files = TempDir::new().unwrap();
        let steps = Steps::default();
        let variables = [("SECRET_BLS_EMAIL", "me@example.com"), ("SECRET_BLS_BAD", "hush\nhush")];
        let variables: BTreeMap<_, _> = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let scratch = files.path().join("scratch");
        let kept = Arc::clone(&steps.0);
        let env = Env::new(variables, files.path().to_owned(), &scratch, 1 << 30, 1 << 30, Arc::new(steps)).unwrap();
        let http = HttpSource { url: String::new(), headers: vec![], timeout: None, max_size: None };
        Self { env, http, origin, files, steps: kept }
    }

    /// Fetches a path of the server, without long pauses.
    async fn fetch(&self, path: &str) -> Result<RawInput> {
        let http = HttpSource { url: format!("{}{path}", self.origin), ..self.http.clone() };
        let pauses = ExponentialBuilder::new().with_min_delay(Duration::from_millis(1)).with_max_times(4);
        fetch_with(&http, &source(SourceKind::Http(http.clone())), &self.env, pauses).await
    }

    async fn file(&self, path: &str) -> Result<RawInput> {
        fetch(&source(SourceKind::File(FileSource { path: path.into() })), &self.env).await
    }
}

fn source(kind: SourceKind) -> CheckedSource {
    CheckedSource {
        field: "spec.sources[2]".into(),
        name: "given".into(),
        kind,
        format: FormatKind::NdJson,
        compression: Compression::Auto,
        columns: vec![],
        contract: ContractMode::Freeze,
        bad_rows: BadRows::Fail,
        record_bytes_max: 32 << 20,
        masks: vec![],
        incremental: None,
    }
}

fn plain(name: &str, value: &str) -> Header {
    Header { name: name.into(), value: Some(value.into()), value_from: None }
}

fn secret(header: &str, name: &str, key: &str) -> Header {
    let secret_key_ref = SecretKeyRef { name: name.into(), key: key.into() };
    Header { name: header.into(), value: None, value_from: Some(ValueFrom { secret_key_ref }) }
}

#[derive(Clone, Default)]
struct Steps(Arc<Mutex<Vec<String>>>);

impl Progress for Steps {
    fn step(&self, stage: &'static str, what: &str, text: &str) {
        self.0.lock().unwrap().push(format!("{stage} {what}: {text}"));
    }
}

/// Answers each connection with the next of some texts and closes it.
async fn raw_server(answers: Vec<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    origin
}
