//! Random transforms: what they draw, how they combine, and what they say of parameters that cannot be. What operations
//! make of an image is compared with torchvision in `tests/parity`.

use std::sync::Arc;

use fulgurite_data::datasets::ImageDataset;
use fulgurite_data::rand::SeedableRng;
use fulgurite_data::torch::tch::{Device, Kind, Tensor};
use fulgurite_data::transforms::*;
use fulgurite_data::{DataError, DataLoader, Dataset, ItemRng, IterableDataLoader, IterableFn, Loader, TensorDataset};

const DRAWS: i64 = 1000;

/// Each pixel has the number of its place: rows are tens.
fn places(height: i64, width: i64) -> Tensor {
    let options = (Kind::Int64, Device::Cpu);
    let rows = Tensor::arange(height, options).view([-1, 1]) * 100;
    (rows + Tensor::arange(width, options)).to_kind(Kind::Float).unsqueeze(0)
}

fn draws(transform: impl Transform, image: &Tensor) -> Vec<Tensor> {
    let mut rng = ItemRng::seed_from_u64(11);
    (0..DRAWS).map(|_| transform.apply(image.copy(), &mut rng).unwrap()).collect()
}

/// Which part of the draws is so.
fn part(draws: &[Tensor], so: impl Fn(&Tensor) -> bool) -> f64 {
    draws.iter().filter(|image| so(image)).count() as f64 / draws.len() as f64
}

#[track_caller]
fn near(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() < tolerance, "{found}, not {expected}");
}

fn first(image: &Tensor) -> i64 {
    image.flatten(0, -1).double_value(&[0]) as i64
}

#[test]
fn random_crops_are_equally_likely_everywhere() {
    let image = places(6, 8);
    let made = draws(RandomCrop::new((4, 5)), &image);
    for (top, left) in (0..3).flat_map(|top| (0..4).map(move |left| (top, left))) {
        let expected = image.narrow(1, top, 4).narrow(2, left, 5);
        near(part(&made, |crop| *crop == expected), 1.0 / 12.0, 0.04);
    }
    // Padded by two, a crop of the image's size begins before it in four of five cases.
    let made = draws(RandomCrop::new((6, 8)).padding(2).fill(-1.0), &image);
    near(part(&made, |crop| first(crop) == -1), 1.0 - 9.0 / 25.0, 0.05);
    let made = draws(RandomCrop::new(9).pad_if_needed(true).padding_mode(PaddingMode::Edge), &image);
    assert!(made.iter().all(|crop| crop.size() == [1, 9, 9] && crop.min().double_value(&[]) >= 0.0));
}

#[test]
fn random_resized_crops_have_the_areas_and_ratios_asked_for() {
    let image = places(100, 100);
    let crop = RandomResizedCrop::new((50, 50)).scale((0.2, 0.6)).ratio((0.5, 2.0)).antialias(false);
    let sides = Vec::from_iter(draws(crop, &image).iter().map(|made| {
        let at = |y, x| made.double_value(&[0, y, x]);
        ((at(49, 0) - at(0, 0)) / 100.0 / 49.0 * 50.0, (at(0, 49) - at(0, 0)) / 49.0 * 50.0)
    }));
    let mean = |f: fn(&(f64, f64)) -> f64| sides.iter().map(f).sum::<f64>() / sides.len() as f64;
    near(mean(|(h, w)| h * w / 1e4), 0.4, 0.02);
    near(mean(|(h, w)| (w / h).ln()), 0.0, 0.06);
    assert!(sides.iter().all(|(h, w)| (0.17..0.63).contains(&(h * w / 1e4)) && (0.45..2.2).contains(&(w / h))));
    // An area that no ratio lets fit: the whole of the middle.
    let wide = RandomResizedCrop::new((2, 2)).scale((1.0, 1.0)).ratio((1.0, 1.0));
    let made = draws(wide, &places(2, 10));
    assert!(made.iter().all(|crop| *crop == places(2, 10).narrow(2, 4, 2)));
}

#[test]
fn what_has_a_probability_happens_as_often() {
    let image = Tensor::rand([3, 4, 5], (Kind::Float, Device::Cpu));
    let run = |transform: Arc<dyn Transform>| part(&draws(transform, &image), |made| *made != image);
    near(run(Arc::new(RandomHorizontalFlip::default())), 0.5, 0.06);
    near(run(Arc::new(RandomVerticalFlip::new(0.2))), 0.2, 0.06);
    near(run(Arc::new(RandomGrayscale::default())), 0.1, 0.05);
    near(run(Arc::new(RandomInvert::new())), 0.5, 0.06);
    near(run(Arc::new(RandomPosterize::new(2).p(0.7))), 0.7, 0.06);
    near(run(Arc::new(RandomSolarize::new(0.0).p(0.3))), 0.3, 0.06);
    near(run(Arc::new(RandomAdjustSharpness::new(2.0).p(1.0))), 1.0, 1e-9);
    near(run(Arc::new(RandomAutocontrast::new().p(0.0))), 0.0, 1e-9);
    near(run(Arc::new(RandomEqualize::new())), 0.5, 0.06);
    near(run(Arc::new(RandomApply::new(RandomInvert::new().p(1.0)).p(0.8))), 0.8, 0.06);
    near(run(Arc::new(RandomErasing::new().p(0.4).value(9.0))), 0.4, 0.06);
}

#[test]
fn erased_rectangles_have_the_areas_asked_for() {
    let image = Tensor::zeros([3, 40, 50], (Kind::Float, Device::Cpu));
    let erasing = RandomErasing::new().p(1.0).scale((0.1, 0.3)).ratio((0.5, 2.0)).value([1.0, 2.0, 3.0]);
    let made = draws(erasing, &image);
    let areas = Vec::from_iter(made.iter().map(|x| x.select(0, 1).mean(None).double_value(&[]) / 2.0));
    near(areas.iter().sum::<f64>() / areas.len() as f64, 0.2, 0.01);
    assert!(areas.iter().all(|area| (0.09..0.32).contains(area)));
    let noise = draws(RandomErasing::new().p(1.0).value(ErasingValue::Random), &image);
    let values = Tensor::cat(&noise.iter().map(|x| x.masked_select(&x.ne(0.0))).collect::<Vec<_>>(), 0);
    near(values.mean(None).double_value(&[]), 0.0, 0.01);
    near(values.std(true).double_value(&[]), 1.0, 0.01);
}

#[test]
fn jitter_draws_factors_and_an_order() {
    let gray = Tensor::full([3, 2, 2], 0.4, (Kind::Float, Device::Cpu));
    let made = draws(ColorJitter::new().brightness(0.5), &gray);
    let factors = Vec::from_iter(made.iter().map(|x| x.mean(None).double_value(&[]) / 0.4));
    near(factors.iter().sum::<f64>() / factors.len() as f64, 1.0, 0.02);
    assert!(factors.iter().all(|factor| (0.499..1.501).contains(factor)));
    assert!(factors.iter().any(|factor| *factor < 0.55) && factors.iter().any(|factor| *factor > 1.45));
    // Twice as bright and half the contrast: which comes first decides, once in two.
    let image = Tensor::from_slice(&[0.1f32, 0.9]).view([1, 1, 2]).expand([3, 1, 2], false).contiguous();
    let made = draws(ColorJitter::new().brightness((2.0, 2.0)).contrast((0.5, 0.5)), &image);
    near(part(&made, |x| (x.double_value(&[0, 0, 0]) - 0.4).abs() < 0.01), 0.5, 0.06);
}

#[test]
fn turns_and_moves_stay_within_their_ranges() {
    let image = Tensor::zeros([1, 41, 41], (Kind::Float, Device::Cpu));
    let _ = image.narrow(1, 20, 1).narrow(2, 30, 1).fill_(1.0);
    // Where the point went to, from the middle.
    let place = |made: &Tensor| {
        let at = made.flatten(0, -1).argmax(None, false).int64_value(&[]);
        ((at % 41 - 20) as f64, (at / 41 - 20) as f64)
    };
    let made = draws(RandomRotation::new(30.0).interpolation(InterpolationMode::Bilinear), &image);
    let angles = Vec::from_iter(made.iter().map(|x| {
        let (x, y) = place(x);
        (-y).atan2(x).to_degrees()
    }));
    assert!(angles.iter().all(|angle| angle.abs() < 34.0), "{angles:?}");
    near(angles.iter().sum::<f64>() / angles.len() as f64, 0.0, 1.5);
    near(angles.iter().map(|x| x * x).sum::<f64>() / angles.len() as f64, 300.0, 30.0);
    let made = draws(RandomAffine::new(0.0).translate((0.1, 0.2)), &image);
    let moved = Vec::from_iter(made.iter().map(place).map(|(x, y)| (x - 10.0, y)));
    assert!(moved.iter().all(|(x, y)| x.abs() <= 4.0 && y.abs() <= 8.0), "{moved:?}");
    for reached in [(-4.0, 0.0), (4.0, 0.0)] {
        assert!(moved.iter().any(|(x, _)| *x == reached.0));
    }
}

#[test]
fn transforms_combine() {
    let add = |by: f64| move |image: Tensor, _: &mut ItemRng| -> Result<Tensor, DataError> { Ok(image + by) };
    let double = |image: Tensor, _: &mut ItemRng| -> Result<Tensor, DataError> { Ok(image * 2.0) };
    let one = Tensor::ones([1, 1, 1], (Kind::Double, Device::Cpu));
    let composed = Compose::new().then(add(1.0)).then((double, add(0.5)));
    assert!(draws(composed, &one).iter().all(|x| x.double_value(&[0, 0, 0]) == 4.5));
    assert!(draws(Compose::new(), &one).iter().all(|x| *x == one));
    let chosen = draws(RandomChoice::new().or(add(1.0)).or_weighted(3.0, add(2.0)), &one);
    near(part(&chosen, |x| x.double_value(&[0, 0, 0]) == 3.0), 0.75, 0.06);
    let ordered = draws(RandomOrder::new().and(add(1.0)).and(double), &one);
    near(part(&ordered, |x| x.double_value(&[0, 0, 0]) == 4.0), 0.5, 0.06);
    assert_eq!(draws(FiveCrop::new(2), &places(5, 6))[0].size(), [5, 1, 2, 2]);
    // In place or not, what is handed in elsewhere stays.
    let image = Tensor::rand([3, 4, 5], (Kind::Float, Device::Cpu));
    let before = image.copy();
    let gray = (Grayscale::new(3), Normalize::new([0.5], [0.25]));
    let mut rng = ItemRng::seed_from_u64(0);
    let expected = (functional::rgb_to_grayscale(&image, 3).unwrap() - 0.5) / 0.25;
    assert_eq!(gray.apply(image.shallow_clone(), &mut rng).unwrap(), expected);
    assert_eq!(Normalize::new([0.5], [0.25]).apply(image.shallow_clone(), &mut rng).unwrap(), (&image - 0.5) / 0.25);
    assert_eq!(image, before);
}

#[test]
fn parameters_that_cannot_be_are_explained() {
    let mut rng = ItemRng::seed_from_u64(0);
    let image = Tensor::zeros([3, 10, 12], (Kind::Uint8, Device::Cpu));
    let mut error = |transform: &dyn Transform| transform.apply(image.copy(), &mut rng).unwrap_err().to_string();
    let said = [
        error(&RandomCrop::new(11)),
        error(&RandomHorizontalFlip::new(1.5)),
        error(&Normalize::new([0.5], [0.5])),
        error(&(ToDtype::scaled(Kind::Float), Normalize::new([0.5, 0.5], [0.5]))),
        error(&(ToDtype::scaled(Kind::Float), Normalize::new([0.5], [0.0]))),
        error(&Resize::new(5).max_size(4)),
        error(&GaussianBlur::new(4)),
        error(&GaussianBlur::new(21)),
        error(&RandomAffine::new(0.0).translate((2.0, 0.0))),
        error(&ColorJitter::new().hue(0.7)),
        error(&RandomSolarize::new(256.0).p(1.0)),
        error(&RandAugment::new().magnitude(31)),
        error(&Pad::new(11).padding_mode(PaddingMode::Reflect)),
        error(&RandomChoice::new()),
        error(&|image: Tensor, _: &mut ItemRng| {
            functional::resize(&image.flatten(0, -1), 4, Default::default(), None, true)
        }),
        error(&(|image: Tensor, _: &mut ItemRng| Ok(image.narrow(0, 0, 2)), ColorJitter::new().brightness(0.1))),
    ];
    expect_test::expect![[r#"
        RandomCrop is to cut 11 x 11 out of an image of 10 x 12; resize or pad it before
        RandomHorizontalFlip was given the probability 1.5; it is between 0 and 1
        normalize takes an image of floating-point numbers, but was given Uint8; put ToDtype::scaled(Kind::Float) before it
        normalize was given 2 means and 1 standard deviations for an image of 3 channels
        normalize was given a standard deviation of 0, by which nothing can be divided
        resize has a max_size of 4, but is to make the shorter edge 5 long
        gaussian_blur was given a kernel of 4 x 4; its sizes are odd and above 0
        gaussian_blur mirrors 10 rows and 10 columns around the image, which is 10 x 12; use a smaller kernel_size
        RandomAffine was given translate (2.0, 0.0); it has parts between 0 and 1
        ColorJitter's hue was given the range from -0.7 to 0.7; it lies within (-0.5, 0.5), in order
        solarize was given the threshold 256, but the largest value of Uint8 is 255
        RandAugment was given the magnitude 31 of 31 bins; it is below their number, which is at least 2
        pad mirrors less than the image itself, but was given Padding { left: 11, top: 11, right: 11, bottom: 11 } for an image of 10 x 12
        RandomChoice needs transforms with probabilities above 0, but has []
        resize takes images [.., C, H, W], but was given a tensor of shape [360]
        adjust_brightness takes images of 1 or 3 channels, but was given 2"#]]
    .assert_eq(&said.join("\n"));
}

#[test]
fn a_dataset_hands_bytes_to_its_transform() {
    let bytes = Tensor::arange(16, (Kind::Uint8, Device::Cpu)).view([1, 1, 4, 4]);
    let labels = Tensor::zeros([1], (Kind::Int64, Device::Cpu));
    let mut rng = ItemRng::seed_from_u64(0);
    let digits = ImageDataset::new("digits", bytes, labels, 15).unwrap();
    let plain = digits.get(0, &mut rng).unwrap().0;
    let digits = digits.transform(|image: Tensor, _: &mut ItemRng| {
        assert_eq!(image.kind(), Kind::Uint8);
        functional::to_dtype(&image, Kind::Float, true)
    });
    assert!(digits.get(0, &mut rng).unwrap().0.allclose(&plain, 1e-6, 1e-6, false));
    let batch = DataLoader::new(digits).iter(0, 0).unwrap().next().unwrap().unwrap();
    assert!(batch.0.get(0).allclose(&plain, 1e-6, 1e-6, false));
}

#[test]
fn mixtures_belong_to_the_batch_and_its_epoch() {
    let images = Tensor::arange(48, (Kind::Float, Device::Cpu)).view([12, 1, 2, 2]);
    let labels = Tensor::arange(12, (Kind::Int64, Device::Cpu));
    let dataset = TensorDataset::new((images, labels)).unwrap();
    let epoch = |workers, epoch, skip| {
        let mix = MixUp::new(12);
        let loader = DataLoader::new(dataset.clone()).batch_size(3).num_workers(workers).seed(1);
        let loader = loader.map_batch(move |(images, labels), rng| Ok(mix.apply(&images, &labels, rng)?));
        loader.iter(epoch, skip).unwrap().map(Result::unwrap).collect::<Vec<_>>()
    };
    let first = epoch(0, 0, 0);
    assert_eq!(first, epoch(2, 0, 0));
    assert_eq!(first[2..], epoch(2, 0, 2));
    assert_ne!(first, epoch(0, 1, 0));
    let stream = |workers, epoch, skip| {
        let mix = MixUp::new(12);
        let image = |i: i64| Tensor::arange_start(4 * i, 4 * i + 4, (Kind::Float, Device::Cpu)).view([1, 2, 2]);
        let pairs = IterableFn::new("pairs", move |_| Ok((0..12i64).map(move |i| Ok((image(i), i)))));
        let loader = IterableDataLoader::new(pairs).batch_size(3).num_workers(workers).seed(1);
        let loader = loader.map_batch(move |(images, labels), rng| Ok(mix.apply(&images, &labels, rng)?));
        loader.iter(epoch, skip).unwrap().map(Result::unwrap).collect::<Vec<_>>()
    };
    assert_eq!(first, stream(0, 0, 0));
    assert_eq!(first[2..], stream(2, 0, 2));
    assert_ne!(first, stream(0, 1, 0));
    let weights = Vec::from_iter(first.iter().map(|(_, labels)| labels.max().double_value(&[])));
    assert!(weights.windows(2).any(|pair| pair[0] != pair[1]), "{weights:?}");
    for (images, labels) in &first {
        assert!(labels.sum_dim_intlist([1i64].as_slice(), false, Kind::Float).allclose(
            &Tensor::ones([3], (Kind::Float, Device::Cpu)),
            1e-6,
            1e-6,
            false
        ));
        assert_eq!(images.size(), [3, 1, 2, 2]);
    }
    let mix = CutMix::new(12);
    let error = mix.apply(
        &Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)),
        &Tensor::zeros([2], (Kind::Int64, Device::Cpu)),
        &mut ItemRng::seed_from_u64(0),
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "CutMix takes images [N, C, H, W] and labels, classes [N] of kind Int64 or probabilities [N, 12], but was given \
         [2, 3] and Int64 [2]"
    );
}
