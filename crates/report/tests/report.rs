//! Pages of runs, as files and in a browser.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail, and says what it skips")]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use fulgurite_report::{report, watch};

fn run(root: &Path, name: &str, metrics: &str, hparams: &str) -> PathBuf {
    let folder = root.join("lightning_logs").join(name);
    fs::create_dir_all(folder.join("checkpoints")).unwrap();
    fs::write(folder.join("metrics.csv"), metrics).unwrap();
    fs::write(folder.join("hparams.yaml"), hparams).unwrap();
    fs::write(folder.join("checkpoints").join("epoch=1-step=20.ckpt"), [0; 1500]).unwrap();
    folder
}

fn two_runs(root: &Path) {
    let rows = |scale: f64| {
        let row = |step: usize| {
            let loss = scale * (-(step as f64) / 300.0).exp() + 0.02 * (step as f64 * 1.7).sin();
            format!(",{},{loss},{step},\n", step / 100)
        };
        let rows: String = (0..1000).map(row).collect();
        let epochs: String =
            (0..10).map(|epoch| format!("{},{epoch},,{},0.001\n", epoch as f64 / 12.0, epoch * 100 + 99)).collect();
        format!("val_acc,epoch,train_loss,step,lr-AdamW\n{rows}{epochs}")
    };
    run(root, "version_9", &rows(2.0), "lr: 0.1\nhidden: 64\nname: '<b>&\"</b>'\n");
    run(root, "version_10", &rows(3.0), "lr: 0.01\nhidden: 64\n");
}

/// A browser, if this machine has one.
fn browser() -> Option<&'static str> {
    let has = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(has);
    if found.is_none() {
        println!("skipped: there is no Chromium");
    }
    found
}

fn browse(browser: &str, args: &[&str], page: &Path) -> String {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000"])
        .arg(format!("--user-data-dir={}", home.path().display()))
        .args(args)
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn runs_are_found_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    two_runs(folder.path());
    let page = report(&[folder.path().to_owned()]).unwrap();
    let (nine, ten) = (page.find("lightning_logs/version_9").unwrap(), page.find("lightning_logs/version_10").unwrap());
    assert!(nine < ten);
    assert!(page.contains(r#"{"name":"lr","differs":true,"values":["0.1","0.01"]}"#));
    assert!(page.contains(r#"{"name":"hidden","differs":false,"values":["64","64"]}"#));
    assert!(page.contains(r#""name":"epoch=1-step=20.ckpt","bytes":1500"#));
    // What a file says is text, and loads nothing.
    assert!(page.contains(r#"\u003cb>&\"\u003c/b>"#) && !page.contains("<b>"));
    assert!(!page.contains("http://") && !page.contains("https://"));
    let named_twice =
        report(&[folder.path().join("lightning_logs"), folder.path().join("lightning_logs/version_9/metrics.csv")]);
    assert_eq!(named_twice.unwrap(), page);
}

#[test]
fn what_is_no_run_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let said = report(&[folder.path().to_owned()]).unwrap_err().to_string();
    assert!(said.contains("holds no run") && said.contains("lightning_logs/version_0"), "{said}");
    let broken = folder.path().join("metrics.csv");
    fs::write(&broken, b"step,loss\n1,2\n\xff\xfe,1\n").unwrap();
    let said = report(&[broken]).unwrap_err().to_string();
    assert!(said.contains("metrics.csv, line 3"), "{said}");
}

#[test]
fn a_browser_shows_it() {
    let Some(browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    two_runs(folder.path());
    let page = folder.path().join("report.html");
    fs::write(&page, report(&[folder.path().to_owned()]).unwrap()).unwrap();
    let shown = browse(browser, &["--dump-dom"], &page);
    assert!(shown.contains("<title>2 runs</title>"), "{shown}");
    assert_eq!(shown.matches("<canvas").count(), 3, "{shown}");
    assert!(shown.contains("&lt;b&gt;&amp;\"&lt;/b&gt;"));
    assert!(shown.contains("1.5 kB"));
    // A canvas that was drawn has a size of its own.
    assert!(shown.contains("<canvas aria-label=\"curves of train_loss\" width="), "{shown}");
    if let Some(picture) = std::env::var_os("FULGURITE_REPORT_PICTURE") {
        let screenshot = format!("--screenshot={}", Path::new(&picture).display());
        browse(browser, &[&screenshot, "--window-size=1400,1100"], &page);
    }
}

#[test]
fn a_million_rows_make_a_small_page() {
    const SPIKE: usize = 777_777;
    let folder = tempfile::tempdir().unwrap();
    let mut metrics = String::from("epoch,lr-AdamW,step,train_loss\n");
    for step in 0..1_000_000_usize {
        let loss = 1.0 / (1.0 + step as f64 * 1e-4) + (step % 97) as f64 * 1e-3;
        let loss = if step == SPIKE { 98765.0 } else { loss };
        writeln!(metrics, "{},{},{step},{loss:.7}", step / 10_000, 1e-3 / (1 + step / 1000) as f64).unwrap();
    }
    let run = run(folder.path(), "version_0", &metrics, "");
    let page = report(&[run]).unwrap();
    println!("{:.2} MB", page.len() as f64 / 1e6);
    assert!(page.len() < 5_000_000, "{}", page.len());
    assert!(page.contains("98765"), "a spike is lost");
    let Some(browser) = browser() else { return };
    let path = folder.path().join("report.html");
    fs::write(&path, page).unwrap();
    let begun = Instant::now();
    let shown = browse(browser, &["--dump-dom"], &path);
    println!("shown in {:?}", begun.elapsed());
    assert_eq!(shown.matches("<canvas").count(), 2);
}

/// The record of a run that was killed at step 80, and went on from step 60.
fn record(folder: &Path) {
    let start = |time: u64, pid: u64| {
        format!(
            "{{\"event\":\"start\",\"v\":1,\"time\":{time},\"entry\":\"fit\",\"pid\":{pid},\"run_id\":\"ab\",\"device\":\"cpu\",\
             \"memory\":2000000000,\"command\":[\"digits\",\"fit\"]}}\n"
        )
    };
    let seconds = "\"seconds\":{\"setup\":2,\"training\":10,\"data\":5,\"validation\":3}";
    let progress = |time: u64, step: u64, samples: u64| {
        format!(
            "{{\"event\":\"progress\",\"time\":{time},\"step\":{step},\"epoch\":1,\"batches\":{step},\"samples\":{samples},\
             \"of_steps\":200,\"next\":1,{seconds}}}\n"
        )
    };
    let lines = [
        start(1000, 1),
        "{\"event\":\"summary\",\"text\":\"0 | fc1 | </script><b>Linear</b>\"}\n".into(),
        "{\"event\":\"train\",\"time\":1002,\"resumed_from\":null,\"step\":0,\"epoch\":0}\n".into(),
        "{\"event\":\"warning\",\"time\":1003,\"text\":\"the data <i>are</i> slow\"}\n".into(),
        "{\"event\":\"checkpoint\",\"step\":60,\"path\":\"/x/epoch=1-step=20.ckpt\",\"monitor\":\"val_loss\",\"mode\":\"min\",\"score\":0.25}\n".into(),
        progress(1020, 80, 2560),
        start(1030, 2),
        "{\"event\":\"train\",\"time\":1032,\"resumed_from\":\"last.ckpt\",\"step\":60,\"epoch\":1}\n".into(),
        format!(
            "{{\"event\":\"end\",\"time\":1050,\"status\":\"failed\",\"error\":\"no <u>more</u>\",\"step\":200,\"epoch\":2,\
             \"batches\":140,\"samples\":4480,{seconds}}}\n"
        ),
        "{\"event\":\"progress\",\"ti".into(),
    ];
    fs::write(folder.join("run.jsonl"), lines.concat()).unwrap();
}

#[test]
fn a_record_says_where_the_time_went() {
    let folder = tempfile::tempdir().unwrap();
    two_runs(folder.path());
    let run = folder.path().join("lightning_logs/version_9");
    record(&run);
    let page = report(&[folder.path().to_owned()]).unwrap();
    // 20 of 80 steps were done again: a quarter of 15 s. 10 s were between the starts.
    assert!(page.contains(r#""lost":13.75,"redone":3.75,"down":10,"steps_redone":20,"total":50"#));
    assert!(page.contains(r#""goodput":0.35,"steps":220,"samples":7040"#));
    assert!(page.contains(r#""restarts":[{"step":60,"epoch":1,"reached":80,"down":10}]"#));
    assert!(!page.contains("<b>Linear") && !page.contains("<i>are") && !page.contains("<u>more"));
    let text = watch(&[run], 80).unwrap();
    assert!(
        text.contains("\nfit failed\n") && text.contains("goodput 35 %") && text.contains("1 restart(s), 14 s lost"),
        "{text}"
    );
    assert!(text.contains("\nerror: no <u>more</u>\n"), "{text}");

    let Some(browser) = browser() else { return };
    let path = folder.path().join("report.html");
    fs::write(&path, page).unwrap();
    let shown = browse(browser, &["--dump-dom"], &path);
    for expected in [
        "goodput 35 %",
        "lost to restarts",
        "13.8 s <span class=\"share\">28 %</span>",
        "samples per second",
        "<span class=\"badge failed\" title=\"no &lt;u&gt;more&lt;/u&gt;\">failed</span>",
        "<strong title=\"the best\">epoch=1-step=20.ckpt ★</strong>",
        "the data &lt;i&gt;are&lt;/i&gt; slow",
        "<pre>0 | fc1 | &lt;/script&gt;&lt;b&gt;Linear&lt;/b&gt;</pre>",
        "2.0 GB",
        "<h3 class=\"group\">Learning rate</h3>",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
}

#[test]
fn a_run_with_a_record_alone_is_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("version_0");
    fs::create_dir_all(&run).unwrap();
    record(&run);
    assert!(report(std::slice::from_ref(&run)).unwrap().contains(r#""rows":0"#));
    assert!(watch(&[run.join("run.jsonl")], 80).unwrap().contains("fit failed"));
}

/// What a user does with a page, as a script at its end that writes what came of it into the title.
const ACTS: &str = r#"<script>
const canvas = charts[0].canvas, box = canvas.getBoundingClientRect();
canvas.setPointerCapture = () => {};
const act = (type, x) => canvas.dispatchEvent(new PointerEvent(type, { clientX: box.left + x, clientY: box.top + 50, bubbles: true }));
const before = charts[0].view.x1 - charts[0].view.x0;
act("pointerdown", 100); act("pointermove", 200); act("pointerup", 200);
const zoomed = charts[0].view.x1 - charts[0].view.x0;
const tip = byId("tip").style.display;
act("dblclick", 150);
const all = charts[0].view.x1 - charts[0].view.x0;
const way = () => { const { smoothed } = lines(charts[0])[0]; return smoothed.slice(1).reduce((sum, value, i) => sum + Math.abs(value - smoothed[i]), 0); };
const rough = way();
byId("smoothing").value = "0.9";
byId("smoothing").dispatchEvent(new Event("input"));
document.querySelector("table input").click();
const left = lines(charts[0]).length;
byId("find").value = "val_";
byId("find").dispatchEvent(new Event("input"));
const found = charts.filter((made) => !made.box.hidden).length;
document.title = JSON.stringify([zoomed < before / 2, tip, all === before, way() < rough / 2, left, found]);
</script></body>"#;

#[test]
fn a_page_is_zoomed_smoothed_and_searched() {
    let Some(browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    two_runs(folder.path());
    let page = report(&[folder.path().to_owned()]).unwrap().replace("</body>", ACTS);
    let path = folder.path().join("report.html");
    fs::write(&path, page).unwrap();
    let shown = browse(browser, &["--dump-dom", "--window-size=1400,1000"], &path);
    // A constant curve that is smoothed differs by rounding alone, which has no round numbers between.
    let title = shown.split_once("<title>").unwrap().1.split_once("</title>").unwrap().0;
    assert_eq!(title, r#"[true,"block",true,true,1,1]"#);
}
