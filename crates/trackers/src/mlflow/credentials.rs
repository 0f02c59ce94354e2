//! Who asks: the variables and the file of MLflow's client.

use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What to set, for errors.
pub(super) const VARIABLES: &str = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN";

/// The `Authorization` of requests: of the address, the variables, or `~/.mlflow/credentials`, in this order.
pub(super) fn authorization(of_address: Option<&str>, var: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    if let Some(user) = of_address {
        return Some(basic(user));
    }
    if let (Some(name), Some(password)) = (var("MLFLOW_TRACKING_USERNAME"), var("MLFLOW_TRACKING_PASSWORD")) {
        return Some(basic(&format!("{name}:{password}")));
    }
    if let Some(token) = var("MLFLOW_TRACKING_TOKEN") {
        return Some(format!("Bearer {token}"));
    }
    let file = PathBuf::from(var("HOME")?).join(".mlflow").join("credentials");
    let text = fs::read_to_string(file).ok()?;
    let of_key = |key: &str| -> Option<String> {
        let mut section = "";
        text.lines().map(str::trim).find_map(|line| {
            if line.starts_with('[') {
                section = line;
            }
            let (name, value) = line.split_once('=')?;
            (section == "[mlflow]" && name.trim() == key).then(|| value.trim().to_owned())
        })
    };
    Some(basic(&format!("{}:{}", of_key("mlflow_tracking_username")?, of_key("mlflow_tracking_password")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_wins_then_the_variables_then_the_file() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".mlflow")).unwrap();
        let ini = "[other]\nmlflow_tracking_username = x\n[mlflow]\nmlflow_tracking_username = ann\nmlflow_tracking_password=p=w\n";
        fs::write(home.path().join(".mlflow/credentials"), ini).unwrap();
        let home = home.path().display().to_string();
        let given = |set: &[(&str, &str)], address: Option<&str>| {
            let all: Vec<(String, String)> = set
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .chain([("HOME".into(), home.clone())])
                .collect();
            authorization(address, &move |name| all.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()))
        };
        let (name, password) = (("MLFLOW_TRACKING_USERNAME", "bob"), ("MLFLOW_TRACKING_PASSWORD", "s"));
        let token = ("MLFLOW_TRACKING_TOKEN", "t");
        assert_eq!(given(&[name, password, token], Some("a:b")).unwrap(), "Basic YTpi");
        assert_eq!(given(&[name, password, token], None).unwrap(), "Basic Ym9iOnM=");
        assert_eq!(given(&[name, token], None).unwrap(), "Bearer t");
        assert_eq!(given(&[], None).unwrap(), format!("Basic {}", STANDARD.encode("ann:p=w")));
    }
}
