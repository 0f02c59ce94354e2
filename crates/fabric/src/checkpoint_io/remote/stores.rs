//! Opens the store of a URL, configured by environment variables.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ClientConfigKey, Error, ObjectStore, RetryConfig};

use crate::checkpoint_io::url::Url;

/// A store, and the path of an object in it.
pub(super) type Located = (Arc<dyn ObjectStore>, Path);

/// The timeouts of connections and requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    pub(super) connect: Duration,
    pub(super) request: Duration,
}

/// Opens the store of `url`. `config` has precedence over the environment.
pub(super) fn open(
    url: &Url,
    timeouts: Timeouts,
    retry: &RetryConfig,
    config: &[(String, String)],
) -> Result<Arc<dyn ObjectStore>, Error> {
    if url.scheme == "memory" {
        return Ok(memory(&url.authority));
    }
    // Has no effect if the process has installed another provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = client(url, timeouts);
    let retry = retry.clone();
    Ok(match url.scheme.as_str() {
        "s3" | "s3a" => {
            let builder = AmazonS3Builder::from_env().with_url(url.store()).with_retry(retry);
            let settings = settings(client, config, AmazonS3ConfigKey::Client);
            let builder = settings.fold(builder, |builder, (key, value)| builder.with_config(key, value));
            let endpoints = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
            let is_plain = |key| builder.get_config_value(key).is_some_and(|url| url.starts_with("http://"));
            // An endpoint given as `http://` is used without TLS.
            let is_plain = endpoints.iter().any(is_plain);
            Arc::new(if is_plain { builder.with_allow_http(true) } else { builder }.build()?)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(url.store()).with_retry(retry);
            let settings = settings(client, config, GoogleConfigKey::Client);
            Arc::new(settings.fold(builder, |builder, (key, value)| builder.with_config(key, value)).build()?)
        }
        "az" | "abfs" | "abfss" | "adl" => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(url.store()).with_retry(retry);
            let settings = settings(client, config, AzureConfigKey::Client);
            Arc::new(settings.fold(builder, |builder, (key, value)| builder.with_config(key, value)).build()?)
        }
        _ => {
            let query = url.key.find('?').map_or("", |at| &url.key[at..]);
            let builder = HttpBuilder::new().with_url(format!("{}/{query}", url.store())).with_retry(retry);
            let settings = settings(client, config, |key| key);
            Arc::new(settings.fold(builder, |builder, (key, value)| builder.with_config(key, value)).build()?)
        }
    })
}

/// The path of the object at `url` in its store.
pub(super) fn name(url: &Url) -> Result<Path, Error> {
    Ok(match url.scheme.as_str() {
        // A web address is percent-encoded, and its query is not part of the path.
        "http" | "https" => Path::from_url_path(url.key.split('?').next().unwrap_or_default())?,
        _ => Path::parse(&url.key)?,
    })
}

/// The settings of the connection, then those of `config` that this kind of store supports.
fn settings<K: FromStr>(
    client: Vec<(ClientConfigKey, String)>,
    config: &[(String, String)],
    of_client: impl Fn(ClientConfigKey) -> K,
) -> impl Iterator<Item = (K, String)> {
    let client = client.into_iter().map(move |(key, value)| (of_client(key), value));
    client.chain(config.iter().filter_map(|(key, value)| Some((key.parse().ok()?, value.clone()))))
}

fn client(url: &Url, timeouts: Timeouts) -> Vec<(ClientConfigKey, String)> {
    let milliseconds = |time: Duration| format!("{} ms", time.as_millis());
    let mut settings = vec![
        (ClientConfigKey::ConnectTimeout, milliseconds(timeouts.connect)),
        (ClientConfigKey::ReadTimeout, milliseconds(timeouts.request)),
    ];
    if url.scheme == "http" {
        settings.push((ClientConfigKey::AllowHttp, "true".into()));
    }
    // A web server sends the whole file in one response, which has no time limit as long as data arrives.
    let whole = ["http", "https"].contains(&url.scheme.as_str());
    let timeout = if whole { "365 days".to_owned() } else { milliseconds(timeouts.request) };
    settings.push((ClientConfigKey::Timeout, timeout));
    settings
}

/// The in-memory store of that name in this process.
fn memory(name: &str) -> Arc<dyn ObjectStore> {
    static STORES: Mutex<Option<HashMap<String, Arc<InMemory>>>> = Mutex::new(None);
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let store = stores.get_or_insert_default().entry(name.to_owned()).or_default();
    Arc::<InMemory>::clone(store)
}
