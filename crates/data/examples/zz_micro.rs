use fulgurite_data::{*, torch::tch::*, torch::SharedTensor};
use std::time::Instant;
fn t<R>(name: &str, mut f: impl FnMut(usize) -> R) {
    for i in 0..2000 { f(i); }
    let mut best = f64::MAX;
    for _ in 0..5 { let s = Instant::now(); for i in 0..5000 { f(i); } best = best.min(s.elapsed().as_secs_f64() / 5000. * 1e6); }
    println!("{name}: {best:.2} us");
}
fn main() {
    torch::runtime::tune_allocator();
    let x = Tensor::rand([20000, 1, 28, 28], (Kind::Float, Device::Cpu));
    let y = Tensor::randint(10, [20000], (Kind::Int64, Device::Cpu));
    let (sx, sy) = (SharedTensor::new(x.copy()).unwrap(), SharedTensor::new(y.copy()).unwrap());
    t("shared get x", |i| sx.get(i * 7919 % 20000).unwrap());
    t("shared get y", |i| sy.get(i * 7919 % 20000).unwrap());
    t("select view x", |i| x.select(0, (i * 7919 % 20000) as i64));
    t("select_copy x", |i| x.select_copy(0, (i * 7919 % 20000) as i64));
    t("select+copy x", |i| x.select(0, (i * 7919 % 20000) as i64).copy());
    t("narrow_copy x", |i| x.narrow_copy(0, (i * 7919 % 20000) as i64, 1));
    t("index_select x", |i| x.index_select(0, &Tensor::from_slice(&[(i * 7919 % 20000) as i64])));
    t("select_copy y", |i| y.select_copy(0, (i * 7919 % 20000) as i64));
    let one = x.get(3).copy();
    t("sub", |_| &one - 0.5);
    t("sub no_grad", |_| no_grad(|| &one - 0.5));
    t("div", |_| &one / 0.5);
    t("owned", |_| (one.shallow_clone() - 0.5) / 0.5);
    let items: Vec<Tensor> = (0..64).map(|i| x.get(i).copy()).collect();
    t("stack 64", |_| Tensor::stack(&items, 0));
    let labels: Vec<Tensor> = (0..64).map(|i| y.get(i).copy()).collect();
    t("stack 64 scalars", |_| Tensor::stack(&labels, 0));
    let a = Tensor::from(0.5);
    t("from scalar", |_| Tensor::from(0.5f32));
    t("empty", |_| Tensor::empty([1,28,28], (Kind::Float, Device::Cpu)));
    t("shallow", |_| a.shallow_clone());
}
