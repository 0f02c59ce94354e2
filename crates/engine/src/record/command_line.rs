//! The command line, without the keys and passwords in it.

use super::bounded::at_most;

const ARGUMENT: usize = 1 << 10;
const ARGUMENTS: usize = 200;
const HIDDEN: &str = "***";

/// What follows one of these words is not for others to read.
const SECRET: [&str; 9] =
    ["key", "apikey", "token", "secret", "password", "passwd", "pwd", "credentials", "authorization"];

/// The arguments with `***` for the values of those whose names say that they are secret, and for passwords in addresses.
pub(super) fn without_keys(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut is_named = false;
    let hide = |arg: String| {
        if std::mem::take(&mut is_named) && !arg.starts_with("--") {
            return HIDDEN.to_owned();
        }
        is_named = arg.starts_with('-') && !arg.contains(['=', ' ']) && is_secret(&arg);
        at_most(ARGUMENT, &without_login(&without_values(&arg))).into_owned()
    };
    args.take(ARGUMENTS).map(hide).collect()
}

/// Whether a dotted name has a secret's word in it: `api_key`, not `num_tokens` and `monkey`.
fn is_secret(name: &str) -> bool {
    name.split(|c: char| !c.is_alphanumeric()).any(|word| SECRET.contains(&word.to_ascii_lowercase().as_str()))
}

/// Hides what follows the first `secret=` or `secret:` in an argument: `--a.token=x`, `{api_key: x}`.
fn without_values(arg: &str) -> String {
    let is_end = |at: usize| {
        let name = arg[..at].trim_end_matches(['"', '\'', ' ']);
        let begin = name.rfind(|c: char| !c.is_alphanumeric() && !"_-.".contains(c)).map_or(0, |before| before + 1);
        name.is_char_boundary(begin) && is_secret(&name[begin..]) && !arg[at..].starts_with("://")
    };
    let end = arg.char_indices().find(|(at, c)| matches!(c, '=' | ':') && is_end(*at));
    end.map_or_else(|| arg.to_owned(), |(at, _)| format!("{}{HIDDEN}", &arg[..=at]))
}

fn without_login(arg: &str) -> String {
    let mut shown = String::new();
    let mut rest = arg;
    while let Some((before, after)) = rest.split_once("://") {
        let host = &after[..after.find(['/', ' ', '"', '\'']).unwrap_or(after.len())];
        let login = host.rfind('@').map_or("", |at| &host[..at]);
        shown += before;
        shown += "://";
        shown += if login.is_empty() { "" } else { HIDDEN };
        rest = &after[login.len()..];
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::without_keys;

    #[test]
    fn no_key_is_written() {
        let shown = |args: &[&str]| without_keys(args.iter().map(|arg| (*arg).to_owned())).join(" ");
        assert_eq!(shown(&["fit", "--model.num_tokens=512", "--x", "key"]), "fit --model.num_tokens=512 --x key");
        assert_eq!(shown(&["--trainer.logger.api_key=abc"]), "--trainer.logger.api_key=***");
        assert_eq!(shown(&["--a.token", "abc", "--b", "c"]), "--a.token *** --b c");
        assert_eq!(shown(&["--a.token", "--b", "c"]), "--a.token --b c");
        assert_eq!(
            shown(&["--logger={class_path: Comet, init_args: {\"API_KEY\" : \"abc\", x: 1}}"]),
            "--logger={class_path: Comet, init_args: {\"API_KEY\" :***"
        );
        assert_eq!(shown(&["--uri=https://ann:p@ss@host:1/a@b"]), "--uri=https://***@host:1/a@b");
        assert_eq!(shown(&["DB_PASSWORD=x"]), "DB_PASSWORD=***");
        assert_eq!(shown(&["größe=1", "é: token", "s3://token/x"]), "größe=1 é: token s3://token/x");
    }
}
