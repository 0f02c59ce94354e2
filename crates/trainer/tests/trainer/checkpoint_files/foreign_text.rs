//! What files say of themselves does not reach a terminal as something that it obeys.

use std::fs;
use std::path::Path;

use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::serialization;
use fulgurite::{Checkpoint, Console};

use super::tools::{fulgurite_in, lightning};

/// Clears the screen, sets the title, begins in C1, turns text around, and overwrites the line.
const HOSTILE: &str = "a\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{202e}b\rc\nwhole";

#[track_caller]
fn is_plain(what: &str, said: &str) {
    let is_obeyed = |c: &char| c.is_control() && !matches!(*c, '\n' | '\t') || *c == '\u{202e}';
    assert_eq!(said.chars().find(is_obeyed), None, "{what}: {said:?}");
}

fn hostile(folder: &Path, name: &str, weight: f32) {
    let weights = Dict::new().with(HOSTILE, Tensor::from_slice(&[weight, 2.0]));
    let checkpoint = lightning()
        .with("state_dict", weights)
        .with("hyper_parameters", Dict::new().with(HOSTILE, HOSTILE).with("list", vec![Value::from(HOSTILE)]))
        .with("callbacks", Dict::new().with(HOSTILE, Dict::new().with(HOSTILE, HOSTILE)))
        .with("pytorch-lightning_version", HOSTILE)
        .with(HOSTILE, HOSTILE);
    serialization::save(folder.join(name), &Value::Dict(checkpoint)).unwrap();
}

#[test]
fn tools_escape_names_and_texts_of_files() {
    let folder = tempfile::tempdir().unwrap();
    hostile(folder.path(), "one.ckpt", 1.0);
    hostile(folder.path(), "two.ckpt", 1.5);
    // A name in a pickle, which is quoted when the file is refused.
    fs::write(folder.path().join("bad.ckpt"), format!("\u{1}garbage {HOSTILE}")).unwrap();
    for arguments in [
        &["show", "one.ckpt", "--tensors"][..],
        &["show", "one.ckpt", "--stats"],
        &["verify", "one.ckpt", "bad.ckpt"],
        &["diff", "one.ckpt", "two.ckpt"],
        &["convert", "one.ckpt", "out.safetensors"],
        &["convert", "bad.ckpt", "out.pt"],
        &["show", "bad.ckpt"],
        &["show", HOSTILE],
    ] {
        for width in [None, Some(60)] {
            let (said, _) = fulgurite_in(folder.path(), width, arguments);
            assert!(!said.is_empty());
            is_plain(&format!("{arguments:?}"), &said);
        }
    }
    let (json, _) = fulgurite_in(folder.path(), None, &["show", "one.ckpt", "--json"]);
    is_plain("JSON", &json);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["contents"][HOSTILE], HOSTILE);
    let (shown, _) = fulgurite_in(folder.path(), None, &["show", "one.ckpt", "--tensors"]);
    let row = "a\\u{1b}[2J\\u{1b}]0;title\\u{7}\\u{9b}31m\\u{202e}b\\rc\\nwhole";
    assert!(shown.lines().any(|line| line.trim_start().starts_with(row)), "{shown}");
}

#[test]
fn errors_that_main_returns_are_escaped() {
    let folder = tempfile::tempdir().unwrap();
    hostile(folder.path(), "one.ckpt", 1.0);
    let vars = nn::VarStore::new(Device::Cpu);
    let _layer = nn::linear(vars.root(), 2, 2, Default::default());
    let error = Checkpoint::open(folder.path().join("one.ckpt")).unwrap().load_into(&vars).unwrap_err();
    assert!(error.to_string().contains("title"), "{error}");
    is_plain("an error for `main`", &format!("{error:?}"));
    let boxed: fulgurite::BoxError = error.into();
    is_plain("a boxed error", &format!("{boxed:?}"));
}

#[test]
fn the_console_escapes_everything() {
    let console = Console::memory();
    console.print(HOSTILE);
    console.warn(HOSTILE);
    console.print_out(HOSTILE);
    assert!(console.contents().matches("title").count() == 3);
    is_plain("the console", &console.contents());
}
