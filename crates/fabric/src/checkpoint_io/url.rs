//! [`Url`]: a path that is a URL rather than a local file.

use std::path::Path;

/// The parts of `scheme://authority/key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    /// In lower case.
    pub(super) scheme: String,
    /// The bucket, container or host.
    pub(super) authority: String,
    /// The rest, without leading and trailing slashes.
    pub(super) key: String,
}

/// The schemes that are recognized with a single slash too, since [`Path::components`] turns two into one.
const KNOWN: [&str; 11] = ["s3", "s3a", "gs", "az", "abfs", "abfss", "adl", "http", "https", "memory", "file"];

/// Whether `path` is a URL, such as `s3://bucket/run/last.ckpt`, rather than a local path. Functions of the local file system
/// such as [`Path::exists`] are meaningless for a URL.
///
/// ```
/// use std::path::Path;
///
/// use fulgurite_fabric::is_url;
///
/// assert!(is_url(Path::new("s3://bucket/run").join("last.ckpt").as_path()));
/// assert!(!is_url(Path::new("runs/last.ckpt")));
/// ```
pub fn is_url(path: &Path) -> bool {
    Url::of(path).is_some()
}

impl Url {
    pub(super) fn of(path: &Path) -> Option<Url> {
        let (scheme, rest) = path.to_str()?.split_once(":/")?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let is_scheme = scheme.len() > 1 && scheme.starts_with(|c: char| c.is_ascii_alphabetic());
        if !is_scheme || !scheme.chars().all(is_name) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let rest = match rest.strip_prefix('/') {
            Some(rest) => rest,
            None if scheme == "file" => return Some(Url::new(scheme, "", rest)),
            None if KNOWN.contains(&scheme.as_str()) => rest,
            None => return None,
        };
        let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
        Some(Url::new(scheme, authority, key))
    }

    fn new(scheme: String, authority: &str, key: &str) -> Url {
        let parts: Vec<&str> = key.split('/').filter(|part| !part.is_empty()).collect();
        Url { scheme, authority: authority.into(), key: parts.join("/") }
    }

    /// The part that all objects of one store share.
    #[cfg(any(feature = "object-store", test))]
    pub(super) fn store(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> Option<(String, String)> {
        Url::of(Path::new(path)).map(|url| (url.store(), url.key))
    }

    #[test]
    fn urls_are_distinguished_from_paths() {
        let cases = [
            ("s3://bucket/run/last.ckpt", Some(("s3://bucket", "run/last.ckpt"))),
            ("s3://bucket/run//epoch=0-step=1.ckpt/", Some(("s3://bucket", "run/epoch=0-step=1.ckpt"))),
            ("S3:/bucket/a b#1%20.ckpt", Some(("s3://bucket", "a b#1%20.ckpt"))),
            ("gs://bucket", Some(("gs://bucket", ""))),
            ("file:///tmp/x.ckpt", Some(("file://", "tmp/x.ckpt"))),
            ("file:/tmp/x.ckpt", Some(("file://", "tmp/x.ckpt"))),
            ("ftp://host/x", Some(("ftp://host", "x"))),
            ("https://host:80/x?key=1", Some(("https://host:80", "x?key=1"))),
            ("runs/last.ckpt", None),
            ("/s3/last.ckpt", None),
            ("C:/runs/last.ckpt", None),
            ("C://runs", None),
            ("odd:/folder", None),
            ("a b://folder", None),
        ];
        for (path, expected) in cases {
            let expected = expected.map(|(store, key)| (store.to_owned(), key.to_owned()));
            assert_eq!(parts(path), expected, "{path}");
        }
    }

    #[test]
    fn a_url_survives_path_operations() {
        let url = Path::new("s3://bucket/run").join("sub").join("last.ckpt");
        let expected = Some(("s3://bucket".to_owned(), "run/sub/last.ckpt".to_owned()));
        assert_eq!(parts(url.to_str().unwrap()), expected);
        let collapsed: std::path::PathBuf = url.components().collect();
        assert_eq!(parts(collapsed.to_str().unwrap()), expected);
        assert_eq!(parts(url.parent().unwrap().to_str().unwrap()).unwrap().1, "run/sub");
    }
}
