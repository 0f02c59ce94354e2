//! Files of tensors alone, through the tools.

use expect_test::expect;

use super::tools::{check, folder, fulgurite_in, lightning};

#[test]
fn safetensors_go_in_and_out() {
    let folder = folder(&lightning());
    check(
        folder.path(),
        &["convert", "a.ckpt", "a.safetensors"],
        0,
        &expect![[r#"
        a.safetensors: 3 tensors of 56 B
        left out: epoch, global_step, pytorch-lightning_version, loops, callbacks, optimizer_states, lr_schedulers, hparams_name, hyper_parameters, mine
    "#]],
    );
    check(
        folder.path(),
        &["show", "a.safetensors"],
        0,
        &expect![[r#"
          file    a.safetensors
          holds   weights
          format  safetensors
          size

        Tensors
          in     tensors  elements  size  dtypes
          total        3        14  56 B  float32

        Tensors in the same memory
          fc.weight  = tied.weight
    "#]],
    );
    check(
        folder.path(),
        &["diff", "a.ckpt", "a.safetensors"],
        0,
        &expect![[r#"
        Only a.ckpt has more than weights, so only weights are compared.

        The same: 3 tensors, 0 other values.
    "#]],
    );
    check(
        folder.path(),
        &["convert", "a.safetensors", "b.ckpt"],
        0,
        &expect![[r#"
        b.ckpt: 3 tensors of 56 B
        it has weights only: it can be loaded and tested, but not resumed from
    "#]],
    );
    let bytes = std::fs::read(folder.path().join("a.safetensors")).unwrap();
    std::fs::write(folder.path().join("cut.safetensors"), &bytes[..bytes.len() - 1]).unwrap();
    let (said, status) = fulgurite_in(folder.path(), None, &["verify", "a.safetensors", "cut.safetensors"]);
    assert_eq!(status, 1);
    assert!(said.contains("intact ") && said.contains("NOT INTACT         cut.safetensors: "), "{said}");
}
