//! The `tensorboard` package reads back everything our event files hold.

use fulgurite_fabric::loggers::{Logger, RunStatus, TensorBoardLogger};
use fulgurite_parity::python;
use fulgurite_torch::tch::{Device, Kind, Tensor};
use fulgurite_torch::{Dict, Value};
use serde_json::json;

#[test]
fn everything_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut logger = TensorBoardLogger::new(folder.path()).name("").version("run");
    let params = Dict::new()
        .with("lr", 0.1)
        .with("net", Dict::new().with("width", 8).with("bias", true))
        .with("act", "relu")
        .with("betas", (0.9, 0.999))
        .with("none", Value::None);
    logger.log_hyperparams(&params).unwrap();

    let mut losses = Vec::new();
    for step in 0..3000_i64 {
        let loss = 1.0 / (step as f64 + 3.0);
        logger.log_metrics(&[("loss", loss), ("train/acc_épreuve", -0.5 * step as f64)], step).unwrap();
        losses.push((step, loss as f32));
    }
    logger.log_metrics(&[("hp_metric", 0.75), ("big", 1e30)], 3000).unwrap();
    logger.log_scalars("both", &[("train", 1.0), ("val", 2.0)], 7).unwrap();

    let long = "line *one*\n\n| a | b |\n".repeat(50);
    logger.log_text("notes", "first ✓", 0).unwrap();
    logger.log_text("notes", &long, 5).unwrap();

    let grey = Tensor::arange(12, (Kind::Uint8, Device::Cpu)).reshape([1, 3, 4]);
    let color = Tensor::linspace(-0.1, 1.1, 60 * 70 * 3, (Kind::Float, Device::Cpu)).reshape([3, 60, 70]);
    logger.log_image("grey", &grey, 1).unwrap();
    logger.log_image("color", &color, 2).unwrap();
    logger.log_images("batch", &Tensor::ones([9, 4, 5, 5], (Kind::Float, Device::Cpu)), 3).unwrap();

    let options = (Kind::Double, Device::Cpu);
    let sixes = ((Tensor::arange(10_000, options) * 7919.0).remainder(10_007.0) - 5000.0) / 1000.0;
    let sixes = sixes.pow_tensor_scalar(3).to_kind(Kind::Float).reshape([100, 100]);
    logger.log_histogram("weights", &sixes, 4).unwrap();
    logger.finalize(RunStatus::Failed).unwrap();

    let found = python("tensorboard_read.py", &[logger.log_dir().unwrap().to_str().unwrap()]);
    assert_eq!(found["file_version"], 2.0);
    let read: Vec<(i64, f32)> = serde_json::from_value(found["scalars"]["loss"].clone()).unwrap();
    assert_eq!(read, losses);
    assert_eq!(found["scalars"]["train/acc_épreuve"][2999], json!([2999, -1499.5]));
    assert_eq!(found["scalars"]["hp_metric"], json!([[0, -1.0], [3000, 0.75]]));
    assert_eq!(found["scalars"]["big"], json!([[3000, f64::from(1e30_f32)]]));
    let times: Vec<f64> = found["wall_times"].as_array().unwrap().iter().map(|t| t.as_f64().unwrap()).collect();
    assert!(times.is_sorted() && times[0] > 1.7e9);

    assert_eq!(found["text_plugin"], json!(["notes/text_summary"]));
    assert_eq!(found["texts"], json!({"notes/text_summary": [[0, "first ✓"], [5, long]]}));

    assert_eq!(
        found["images"]["grey"],
        json!([{"step": 1, "size": [4, 3], "pixels": [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]}])
    );
    let bytes = (color * 255.0).clamp(0.0, 255.0).to_kind(Kind::Uint8);
    let color = &found["images"]["color"][0];
    assert_eq!((color["step"].as_i64(), &color["size"]), (Some(2), &json!([70, 60])));
    for (channel, y, x) in [(0, 0, 0), (1, 30, 35), (2, 59, 69), (0, 59, 0), (2, 0, 69)] {
        assert_eq!(color["pixels"][y as usize][x as usize][channel as usize], bytes.int64_value(&[channel, y, x]));
    }
    let batch = &found["images"]["batch"][0];
    assert_eq!(batch["size"], json!([8 * 7 + 2, 2 * 7 + 2]));
    assert_eq!((&batch["pixels"][0][0], &batch["pixels"][2][2]), (&json!([0, 0, 0, 0]), &json!([255, 255, 255, 255])));

    let (ours, torch) = (&found["histograms"]["weights"][0], &found["expected_histogram"]);
    assert_eq!((&ours["limits"], &ours["counts"]), (&torch["limits"], &torch["counts"]));
    for (ours, torch) in ours["stats"].as_array().unwrap().iter().zip(torch["stats"].as_array().unwrap()) {
        let (ours, torch) = (ours.as_f64().unwrap(), torch.as_f64().unwrap());
        assert!((ours - torch).abs() <= 1e-9 * torch.abs(), "{ours} {torch}");
    }

    let hparams = &found["hparams"];
    let values =
        json!({"lr": 0.1, "net/width": 8.0, "net/bias": true, "act": "relu", "betas": "(0.9, 0.999)", "none": "None"});
    assert_eq!(hparams["values"], values);
    let (number, text, boolean) = ("DATA_TYPE_FLOAT64", "DATA_TYPE_STRING", "DATA_TYPE_BOOL");
    let columns =
        json!({"lr": number, "net/width": number, "net/bias": boolean, "act": text, "betas": text, "none": text});
    assert_eq!(hparams["columns"], columns);
    assert_eq!(hparams["metrics"], json!({"hp_metric": [0.75, 3000]}));
    assert_eq!(hparams["status"], "STATUS_FAILURE");
    assert!((0.0..600.0).contains(&hparams["seconds"].as_f64().unwrap()));
}

#[test]
fn a_run_that_goes_on_takes_back_what_came_after_its_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let logger = || TensorBoardLogger::new(folder.path()).name("").version("run");
    let mut first = logger();
    for step in 0..6 {
        first.log_metrics(&[("loss", step as f64)], step).unwrap();
    }
    drop(first);
    // TensorBoard reads files in the order of the seconds in their names.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let mut second = logger();
    second.resume_after(3).unwrap();
    for step in 4..7 {
        second.log_metrics(&[("loss", 10.0 + step as f64)], step).unwrap();
    }
    second.finalize(RunStatus::Success).unwrap();
    let found = python("tensorboard_read.py", &[second.log_dir().unwrap().to_str().unwrap()]);
    let expected = json!([[0, 0.0], [1, 1.0], [2, 2.0], [3, 3.0], [4, 14.0], [5, 15.0], [6, 16.0]]);
    assert_eq!(found["scalars"]["loss"], expected);
}
