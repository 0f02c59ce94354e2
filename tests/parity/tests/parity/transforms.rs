//! Operations on images, policies and mixtures against torchvision; decoded pictures against PIL and torchvision.

use std::collections::HashMap;

use fulgurite_data::images::{ImageDecoder, ImageReadMode};
use fulgurite_data::rand::SeedableRng;
use fulgurite_data::transforms::functional as f;
use fulgurite_data::transforms::{
    CutMix, Fill, InterpolationMode, MixUp, PaddingMode, RandAugment, ResizeSize, Transform, TrivialAugmentWide,
};
use fulgurite_data::{DataError, ItemRng};
use fulgurite_torch::tch::{Kind, Tensor};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Expectations {
    images: HashMap<String, Given>,
    cases: Vec<Case>,
    policies: Vec<Policy>,
    batch: Given,
    labels: Given,
    mixtures: Vec<Mixture>,
}

#[derive(Deserialize)]
struct Given {
    kind: String,
    shape: Vec<i64>,
    data: Vec<Value>,
}

#[derive(Deserialize)]
struct Case {
    function: String,
    image: String,
    args: Vec<Value>,
    expected: Outcome,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Outcome {
    Error { error: String },
    Image(Given),
}

#[derive(Deserialize)]
struct Policy {
    policy: String,
    image: String,
    outcomes: Vec<Made>,
}

#[derive(Deserialize)]
struct Made {
    note: String,
    #[serde(flatten)]
    image: Given,
}

#[derive(Deserialize)]
struct Mixture {
    name: String,
    soft: bool,
    args: Vec<f64>,
    images: Given,
    labels: Given,
}

impl Given {
    fn kind(&self) -> Kind {
        kind(&self.kind)
    }

    fn tensor(&self) -> Tensor {
        let number = |value: &Value| value.as_f64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap());
        let values = Vec::from_iter(self.data.iter().map(number));
        Tensor::from_slice(&values).to_kind(self.kind()).view(&self.shape[..])
    }

    /// What is different: shape, kind, or values by more than `level` of 255.
    fn differs(&self, made: &Tensor, level: f64) -> Option<String> {
        if (made.kind(), made.size()) != (self.kind(), self.shape.clone()) {
            return Some(format!("{:?} {:?}, not {} {:?}", made.kind(), made.size(), self.kind, self.shape));
        }
        let white = match made.kind() {
            Kind::Uint8 => 255.0,
            Kind::Int16 => 32767.0,
            _ => 1.0,
        };
        if made.numel() == 0 {
            return None;
        }
        let [made, expected] = [made.to_kind(Kind::Double), self.tensor().to_kind(Kind::Double)];
        let most =
            (&made - &expected).abs().nan_to_num(f64::INFINITY, f64::INFINITY, f64::INFINITY).max().double_value(&[]);
        let both_nan = made.isnan().logical_and(&expected.isnan()).any().int64_value(&[]) != 0;
        (most / white * 255.0 > level && !both_nan).then(|| format!("{} levels of 255 away", most / white * 255.0))
    }
}

fn kind(name: &str) -> Kind {
    match name {
        "uint8" => Kind::Uint8,
        "int16" => Kind::Int16,
        "int64" => Kind::Int64,
        "float32" => Kind::Float,
        "float64" => Kind::Double,
        other => panic!("{other}"),
    }
}

#[test]
fn transforms_are_those_of_torchvision() {
    let expectations: Expectations = serde_json::from_value(fulgurite_parity::python("transforms.py", &[])).unwrap();
    let Expectations { images, cases, policies, batch, labels, mixtures } = &expectations;
    let images: HashMap<&str, Tensor> = images
        .iter()
        .map(|(name, given)| {
            let image = given.tensor();
            let last = name == "channels last";
            (name.as_str(), if last { image.permute([1, 2, 0]).contiguous().permute([2, 0, 1]) } else { image })
        })
        .collect();
    assert!(cases.len() > 3000, "{}", cases.len());
    let mut problems = Vec::from_iter(cases.iter().filter_map(|case| {
        let problem = case.check(&images[case.image.as_str()])?;
        Some(format!("{} {:?} of {}: {problem}", case.function, case.args, case.image))
    }));
    problems.extend(policies.iter().filter_map(|policy| policy.check(&images[policy.image.as_str()])));
    problems.extend(mixtures.iter().filter_map(|mixture| mixture.check(&batch.tensor(), &labels.tensor())));
    let shown = &problems[..problems.len().min(60)];
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), shown.join("\n"));
}

/// The arguments of a case, one after the other.
struct Args<'a>(std::slice::Iter<'a, Value>);

impl Args<'_> {
    fn next(&mut self) -> &Value {
        self.0.next().expect("an argument")
    }

    fn int(&mut self) -> i64 {
        self.next().as_i64().unwrap()
    }

    fn ints<const N: usize>(&mut self) -> [i64; N] {
        serde_json::from_value::<Vec<i64>>(self.next().clone()).unwrap().try_into().unwrap()
    }

    fn float(&mut self) -> f64 {
        self.next().as_f64().unwrap()
    }

    fn floats(&mut self) -> Option<Vec<f64>> {
        serde_json::from_value(self.next().clone()).unwrap()
    }

    fn pair(&mut self) -> Option<[f64; 2]> {
        self.floats().map(|pair| pair.try_into().unwrap())
    }

    fn fill(&mut self) -> Option<Fill> {
        self.floats().map(Fill::from)
    }

    fn bool(&mut self) -> bool {
        self.next().as_bool().unwrap()
    }

    fn kind(&mut self) -> Kind {
        kind(self.next().as_str().unwrap())
    }

    fn interpolation(&mut self) -> InterpolationMode {
        match self.next().as_str().unwrap() {
            "nearest" => InterpolationMode::Nearest,
            "nearest-exact" => InterpolationMode::NearestExact,
            "bilinear" => InterpolationMode::Bilinear,
            _ => InterpolationMode::Bicubic,
        }
    }

    fn padding_mode(&mut self) -> PaddingMode {
        match self.next().as_str().unwrap() {
            "constant" => PaddingMode::Constant,
            "edge" => PaddingMode::Edge,
            "reflect" => PaddingMode::Reflect,
            _ => PaddingMode::Symmetric,
        }
    }

    /// A size, with the `max_size` that is an argument later.
    fn resize_size(&mut self, max_size: Option<i64>) -> (ResizeSize, Option<i64>) {
        match self.next() {
            Value::Null => (ResizeSize::LongerEdge(max_size.unwrap()), None),
            Value::Array(size) => {
                ((ResizeSize::from((size[0].as_i64().unwrap(), size[1].as_i64().unwrap()))), max_size)
            }
            size => (ResizeSize::ShorterEdge(size.as_i64().unwrap()), max_size),
        }
    }
}

impl Case {
    fn check(&self, image: &Tensor) -> Option<String> {
        match (&self.expected, self.apply(image)) {
            (Outcome::Image(expected), Ok(made)) => expected.differs(&made, 1.0 + 1e-6),
            (Outcome::Image(_), Err(error)) => Some(error.to_string()),
            (Outcome::Error { .. }, Err(_)) => None,
            (Outcome::Error { error }, Ok(_)) => Some(format!("torchvision says {error}")),
        }
    }

    fn apply(&self, image: &Tensor) -> Result<Tensor, DataError> {
        let args = &mut Args(self.args.iter());
        match self.function.as_str() {
            "resize" => {
                let (size, max_size) = args.resize_size(self.args[2].as_i64());
                let interpolation = args.interpolation();
                args.next();
                f::resize(image, size, interpolation, max_size, args.bool())
            }
            "resized_crop" => {
                let (i, j, h, w) = (args.int(), args.int(), args.int(), args.int());
                f::resized_crop(image, i, j, h, w, args.ints::<2>(), InterpolationMode::Bilinear, true)
            }
            "center_crop" => f::center_crop(image, args.ints::<2>()),
            "crop" => f::crop(image, args.int(), args.int(), args.int(), args.int()),
            "five_crop" => Ok(Tensor::stack(&f::five_crop(image, args.ints::<2>())?, 0)),
            "pad" => f::pad(image, args.ints::<4>(), &args.fill().unwrap(), args.padding_mode()),
            "horizontal_flip" => f::horizontal_flip(image),
            "vertical_flip" => f::vertical_flip(image),
            "rotate" => {
                let (angle, interpolation, expand) = (args.float(), args.interpolation(), args.bool());
                f::rotate(image, angle, interpolation, expand, args.pair(), args.fill().as_ref())
            }
            "affine" => {
                let (angle, translate, scale, shear) = (args.float(), args.pair(), args.float(), args.pair());
                let (interpolation, fill, center) = (args.interpolation(), args.fill(), args.pair());
                let (translate, shear) = (translate.unwrap(), shear.unwrap());
                f::affine(image, angle, translate, scale, shear, interpolation, fill.as_ref(), center)
            }
            _ => self.recolor(image, args),
        }
    }

    fn recolor(&self, image: &Tensor, args: &mut Args) -> Result<Tensor, DataError> {
        match self.function.as_str() {
            "rgb_to_grayscale" => f::rgb_to_grayscale(image, args.int()),
            "adjust_brightness" => f::adjust_brightness(image, args.float()),
            "adjust_contrast" => f::adjust_contrast(image, args.float()),
            "adjust_saturation" => f::adjust_saturation(image, args.float()),
            "adjust_sharpness" => f::adjust_sharpness(image, args.float()),
            "adjust_hue" => f::adjust_hue(image, args.float()),
            "invert" => f::invert(image),
            "posterize" => f::posterize(image, args.int()),
            "solarize" => f::solarize(image, args.float()),
            "autocontrast" => f::autocontrast(image),
            "equalize" => f::equalize(image),
            "to_dtype" => f::to_dtype(image, args.kind(), args.bool()),
            "normalize" => f::normalize(image, &args.floats().unwrap(), &args.floats().unwrap()),
            "gaussian_blur" => {
                let [width, height] = args.ints();
                f::gaussian_blur(image, (height, width), args.pair().unwrap())
            }
            "erase" => {
                let (i, j, h, w) = (args.int(), args.int(), args.int(), args.int());
                f::erase(image, i, j, h, w, &Tensor::from_slice(&args.floats().unwrap()).view([-1, 1, 1]))
            }
            other => panic!("{other}"),
        }
    }
}

impl Policy {
    /// Every draw is one of torchvision's outcomes, and each of those is drawn.
    fn check(&self, image: &Tensor) -> Option<String> {
        let policy: Box<dyn Transform> = match self.policy.as_str() {
            "RandAugment" => Box::new(RandAugment::new().num_ops(1)),
            _ => Box::new(TrivialAugmentWide::new().num_magnitude_bins(3)),
        };
        let mut left = Vec::from_iter(&self.outcomes);
        let mut rng = ItemRng::seed_from_u64(3);
        for _ in 0..600 {
            let made = policy.apply(image.copy(), &mut rng).unwrap();
            if !self.outcomes.iter().any(|outcome| outcome.image.differs(&made, 1.0).is_none()) {
                return Some(format!("{} makes what torchvision's does not", self.policy));
            }
            left.retain(|outcome| outcome.image.differs(&made, 1.0).is_some());
        }
        let missing = Vec::from_iter(left.iter().map(|outcome| &outcome.note));
        (!missing.is_empty()).then(|| format!("{} of {} never makes {missing:?}", self.policy, self.image))
    }
}

impl Mixture {
    fn check(&self, batch: &Tensor, labels: &Tensor) -> Option<String> {
        let labels = if self.soft { labels.one_hot(3).to_kind(Kind::Float) } else { labels.shallow_clone() };
        let made = match self.args[..] {
            [weight] => MixUp::new(3).mix(batch, &labels, weight),
            [left, top, right, bottom] => {
                CutMix::new(3).cut(batch, &labels, [left, top, right, bottom].map(|at| at as i64))
            }
            ref other => panic!("{other:?}"),
        };
        let (images, labels) = made.unwrap();
        let problem = self.images.differs(&images, 1e-3).or(self.labels.differs(&labels, 1e-3))?;
        Some(format!("{} {:?}: {problem}", self.name, self.args))
    }
}

#[derive(Deserialize)]
struct Picture {
    file: String,
    mode: String,
    orientation: bool,
    shape: Vec<i64>,
    data: Vec<u8>,
}

#[test]
fn pictures_are_decoded_as_by_pil_and_torchvision() {
    let folder = tempfile::tempdir().unwrap();
    let pictures = fulgurite_parity::python("images.py", &[folder.path().to_str().unwrap()]);
    let pictures: Vec<Picture> = serde_json::from_value(pictures).unwrap();
    assert!(pictures.len() > 100, "{}", pictures.len());
    let problems = Vec::from_iter(pictures.iter().filter_map(|picture| {
        let mode = match picture.mode.as_str() {
            "gray" => ImageReadMode::Gray,
            "rgb" => ImageReadMode::Rgb,
            "rgb_alpha" => ImageReadMode::RgbAlpha,
            _ => ImageReadMode::Unchanged,
        };
        let decoder = ImageDecoder::new().mode(mode).apply_exif_orientation(picture.orientation);
        let made = decoder.decode(&folder.path().join(&picture.file)).unwrap();
        let name = format!("{} as {}, turned: {}", picture.file, picture.mode, picture.orientation);
        if made.size() != picture.shape {
            return Some(format!("{name}: {:?}, not {:?}", made.size(), picture.shape));
        }
        let expected = Tensor::from_slice(&picture.data).view(&picture.shape[..]).to_kind(Kind::Int64);
        let most = (made.to_kind(Kind::Int64) - expected).abs().max().int64_value(&[]);
        // JPEG leaves to programs how they round, and what is between the pixels of a coarser channel; lightness of colors is
        // rounded, too.
        let allowed = if picture.file.ends_with("jpg") { 3 } else { 1 };
        (most > allowed).then(|| format!("{name}: {most} levels away"))
    }));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
