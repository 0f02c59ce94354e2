//! Converts the hyper-parameters of a file to a user's struct.

use fulgurite_torch::{Dict, Value};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

type Overrides<'a> = &'a [(String, Value)];

/// The hyper-parameters under `key`, with changes applied.
pub(super) fn merged(contents: &Dict, key: &str, overrides: Overrides<'_>) -> Dict {
    let mut hparams = contents.dict(key).cloned().unwrap_or_default();
    for (name, value) in overrides {
        set(&mut hparams, name, value);
    }
    hparams
}

/// Sets `name`, or the entry at a path such as `optimizer.lr`.
fn set(hparams: &mut Dict, name: &str, value: &Value) {
    if hparams.get(name).is_none()
        && let Some((first, rest)) = name.split_once('.')
        && let Some(Value::Dict(inner)) = hparams.get_mut(first)
    {
        return set(inner, rest, value);
    }
    hparams.set(name, value.clone());
}

/// Hyper-parameters for a configuration of the command line, without those that it does not take.
pub(super) fn parse_config<C: DeserializeOwned + JsonSchema>(
    mut hparams: Dict,
    overrides: Overrides<'_>,
) -> Result<C, String> {
    let schema = schemars::schema_for!(C).to_value();
    if schema.get("additionalProperties") == Some(&Json::Bool(false))
        && let Some(fields) = schema.get("properties").and_then(Json::as_object)
    {
        let is_known = |name: &str| fields.contains_key(name) || overrides.iter().any(|(other, _)| other == name);
        hparams = hparams.into_iter().filter(|(name, _)| name.as_str().is_some_and(is_known)).collect();
    }
    parse(&hparams, overrides)
}

/// Hyper-parameters as a struct.
pub(super) fn parse<H: DeserializeOwned>(hparams: &Dict, overrides: Overrides<'_>) -> Result<H, String> {
    let mut json = serde_json::Map::new();
    for (name, value) in hparams.iter() {
        let Some(name) = name.as_str() else { continue };
        let value = value.to_json();
        json.insert(
            name.to_owned(),
            value.ok_or_else(|| {
                format!("its hyper-parameter `{name}` contains a tensor or bytes, which an option cannot be")
            })?,
        );
    }
    let mut ignored = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| ignored.push(path.to_string());
    let json = Json::Object(json);
    let parsed = serde_path_to_error::deserialize(serde_ignored::Deserializer::new(&json, &mut note));
    let parsed = parsed.map_err(|error| match error.path().to_string().as_str() {
        "." => format!("its hyper-parameters do not fit: {}", error.inner()),
        path => format!("its hyper-parameter `{path}` does not fit: {}", error.inner()),
    })?;
    match overrides.iter().find(|(name, _)| ignored.contains(name)) {
        Some((name, _)) => Err(format!("the hyper-parameter `{name}` was set, but does not exist; check its spelling")),
        None => Ok(parsed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Hparams {
        lr: f64,
        layers: Vec<i64>,
        norm: Option<Norm>,
        #[serde(default)]
        optimizer: Inner,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Norm {
        LayerNorm,
    }

    #[derive(Debug, Default, PartialEq, serde::Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Inner {
        momentum: f64,
    }

    fn file() -> Dict {
        let optimizer = Dict::new().with("momentum", 0.5);
        let hparams = Dict::new()
            .with("lr", 1)
            .with("layers", Value::Tuple(vec![64.into(), 10.into()]))
            .with("norm", "layer_norm")
            .with("optimizer", optimizer)
            .with("extra", "Lightning drops what a module does not take");
        Dict::new().with("hyper_parameters", hparams)
    }

    fn parsed(overrides: &[(String, Value)]) -> Result<Hparams, String> {
        parse(&merged(&file(), "hyper_parameters", overrides), overrides)
    }

    #[test]
    fn overrides_come_before_what_the_file_says() {
        let hparams = parsed(&[("lr".into(), 3e-4.into()), ("optimizer.momentum".into(), 0.9.into())]).unwrap();
        let optimizer = Inner { momentum: 0.9 };
        assert_eq!(hparams, Hparams { lr: 3e-4, layers: vec![64, 10], norm: Some(Norm::LayerNorm), optimizer });
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let wrong = |name: &str, value: Value| parsed(&[(name.into(), value)]).unwrap_err();
        assert_eq!(
            wrong("lr", "fast".into()),
            "its hyper-parameter `lr` does not fit: invalid type: string \"fast\", expected f64"
        );
        assert_eq!(wrong("lrr", 1.into()), "the hyper-parameter `lrr` was set, but does not exist; check its spelling");
        assert_eq!(
            wrong("optimizer.nesterov", true.into()),
            "its hyper-parameter `optimizer.nesterov` does not fit: unknown field `nesterov`, expected `momentum`"
        );
        assert_eq!(
            parse::<Hparams>(&Dict::new(), &[]).unwrap_err(),
            "its hyper-parameters do not fit: missing field `lr`"
        );
    }

    #[test]
    fn a_configuration_takes_what_it_knows() {
        let hparams = Dict::new().with("momentum", 0.9).with("dropped", 1);
        assert_eq!(parse_config::<Inner>(hparams.clone(), &[]), Ok(Inner { momentum: 0.9 }));
        let typo = parse_config::<Inner>(hparams.with("momentun", 1), &[("momentun".into(), 1.into())]);
        assert!(typo.unwrap_err().contains("unknown field `momentun`, expected `momentum`"));
    }
}
