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

#[derive(Batch)]
#[batch(crate = "fulgurite_data")]
enum Stage<T> {
    Labelled(T, Tensor),
    Images { names: Vec<String>, images: T },
    Empty,
}

#[test]
fn the_fields_of_each_variant_are_walked() {
    let images = || Tensor::from_slice(&[1.0f32, 2.0, 3.0]);
    let labelled = Stage::Labelled(images(), Tensor::from_slice(&[1i64, 2, 3]));
    let Stage::Labelled(x, y) = labelled.to_float_kind(Kind::Half) else { panic!("another variant") };
    assert_eq!((x.kind(), y.kind(), labelled.size()), (Kind::Half, Kind::Int64, Some(3)));
    let unlabelled = Stage::Images { names: vec!["a".into()], images: images() };
    let Stage::Images { names, images } = unlabelled.map_tensors(&mut |t| t * 2) else { panic!("another variant") };
    assert_eq!((names, images), (vec!["a".into()], Tensor::from_slice(&[2.0f32, 4.0, 6.0])));
    assert!(matches!(Stage::<Tensor>::Empty.shallow_clone(), Stage::Empty));
    assert_eq!((unlabelled.size(), Stage::<Tensor>::Empty.size()), (Some(3), None));
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
