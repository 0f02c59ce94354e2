//! Texts are kept as they are written, and an empty one is never taken for something else.

use std::collections::BTreeMap;
use std::process::ExitCode;

use expect_test::expect;
use fulgurite::Console;
use fulgurite::cli::{Cli, FromConfig};
use fulgurite::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cli::program::{Folder, Points, answer, program, refused};

/// Options of every kind that can hold a text.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Texts {
    name: String,
    tag: Option<String>,
    folder: Option<std::path::PathBuf>,
    tags: Vec<String>,
    pair: (String, f64),
    by_name: BTreeMap<String, String>,
    parts: Vec<Part>,
    either: IntOrText,
    choice: Choice,
    lr: f64,
    on: bool,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
struct Part {
    name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum IntOrText {
    Int(i64),
    Text(String),
}

impl Default for IntOrText {
    fn default() -> IntOrText {
        IntOrText::Int(0)
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Choice {
    #[default]
    Auto,
    Yes,
    Off,
}

/// A model that is never made: its error is its configuration.
struct Never;

impl FromConfig for Never {
    type Config = Texts;

    fn from_config(config: Texts) -> Result<Never> {
        Err(serde_json::to_string(&config)?.into())
    }
}

impl LightningModule for Never {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        unreachable!("it is never made")
    }

    fn training_step(&mut self, _: Self::Batch, _: &mut Step) -> Result<Loss> {
        unreachable!("it is never made")
    }
}

fn never() -> Cli<Never, Points> {
    Cli::new("never").env::<String>([])
}

fn run(cli: Cli<Never, Points>, args: &[&str]) -> (String, ExitCode) {
    let console = Console::memory();
    let quiet = ["--trainer.logger=false", "--trainer.enable_checkpointing=false"];
    let code = cli.args(args.iter().chain(&quiet).copied()).console(console.clone()).run();
    (console.contents(), code)
}

/// The configuration that the model is made of.
#[track_caller]
fn made(args: &[&str]) -> Texts {
    let (text, _) = run(never(), &[&["fit"], args].concat());
    let json = text.lines().find_map(|line| line.strip_prefix("error: "));
    // What the console escapes, JSON writes otherwise.
    let json = json.map(|json| {
        ["7f", "85", "2028", "202e"]
            .iter()
            .fold(json.to_owned(), |json, code| json.replace(&format!("\\u{{{code}}}"), &format!("\\u{code:0>4}")))
    });
    let made = json.and_then(|json| serde_json::from_str(&json).ok());
    assert!(made.is_some(), "{args:?}: {text}");
    made.unwrap()
}

fn made_of_file(yaml: &str) -> Texts {
    let folder = Folder::with(&[("a.yaml", yaml)]);
    made(&["--config", &folder.path().join("a.yaml").display().to_string()])
}

/// What readers of YAML take for numbers, flags, dates and the like.
const WRITTEN: [&str; 28] = [
    "1.10",
    "0012",
    "123E4",
    "0x1F",
    "2024_01",
    "2024-01-05",
    "2024-01-05T10:00:00Z",
    "12:30:00",
    "yes",
    "on",
    "No",
    "OFF",
    "y",
    "true",
    "True",
    ".5",
    "5.",
    "1e5",
    "0b11",
    "0b1_1",
    "0o17",
    "+1",
    "-0",
    "1_000",
    "12345678901234567890123",
    ".inf",
    "-.Inf",
    ".nan",
];

#[test]
fn texts_in_files_are_kept_as_written() {
    for written in WRITTEN {
        let text = || written.to_owned();
        let expected = Texts {
            name: text(),
            tag: Some(text()),
            folder: Some(written.into()),
            tags: vec![text(), text(), text()],
            pair: (text(), 0.5),
            by_name: BTreeMap::from([("1.10".into(), text()), ("b".into(), text())]),
            parts: vec![Part { name: text() }],
            ..Texts::default()
        };
        let block = format!(
            "# ü\nmodel:\n  name: {written}   # why\n  tag: &again {written}\n  folder: {written}\n  tags:\n    - {written}\n    \
             - '{written}'\n    - *again\n  pair: [{written}, 0.5]\n  by_name: {{1.10: {written}, b: \"{written}\"}}\n  \
             parts:\n  - name: {written}\n"
        );
        assert_eq!(made_of_file(&block), expected, "{block}");
        let breaks = block.replace('\n', "\r\n");
        assert_eq!(made_of_file(&breaks), expected, "{written} with line ends of Windows");
        let tagged = format!("model:\n  name: !!str {written}\n  tag: !!str {written}\n");
        assert_eq!((made_of_file(&tagged).name, made_of_file(&tagged).tag), (text(), Some(text())));

        let args = [
            format!("--model.name={written}"),
            format!("--model.tag={written}"),
            format!("--model.folder={written}"),
            format!("--model.tags=[{written}, '{written}']"),
            format!("--model.tags+={written}"),
            format!("--model.pair=[{written}, 0.5]"),
            format!("--model.by_name={{1.10: {written}, b: '{written}'}}"),
            format!("--model.parts=[{{name: {written}}}]"),
        ];
        assert_eq!(made(&args.each_ref().map(String::as_str)), expected, "{args:?}");
    }
}

#[test]
fn null_is_null_unless_it_is_quoted() {
    for null in ["~", "null", "Null", ""] {
        let made = made_of_file(&format!("model:\n  tag: {null}\n  name: {null}\n"));
        assert_eq!((made.tag, made.name), (None, String::new()), "{null}");
    }
    let quoted = made_of_file("model:\n  tag: '~'\n  name: \"null\"\n");
    assert_eq!((quoted.tag.as_deref(), quoted.name.as_str()), (Some("~"), "null"));
}

#[test]
fn numbers_and_flags_stay_what_they_are_beside_texts() {
    let either = |written: &str| made_of_file(&format!("model:\n  either: {written}\n")).either;
    assert_eq!(either("12"), IntOrText::Int(12));
    assert_eq!(either("0x1F"), IntOrText::Int(31));
    for text in ["1.10", "yes", "0012", "2024-01-05"] {
        assert_eq!(either(text), IntOrText::Text(text.into()));
    }
    let made = made_of_file("model:\n  choice: off\n  lr: 1_000\n  on: yes\n");
    assert_eq!((made.choice, made.lr, made.on), (Choice::Off, 1000.0, true));
    assert_eq!(made_of_file("model: {choice: yes}\n").choice, Choice::Yes);
}

#[test]
fn what_is_written_back_says_the_same() {
    let strange = [
        "~",
        "null",
        "a: b",
        "#",
        "a\tb\n",
        "\u{7f}\u{85}\u{a0}\u{2028}\u{202e}\u{feff}",
        "é😀",
        "'\"\\",
        " a ",
        "-",
        "<<",
    ];
    for written in WRITTEN.into_iter().chain(strange) {
        let quoted = serde_json::to_string(written).unwrap().replace('\u{7f}', "\\u007f");
        let folder =
            Folder::with(&[("a.yaml", &format!("model: {{tags: [{quoted}], by_name: {{{quoted}: {quoted}}}}}\n"))]);
        let print = |file: &str| {
            let file = folder.path().join(file).display().to_string();
            run(never(), &["fit", "--config", &file, "--print_config"]).0
        };
        let printed = print("a.yaml");
        std::fs::write(folder.path().join("b.yaml"), &printed).unwrap();
        assert_eq!(print("b.yaml"), printed);
        let made = made(&["--config", &folder.path().join("b.yaml").display().to_string()]);
        assert_eq!((made.tags[0].as_str(), made.by_name[written].as_str()), (written, written), "{printed}");
    }
}

#[test]
fn texts_of_the_trainer_and_of_classes() {
    let folder = Folder::with(&[(
        "a.yaml",
        "trainer:\n  default_root_dir: 2024_01\n  precision: 32\n  logger:\n    class_path: CSVLogger\n    init_args:\n      \
         name: 1.10\n      version: 0012\noptimizer: SGD\nlr_scheduler:\n  class_path: StepLR\n  name: 0x1F\n  monitor: 123E4\n  \
         init_args:\n    step_size: 1\nckpt_path: 1e3\n",
    )]);
    let printed = folder.printed("fit --config @a.yaml --print_config=skip_default");
    expect![[r#"
        trainer:
          default_root_dir: "2024_01"
          precision: "32"
          logger:
          - class_path: CsvLogger
            init_args:
              name: "1.10"
              version: "0012"
        optimizer:
          class_path: SGD
          init_args: {}
        lr_scheduler:
          class_path: StepLR
          name: "0x1F"
          monitor: "123E4"
          init_args:
            step_size: 1
        ckpt_path: "1e3"
    "#]]
    .assert_eq(&printed);
    let args = "fit --optimizer SGD --lr_scheduler StepLR --lr_scheduler.step_size 1 --lr_scheduler.name 1.10 \
                --print_config=skip_default";
    assert!(folder.printed(args).contains("name: \"1.10\""));
}

#[test]
fn an_empty_text_is_no_number_flag_or_choice() {
    let said = [
        ("--trainer.max_epochs=", "`trainer.max_epochs` takes int|null, not an empty text"),
        ("--trainer.max_epochs= ", "`trainer.max_epochs` takes int|null, not an empty text"),
        ("--trainer.max_epochs=#3", "`trainer.max_epochs` takes int|null, not the text `#3`"),
        ("--trainer.detect_anomaly=", "`trainer.detect_anomaly` takes bool, not an empty text"),
        ("--trainer.gradient_clip_val=", "`trainer.gradient_clip_val` takes float|null, not an empty text"),
        ("--trainer.gradient_clip_algorithm=", "`trainer.gradient_clip_algorithm` takes norm|value, not an empty text"),
        ("--trainer.limit_train_batches=", "`trainer.limit_train_batches` takes int|float, not an empty text"),
        ("--model.activation=", "`model.activation` takes relu|tanh, not an empty text"),
        ("--model.init.bound=", "`model.init.bound` takes float, not an empty text"),
        ("--model.init=", "`model.init` takes options by name, not an empty text"),
        ("--model.sizes=", "`model.sizes` takes list of int, not an empty text"),
        ("--model.sizes+=", "`model.sizes.0` takes int, not an empty text"),
        ("--seed_everything=", "`seed_everything` takes bool|int, not an empty text"),
    ];
    for (arg, message) in said {
        let name = arg.split(['=', '+']).next().unwrap();
        assert_eq!(refused(&["fit", arg, "--print_config"]), format!("error: {name}: {message}\n"));
        let option = name.trim_start_matches("--").replace('.', "__").to_uppercase();
        let Some((_, value)) = arg.split_once('=').filter(|_| !arg.contains('+')) else { continue };
        let variable = format!("PL_FIT__{option}");
        let (text, code) = answer(program().env([(variable.as_str(), value)]), &["fit", "--print_config"]);
        assert_eq!((text, code), (format!("error: environment variable {variable}: {message}\n"), ExitCode::from(2)));
    }
    let text = refused(&["fit", "--trainer.max_epochs", "", "--print_config"]);
    assert!(text.contains("takes int|null, not an empty text"), "{text}");
}

#[test]
fn an_empty_text_is_no_name() {
    let missing = [
        "--optimizer=",
        "--lr_scheduler=",
        "--trainer.callbacks+=",
        "--trainer.logger=",
        "--trainer.strategy=",
        "--trainer.profiler=",
    ];
    for arg in missing {
        let name = arg.trim_end_matches(['+', '=']);
        assert_eq!(refused(&["fit", arg]), format!("error: {name} needs the name of a class\n"));
    }
    let folder = Folder::with(&[]);
    let root = format!("--trainer.default_root_dir={}", folder.path().display());
    for (name, message) in [
        ("devices", "`trainer.devices` cannot be an empty text: devices=\"\" is not a device list"),
        ("accelerator", "unknown accelerator ``; choose"),
        ("precision", "unknown precision ``; choose"),
    ] {
        let (text, code) = answer(program(), &["fit", &root, &format!("--trainer.{name}=")]);
        assert!(code != ExitCode::SUCCESS && text.contains(message), "{name}: {text}");
    }
    assert_eq!(
        refused(&["fit", "--trainer.default_root_dir="]),
        "error: default_root_dir is empty; write a folder, such as `.`, or leave it out\n"
    );
    for args in [&["--config=", "fit"][..], &["fit", "--config="], &["fit", "--config", ""]] {
        assert_eq!(refused(args), "error: --config needs the name of a file\n");
    }
    assert_eq!(refused(&["fit", "--model="]), "error: --model needs the name of a file with the options of `model`\n");
    let (text, _) = answer(program().env([("PL_CONFIG", "")]), &["fit"]);
    assert_eq!(text, "error: environment variable PL_CONFIG is empty; write the name of a file, or unset it\n");
    for arg in ["--ckpt_path=", "--resume="] {
        let (text, code) = answer(program(), &["fit", arg, &root]);
        assert_ne!(code, ExitCode::SUCCESS, "{text}");
    }
}
