//! The key and the address: the variables of W&B's client, and `~/.netrc`, where `wandb login` puts the key.

use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::http::Address;

/// Where a server is, if no other one is named.
const DEFAULT_URL: &str = "https://api.wandb.ai";

/// The hosts of W&B's own server, whose keys are the same.
const OWN_HOSTS: [&str; 2] = ["api.wandb.ai", "api.forge.coreweave.com"];

/// The address of the server, without keys; the text of the variable if that is none.
pub(super) fn address(var: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let Some(given) = var("WANDB_BASE_URL") else { return Ok(DEFAULT_URL.into()) };
    Address::parse(&given).map(|address| address.url).ok_or(given)
}

/// The `Authorization` for the server at an address; `None` if there is no key.
pub(super) fn authorization(url: &str, var: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let key = var("WANDB_API_KEY").or_else(|| {
        let file = var("NETRC").map(PathBuf::from).or_else(|| Some(PathBuf::from(var("HOME")?).join(".netrc")))?;
        let host = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = host.split(['/', ':']).next().unwrap_or_default();
        let hosts: &[&str] = if OWN_HOSTS.contains(&host) { &OWN_HOSTS } else { &[host] };
        let text = fs::read_to_string(file).ok()?;
        std::iter::once(&host).chain(hosts).find_map(|host| password(&text, host))
    });
    let key = key?;
    Some(format!("Basic {}", STANDARD.encode(format!("api:{}", key.trim()))))
}

/// The password of a machine in a file like `~/.netrc`.
fn password(text: &str, host: &str) -> Option<String> {
    let mut words = text.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(str::split_whitespace);
    let mut is_host = false;
    while let Some(word) = words.next() {
        match word {
            "machine" => is_host = words.next() == Some(host),
            "default" => is_host = false,
            "password" => {
                let password = words.next()?;
                if is_host {
                    return Some(password.to_owned());
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_then_the_file_of_the_host() {
        let home = tempfile::tempdir().unwrap();
        let netrc = "# machine own.example password no\nmachine api.wandb.ai\n  login user\n  password k1\nmachine own.example login user password k2\ndefault password k3\n";
        fs::write(home.path().join(".netrc"), netrc).unwrap();
        let home = home.path().display().to_string();
        let given = |url: &str, key: Option<&str>| {
            let (home, key) = (home.clone(), key.map(str::to_owned));
            authorization(url, &move |name| match name {
                "HOME" => Some(home.clone()),
                "WANDB_API_KEY" => key.clone(),
                _ => None,
            })
        };
        let basic = |key: &str| Some(format!("Basic {}", STANDARD.encode(format!("api:{key}"))));
        assert_eq!(given("https://api.wandb.ai", Some("k0")), basic("k0"));
        assert_eq!(given("https://api.forge.coreweave.com", None), basic("k1"));
        assert_eq!(given("http://own.example:8080/x", None), basic("k2"));
        assert_eq!(given("http://other.example", None), None);
        assert_eq!(address(&|_| None).unwrap(), DEFAULT_URL);
        assert_eq!(address(&|_| Some("http://a:b@c/".into())).unwrap(), "http://c");
        assert!(address(&|_| Some("c".into())).is_err());
    }
}
