//! Error messages for the errors of a store.

use std::error::Error as _;
use std::path::Path;

use object_store::Error;

use crate::FabricError;
use crate::checkpoint_io::url::Url;

/// The maximum length of the message of a server, which can be a page of XML.
const MAX_LENGTH: usize = 400;

/// The error of `doing` something (such as "written") with the object at `path`.
pub(super) fn explain(path: &Path, url: &Url, doing: &str, error: &Error) -> FabricError {
    let (store, response) = (url.store(), response(error));
    let message = match error {
        Error::NotFound { .. } if response.contains("NoSuchBucket") || doing == "written" || doing == "listed" => {
            format!("{store} does not exist ({response}); create the bucket, or choose another")
        }
        Error::NotFound { .. } => format!("it does not exist ({response})"),
        _ if is_denied(error, &response) => {
            format!("{store} rejected the credentials ({response}); check {}", credentials(&url.scheme))
        }
        Error::Precondition { .. } => "it was replaced while it was being read; try again".to_owned(),
        _ => format!("it cannot be {doing}: {response}"),
    };
    FabricError::Checkpoint { path: path.into(), message }
}

/// Whether the store denied access. A failed listing reports that in its code only.
fn is_denied(error: &Error, response: &str) -> bool {
    let codes = ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"];
    matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. })
        || codes.iter().any(|code| response.starts_with(code))
}

/// The variables and permissions to check.
fn credentials(scheme: &str) -> &'static str {
    match scheme {
        "s3" | "s3a" => {
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_REGION, and that they have access to the bucket"
        }
        "gs" => {
            "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT, and that the account has access to the bucket"
        }
        "http" | "https" => "that the address is readable without authentication",
        _ => {
            "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, and that the account has access to the container"
        }
    }
}

/// The error of the store in one line: the code and message of an XML response, else the request and its outcome.
fn response(error: &Error) -> String {
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
    // Such as the error of the network.
    if let Some(last) = causes.last().filter(|last| !all.contains(*last)) {
        all = format!("{all}: {last}");
    }
    let line = all.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_LENGTH) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let rest = xml.split_once(&format!("<{name}>"))?.1;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}
