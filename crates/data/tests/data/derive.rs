//! `#[derive(Batch)]` and `#[derive(Stack)]`.

use fulgurite_data::torch::tch::{Kind, Tensor};
use fulgurite_data::{Batch, DataLoader, Dataset, InMemory, Loader, Stack};

#[derive(Batch)]
#[batch(crate = "fulgurite_data")]
struct Translation<T> {
    names: Vec<String>,
    source: T,
    r#type: Option<Tensor>,
}

#[derive(Batch, Stack)]
#[batch(crate = "fulgurite_data")]
struct Pair(Tensor, (Tensor, Tensor));

#[derive(Batch)]
#[batch(crate = "fulgurite_data")]
struct Nothing;

#[test]
fn fields_are_walked_in_order() {
    let batch = Translation {
        names: vec!["a".into()],
        source: (Tensor::from_slice(&[1.0f32, 2.0]), 7i64),
        r#type: Some(Tensor::from_slice(&[1i64])),
    };
    assert_eq!(batch.size(), Some(2));
    let half = batch.to_float_kind(Kind::Half);
    assert_eq!((half.source.0.kind(), half.source.1), (Kind::Half, 7));
    assert_eq!(half.r#type.as_ref().map(Tensor::kind), Some(Kind::Int64));
    assert_eq!(half.names, batch.names);
    assert_eq!(Nothing.shallow_clone().size(), None);
}

#[test]
fn structs_are_stacked_field_by_field() {
    let pairs =
        InMemory::new(0..3i64).map(|i, _| Pair(Tensor::from(i), (Tensor::from(-i), Tensor::from_slice(&[i, i]))));
    let Pair(x, (y, z)) = DataLoader::new(pairs).batch_size(3).iter(0, 0).unwrap().next().unwrap().unwrap();
    assert_eq!(x, Tensor::from_slice(&[0i64, 1, 2]));
    assert_eq!(y, Tensor::from_slice(&[0i64, -1, -2]));
    assert_eq!(z.size(), [3, 2]);
}
