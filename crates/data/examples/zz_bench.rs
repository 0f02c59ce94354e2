use fulgurite_data::{*, torch::tch::*};
use std::time::Instant;
fn run<L: Loader>(name: &str, w: usize, l: L) {
    let n = l.len().unwrap();
    let mut ts: Vec<f64> = (0..6).map(|e| { let t = Instant::now(); for b in l.iter(e, 0).unwrap() { b.unwrap(); } t.elapsed().as_secs_f64() / n as f64 * 1e6 }).collect();
    ts.remove(0); ts.sort_by(f64::total_cmp);
    println!("{name} {w} {:.1} us/batch", ts[2]);
}
fn main() {
    fulgurite_data::torch::runtime::tune_allocator();
    let n = 20000;
    for w in [0, 2] {
        let ds = || TensorDataset::new((Tensor::rand([n, 1, 28, 28], (Kind::Float, Device::Cpu)), Tensor::randint(10, [n], (Kind::Int64, Device::Cpu)))).unwrap();
        run("map", w, DataLoader::new(ds().map(|(x, y), _| ((x - 0.5) / 0.5, y))).batch_size(64).shuffle(true).num_workers(w));
        run("tensor", w, DataLoader::new(ds()).batch_size(64).shuffle(true).num_workers(w));
    }
}
