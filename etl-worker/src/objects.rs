//! Object stores, S3 and folders alike, and what both ledger and lake build on: a log of numbered versions in which each
//! number can be written once.

use std::path::PathBuf;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig, UpdateVersion,
};
use url::Url;

use crate::env::Env;
use crate::error::{Code, Result, RunError};

/// How long a request to S3 is tried again.
const RETRY_SECONDS_MAX: u64 = 60;
/// How often one is tried again.
const RETRIES_MAX: usize = 6;

/// The codes by which S3 refuses credentials, as opposed to what they may do.
const UNKNOWN_KEY: [&str; 4] = ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"];

/// A folder of an object store, or of the file system.
#[derive(Clone)]
pub struct Folder {
    store: Arc<dyn ObjectStore>,
    root: Path,
    /// Where it is in the file system, if it is there.
    local: Option<PathBuf>,
    /// The URL, for messages.
    url: String,
    /// Where it is named in the manifest.
    field: String,
}

impl Folder {
    /// Opens the folder at a URL, `s3://bucket/prefix` or `file:///folder`. S3's settings and credentials come from the
    /// environment, as the AWS tools take them.
    pub fn open(url: &str, env: &Env, field: &str) -> Result<Self> {
        let invalid = |message: String| RunError::at(Code::ManifestInvalid, field, message);
        let parsed = Url::parse(url).map_err(|error| invalid(format!("{url} is no URL: {error}")))?;
        let mut local = None;
        let (store, root): (Arc<dyn ObjectStore>, Path) = match parsed.scheme() {
            "s3" => {
                let bucket = parsed
                    .host_str()
                    .ok_or_else(|| invalid(format!("{url} names no bucket; write s3://bucket/prefix")))?;
                (
                    Arc::new(s3(bucket, env).map_err(|error| {
                        RunError::at(Code::SecretInvalid, field, "the settings of S3 are wrong").caused_by(error)
                    })?),
                    Path::from_url_path(parsed.path()).map_err(|e| invalid(e.to_string()))?,
                )
            }
            "file" => {
                let folder = parsed
                    .to_file_path()
                    .map_err(|()| invalid(format!("{url} is no absolute folder; write file:///folder")))?;
                std::fs::create_dir_all(&folder).map_err(|error| {
                    RunError::at(Code::PermissionDenied, field, format!("can't make the folder {}", folder.display()))
                        .caused_by(error)
                })?;
                let store = LocalFileSystem::new_with_prefix(&folder)
                    .map_err(|error| invalid(format!("can't open {}: {error}", folder.display())))?
                    .with_automatic_cleanup(true);
                local = Some(folder);
                (Arc::new(store), Path::default())
            }
            other => {
                return Err(invalid(format!("{other}:// is not known; write s3://bucket/prefix or file:///folder")));
            }
        };
        Ok(Self { store, root, local, url: url.to_owned(), field: field.to_owned() })
    }

    /// The store.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// The full path of something in the folder, given its parts with slashes between.
    pub fn path(&self, relative: &str) -> Path {
        let full =
            if self.root.as_ref().is_empty() { relative.to_owned() } else { format!("{}/{relative}", self.root) };
        // Names of partitions are escaped already: `from` would escape them again.
        Path::parse(&full).unwrap_or_else(|_| Path::from(full))
    }

    /// The path in the folder of an object that was listed.
    pub fn relative(&self, path: &Path) -> String {
        path.prefix_match(&self.root).map_or_else(|| path.to_string(), |parts| Path::from_iter(parts).to_string())
    }

    /// The URL, for messages.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// An object's content, or None where there is none.
    pub async fn get(&self, relative: &str) -> Result<Option<Vec<u8>>> {
        match self.store.get(&self.path(relative)).await {
            Ok(found) => Ok(Some(found.bytes().await.map_err(|e| self.error(e))?.to_vec())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Writes an object, whatever was there.
    pub async fn put(&self, relative: &str, content: Vec<u8>) -> Result<()> {
        self.store.put(&self.path(relative), content.into()).await.map_err(|e| self.error(e))?;
        Ok(())
    }

    /// Writes an object if there is none; false if there is one.
    pub async fn put_new(&self, relative: &str, content: Vec<u8>) -> Result<bool> {
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&self.path(relative), content.into(), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Writes an object unless what is there makes it unnecessary. S3 promises that nobody writes in between; a file
    /// system has no such promise, and a moment between look and write.
    pub async fn put_unless(
        &self,
        relative: &str,
        content: Vec<u8>,
        unnecessary: impl Fn(&[u8]) -> bool,
    ) -> Result<()> {
        let path = self.path(relative);
        loop {
            let mode = match self.store.get(&path).await {
                Ok(found) => {
                    let version =
                        UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
                    if unnecessary(&found.bytes().await.map_err(|e| self.error(e))?) {
                        return Ok(());
                    }
                    PutMode::Update(version)
                }
                Err(object_store::Error::NotFound { .. }) => PutMode::Create,
                Err(error) => return Err(self.error(error)),
            };
            match self.store.put_opts(&path, content.clone().into(), PutOptions::from(mode)).await {
                Ok(_) => return Ok(()),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
                Err(object_store::Error::NotImplemented { .. }) => return self.put(relative, content).await,
                Err(error) => return Err(self.error(error)),
            }
        }
    }

    /// Removes an object; one that is not there is no error.
    pub async fn remove(&self, relative: &str) -> Result<()> {
        match self.store.delete(&self.path(relative)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error(error)),
        }
    }

    /// The objects below a folder, by their paths in this one.
    pub async fn list(&self, relative: &str) -> Result<Vec<String>> {
        let prefix = self.path(relative);
        let found: Vec<_> = self.store.list(Some(&prefix)).try_collect().await.map_err(|e| self.error(e))?;
        Ok(found.iter().map(|object| self.relative(&object.location)).collect())
    }

    /// Removes what killed writers left below a folder: files that were never finished. A file system keeps them under
    /// names with `#`, which [`list`](Self::list) leaves out. S3 keeps parts of uploads, which its lifecycle rules remove.
    pub async fn remove_unfinished(&self, relative: &str) -> Result<()> {
        let Some(local) = &self.local else { return Ok(()) };
        let mut folders = vec![local.join(relative)];
        let mut visited = Vec::new();
        while let Some(folder) = folders.pop() {
            let failed = |error: std::io::Error| {
                let message = format!("{}: what a killed run left can't be removed", folder.display());
                RunError::at(Code::PermissionDenied, &self.field, message).caused_by(error)
            };
            let mut entries = match tokio::fs::read_dir(&folder).await {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                entries => entries.map_err(failed)?,
            };
            while let Some(entry) = entries.next_entry().await.map_err(failed)? {
                let name = entry.file_name();
                let number = name.to_str().and_then(|name| name.rsplit_once('#')).map(|(_, number)| number);
                if entry.file_type().await.map_err(failed)?.is_dir() {
                    folders.push(entry.path());
                } else if number.is_some_and(|number| number.parse::<u32>().is_ok()) {
                    tokio::fs::remove_file(entry.path()).await.map_err(failed)?;
                }
            }
            visited.push(folder);
        }
        for folder in visited.iter().rev() {
            // Those that have files stay.
            let _ = tokio::fs::remove_dir(folder).await;
        }
        Ok(())
    }

    /// The names of the folders in this one.
    pub async fn folders(&self) -> Result<Vec<String>> {
        let prefix = (!self.root.as_ref().is_empty()).then_some(&self.root);
        let found = self.store.list_with_delimiter(prefix).await.map_err(|e| self.error(e))?;
        Ok(found.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
    }

    fn no_bucket(&self) -> RunError {
        let message = format!("{}: the bucket is not there; create it, or correct the name", self.url);
        RunError::at(Code::ManifestInvalid, &self.field, message)
    }

    /// An error of the store in our terms. The server's own words may hold parts of a signed request, so that only their
    /// kind is told.
    pub fn error(&self, error: object_store::Error) -> RunError {
        use object_store::Error as E;
        let url = &self.url;
        match error {
            // S3 answers 403 to a key that it does not know, too.
            E::PermissionDenied { path, source }
                if UNKNOWN_KEY.iter().any(|words| source.to_string().contains(words)) =>
            {
                self.error(E::Unauthenticated { path, source })
            }
            E::Unauthenticated { .. } => RunError::at(
                Code::LoginDenied,
                &self.field,
                format!(
                    "{url}: the credentials are refused; check the service account's role, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                ),
            ),
            E::PermissionDenied { .. } => RunError::at(
                Code::PermissionDenied,
                &self.field,
                format!(
                    "{url}: access is denied; allow s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket there"
                ),
            ),
            // What is looked for and may be absent is handled where it is looked for.
            E::NotFound { .. } => self.no_bucket(),
            E::Generic { source, .. } => {
                let words = source.to_string();
                let lower = words.to_lowercase();
                if lower.contains("accessdenied") || lower.contains("status 403") || lower.contains("403 forbidden") {
                    return self.error(E::PermissionDenied { path: String::new(), source });
                }
                if lower.contains("nosuchbucket") {
                    return self.no_bucket();
                }
                if lower.contains("no space left") {
                    return RunError::at(Code::DiskExceeded, &self.field, format!("{url}: the disk is full"));
                }
                RunError::at(Code::SinkUnreachable, &self.field, format!("{url} can't be reached or broke off"))
                    .caused_by(first_line(&words))
            }
            other => RunError::at(Code::SinkUnreachable, &self.field, format!("{url} can't be reached or broke off"))
                .caused_by(first_line(&other.to_string())),
        }
    }
}

/// The first line of an error's words, at most 200 characters: a body may follow, which may echo a signed request.
fn first_line(words: &str) -> String {
    words.lines().next().unwrap_or_default().split('<').next().unwrap_or_default().chars().take(200).collect()
}

fn s3(bucket: &str, env: &Env) -> object_store::Result<object_store::aws::AmazonS3> {
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket).with_retry(RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: RETRIES_MAX,
        retry_timeout: std::time::Duration::from_secs(RETRY_SECONDS_MAX),
    });
    if env.variable("AWS_REGION").or(env.variable("AWS_DEFAULT_REGION")).is_none() {
        builder = builder.with_region("us-east-1");
    }
    let mut options = ClientOptions::new();
    for (name, value) in env.variables().filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty()) {
        if name == "AWS_ALLOW_HTTP" {
            options = options.with_allow_http(value.eq_ignore_ascii_case("true"));
        } else if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    builder.with_client_options(options).build()
}

/// A log of numbered versions below a folder. Whoever writes a number first has it; the highest one counts. S3 promises
/// it by `If-None-Match: *`, a file system by hard links.
#[derive(Clone)]
pub struct VersionLog {
    folder: Folder,
    name: String,
    kept: u64,
}

impl VersionLog {
    /// The log `name` (a path in the folder), which keeps its last `kept` versions.
    pub fn new(folder: Folder, name: &str, kept: u64) -> Self {
        Self { folder, name: name.into(), kept }
    }

    fn path(&self, version: u64) -> String {
        format!("{}/{version:010}.json", self.name)
    }

    /// The newest version and its content; version 0 without content where there is none.
    pub async fn newest(&self) -> Result<(u64, Option<Vec<u8>>)> {
        loop {
            let newest = self.versions().await?.into_iter().max().unwrap_or(0);
            if newest == 0 {
                return Ok((0, None));
            }
            // It may have been removed since it was listed, as an old one.
            if let Some(content) = self.read(newest).await? {
                return Ok((newest, Some(content)));
            }
        }
    }

    /// Writes the version after `known`; false if somebody else did. Old versions are removed.
    pub async fn write(&self, known: u64, content: Vec<u8>) -> Result<bool> {
        let version = known + 1;
        if !self.folder.put_new(&self.path(version), content).await? {
            return Ok(false);
        }
        let versions = self.versions().await?;
        if versions.iter().any(|other| *other > version) {
            // Others wrote this number and later ones long ago, and this number was removed since.
            self.folder.remove(&self.path(version)).await?;
            return Ok(false);
        }
        for old in versions.into_iter().filter(|other| other + self.kept <= version) {
            self.folder.remove(&self.path(old)).await?;
        }
        Ok(true)
    }

    /// The versions that are there, in no order.
    pub async fn versions(&self) -> Result<Vec<u64>> {
        let found = self.folder.list(&self.name).await?;
        Ok(found.iter().filter_map(|path| path.rsplit('/').next()?.strip_suffix(".json")?.parse().ok()).collect())
    }

    /// The content of a version, if it is still there.
    pub async fn read(&self, version: u64) -> Result<Option<Vec<u8>>> {
        self.folder.get(&self.path(version)).await
    }
}
