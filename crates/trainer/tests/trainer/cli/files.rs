//! Configuration files of every kind: pipes, files without an end, and files that ask for more than they are.

#![cfg(unix)]

use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use expect_test::expect;

use crate::cli::program::{Folder, answer, printed, program, refused};

/// A pipe that a shell makes of `<(echo TEXT)`, and its path.
fn pipe(text: &str) -> (std::io::PipeReader, String) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(text.as_bytes()).unwrap();
    let path = format!("/dev/fd/{}", reader.as_raw_fd());
    (reader, path)
}

#[test]
fn a_pipe_is_a_configuration() {
    let (_model, model) = pipe("model:\n  hidden: 3\n");
    let (_trainer, trainer) = pipe("max_epochs: 2\n");
    let args = format!("fit --config {model} --trainer {trainer} --config {model} --print_config=skip_default");
    expect![[r#"
        trainer:
          max_epochs: 2
        model:
          hidden: 3
    "#]]
    .assert_eq(&printed(&args));
    // It has been read.
    assert_eq!(
        refused(&["fit", "--config", &model]),
        format!(
            "error: the configuration file {model} cannot be read: nothing came out of it; has another process read it \
             already?\n"
        )
    );
}

#[test]
fn a_pipe_includes_files_of_the_current_folder() {
    let folder = Folder::with(&[("a.yaml", "model:\n  hidden: 3\n")]);
    let (_pipe, path) = pipe(&format!("include: {}/a.yaml\nmodel:\n  name: piped\n", folder.path().display()));
    let text = printed(&format!("fit --config {path} --print_config=skip_default"));
    assert!(text.contains("hidden: 3") && text.contains("name: piped"), "{text}");
}

/// Where the hyper-parameters of a checkpoint come between, everything is read twice.
#[test]
fn a_pipe_is_read_once_beside_a_checkpoint() {
    let folder = Folder::with(&[]);
    let root = folder.path().display().to_string();
    let quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"];
    let fit = ["fit", "--trainer.max_epochs=1", "--trainer.default_root_dir", &root, "--model.hidden=5"];
    let (text, code) = answer(program(), &[&fit[..], &quiet].concat());
    assert_eq!(code, ExitCode::SUCCESS, "{text}");
    let checkpoints = folder.path().join("lightning_logs/version_0/checkpoints");
    let checkpoint = std::fs::read_dir(checkpoints).unwrap().next().unwrap().unwrap().path().display().to_string();
    let (_pipe, path) = pipe("model:\n  name: piped\n");
    let (text, _) =
        answer(program(), &["validate", "--config", &path, "--ckpt_path", &checkpoint, "--print_config=skip_default"]);
    assert!(text.contains("hidden: 5") && text.contains("name: piped"), "{text}");
}

#[test]
fn files_without_an_end_and_files_that_are_none() {
    assert_eq!(
        refused(&["fit", "--config", "/dev/zero"]),
        "error: the configuration file /dev/zero cannot be read: more than 61440 bytes come out of it; save them to a file, \
         which may have more\n"
    );
    let folder = Folder::with(&[("a.yaml", ""), ("b.yaml", "include: a.yaml\n")]);
    std::fs::File::create(folder.path().join("a.yaml")).unwrap().set_len(1 << 40).unwrap();
    for args in ["fit --config @a.yaml", "fit --config @b.yaml", "fit --trainer @a.yaml", "--config @a.yaml fit"] {
        assert_eq!(
            folder.refused(args),
            "error: the configuration file @a.yaml cannot be read: it has more than 16 MiB, which no configuration needs\n"
        );
    }
    std::fs::write(folder.path().join("a.yaml"), b"model:\n  name: \xff\n").unwrap();
    assert_eq!(
        folder.refused("fit --config @a.yaml"),
        "error: the configuration file @a.yaml cannot be read: it is not text in UTF-8\n"
    );
    let text = folder.refused("fit --config @.");
    assert!(text.ends_with("cannot be read: Is a directory (os error 21)\n"), "{text}");
}

/// Each includes the next twice: sixteen million files, if each counted as often as it is included.
#[test]
fn doubled_includes_are_read_once() {
    let files: Vec<(String, String)> = (0..24)
        .map(|level| {
            (
                format!("{level}.yaml"),
                format!("include: [{0}.yaml, ./{0}.yaml]\nmodel:\n  hidden: {level}\n", level + 1),
            )
        })
        .chain([("24.yaml".into(), "model:\n  name: deepest\n".into())])
        .collect();
    let folder = Folder::with(&files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect::<Vec<_>>());
    let text = folder.printed("fit --config @0.yaml --print_config=skip_default");
    assert!(text.contains("hidden: 0\n") && text.contains("name: deepest"), "{text}");
}

/// As often as it says, and what it includes last wins.
#[test]
fn a_file_counts_where_it_is_included_last() {
    let folder = Folder::with(&[
        ("a.yaml", "model:\n  hidden: 1\n  name: a\n"),
        ("b.yaml", "model:\n  hidden: 2\n"),
        ("ab.yaml", "include: [a.yaml, b.yaml]\n"),
        ("aba.yaml", "include: [ab.yaml, a.yaml]\n"),
        ("deep.yaml", "include: deep0.yaml\n"),
    ]);
    assert!(folder.printed("fit --config @ab.yaml --print_config").contains("hidden: 2\n"));
    assert!(folder.printed("fit --config @aba.yaml --print_config").contains("hidden: 1\n"));
    for level in 0..70 {
        let text = format!("include: deep{}.yaml\n", level + 1);
        std::fs::write(folder.path().join(format!("deep{level}.yaml")), text).unwrap();
    }
    assert_eq!(
        folder.refused("fit --config @deep.yaml"),
        "error: more than 64 configuration files include one another in a row, from deep.yaml\n"
    );
}

#[test]
fn aliases_that_ask_for_billions_are_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let list = vec![format!("*a{}", level - 1); 10].join(", ");
        text += &format!("a{level}: &a{level} [{list}]\n");
    }
    let folder = Folder::with(&[("a.yaml", &text)]);
    let text = folder.refused("fit --config @a.yaml");
    assert!(text.contains("this is not YAML: ") && text.contains("alias"), "{text}");
    // A value that is no YAML is a text.
    let deep = "[".repeat(100_000);
    let text = refused(&["fit", &format!("--model.sizes={deep}"), "--print_config"]);
    assert!(text.contains("`model.sizes` takes list of int"), "{}", &text[..200]);
}
