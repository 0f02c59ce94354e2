//! What a store's refusal means for somebody who wanted a checkpoint.

use std::error::Error as _;
use std::path::Path;

use object_store::Error;

use crate::FabricError;
use crate::checkpoint_io::url::Url;

/// An answer of a server is a page of XML at times.
const LONGEST: usize = 400;

/// The error of `doing` something (such as "written") with the object at `path`.
pub(super) fn explain(path: &Path, url: &Url, doing: &str, error: &Error) -> FabricError {
    let (store, said) = (url.store(), said(error));
    let message = match error {
        Error::NotFound { .. } if said.contains("NoSuchBucket") || doing == "written" || doing == "listed" => {
            format!("{store} is not there ({said}); make the bucket, or choose another")
        }
        Error::NotFound { .. } => format!("it is not there ({said})"),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            format!("{store} refuses the credentials ({said}); check {}", credentials(&url.scheme))
        }
        Error::Precondition { .. } => "it was replaced while it was read; try again".to_owned(),
        _ => format!("it cannot be {doing}: {said}"),
    };
    FabricError::Checkpoint { path: path.into(), message }
}

/// Where credentials come from.
fn credentials(scheme: &str) -> &'static str {
    match scheme {
        "s3" | "s3a" => {
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_REGION, and that they may use the bucket"
        }
        "gs" => "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT, and that the account may use the bucket",
        "http" | "https" => "that the address may be read without a password",
        _ => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, and that the account may use the container",
    }
}

/// What the store said, in one line: the code and message of an XML answer; else the request and what became of it.
fn said(error: &Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    let mut all = causes.first().cloned().unwrap_or_else(|| error.to_string());
    if let Some(code) = element(&all, "Code") {
        return match element(&all, "Message") {
            Some(message) => format!("{code}: {message}"),
            None => code.to_owned(),
        };
    }
    // Such as what the network said.
    if let Some(last) = causes.last().filter(|last| !all.contains(*last)) {
        all = format!("{all}: {last}");
    }
    let line = all.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let rest = xml.split_once(&format!("<{name}>"))?.1;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}
