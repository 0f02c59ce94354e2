//! Pictures: decoding, damaged ones included, and folders of them.

use std::fs;
use std::io::Cursor;

use fulgurite_data::datasets::ImageFolder;
use fulgurite_data::images::{ImageDecoder, ImageReadMode, decode_image};
use fulgurite_data::rand::SeedableRng;
use fulgurite_data::torch::tch::{Kind, Tensor};
use fulgurite_data::transforms::{RandomCrop, Resize, ToDtype, Transform};
use fulgurite_data::{DataError, DataLoader, Dataset, ItemRng, Loader};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use tempfile::{TempDir, tempdir};

/// The message without the folder's random name.
fn plain(root: &TempDir, error: DataError) -> String {
    error.to_string().replace(&root.path().display().to_string(), "ROOT")
}

/// Colors that change slowly, which JPEG keeps.
fn colors(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x * 4) as u8, (y * 4) as u8, 128]))
}

fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 95).encode_image(picture).unwrap();
    bytes
}

/// With EXIF data of this orientation after the first marker.
fn turned(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let entry = [0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0];
    let exif = [b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01".as_slice(), &entry, &[0; 4]].concat();
    let header = [0xff, 0xe1, 0, exif.len() as u8 + 2];
    [&jpeg[..2], &header, &exif, &jpeg[2..]].concat()
}

/// A PNG file of a header, and little more.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let header = [&b"IHDR"[..], &width.to_be_bytes(), &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let mut checksum = flate2::Crc::new();
    checksum.update(&header);
    let checksum = checksum.sum().to_be_bytes();
    [&b"\x89PNG\r\n\x1a\n\0\0\0\x0d"[..], &header, &checksum, &[0, 0, 0, 0], b"IDAT", &[0x35, 0xaf, 0x06, 0x1e]]
        .concat()
}

fn pixel(image: &Tensor, y: i64, x: i64) -> Vec<i64> {
    Vec::try_from(image.select(-1, x).select(-1, y).to_kind(Kind::Int64)).unwrap()
}

#[test]
fn pictures_become_bytes_of_the_channels_asked_for() {
    let picture = colors(9, 5);
    let png = encoded(picture.clone(), ImageFormat::Png);
    let image = decode_image(&png).unwrap();
    assert_eq!((image.kind(), image.size()), (Kind::Uint8, vec![3, 5, 9]));
    assert_eq!(pixel(&image, 4, 8), [32, 16, 128]);
    for (mode, expected) in [
        (ImageReadMode::Rgb, vec![32, 16, 128]),
        (ImageReadMode::RgbAlpha, vec![32, 16, 128, 255]),
        (ImageReadMode::Gray, vec![34]),
        (ImageReadMode::GrayAlpha, vec![34, 255]),
    ] {
        for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::Pnm] {
            let bytes = encoded(picture.clone(), format);
            assert_eq!(pixel(&ImageDecoder::new().mode(mode).decode(&bytes).unwrap(), 4, 8), expected, "{format:?}");
        }
        let lossy = pixel(&ImageDecoder::new().mode(mode).decode(&jpeg(&picture)).unwrap(), 4, 8);
        assert!(lossy.iter().zip(&expected).all(|(found, expected)| found.abs_diff(*expected) < 8), "{lossy:?}");
    }
    // Opacity is left out; of 16 bits, the upper 8 count; a picture that moves is its first one.
    let deep = image::ImageBuffer::from_pixel(2, 2, image::Rgba([0x1234u16, 0xff00, 0x00ff, 0x8000]));
    let deep = encoded(deep, ImageFormat::Png);
    assert_eq!(pixel(&ImageDecoder::new().mode(ImageReadMode::Rgb).decode(&deep).unwrap(), 1, 1), [0x12, 0xff, 0]);
    assert_eq!(pixel(&decode_image(&deep).unwrap(), 1, 1), [0x12, 0xff, 0, 0x80]);
    let moving = encoded(picture, ImageFormat::Gif);
    assert_eq!(decode_image(&moving).unwrap().size()[1..], [5, 9]);
}

#[test]
fn the_orientation_of_a_photo_is_applied_if_asked_for() {
    let upright = jpeg(&colors(32, 16));
    let plain = decode_image(&upright).unwrap();
    for orientation in 1..=8 {
        let photo = turned(&upright, orientation);
        assert_eq!(decode_image(&photo).unwrap(), plain);
        let image = ImageDecoder::new().apply_exif_orientation(true).decode(&photo).unwrap();
        let expected = match orientation {
            1 => plain.shallow_clone(),
            2 => plain.flip([2]),
            3 => plain.flip([1, 2]),
            4 => plain.flip([1]),
            5 => plain.transpose(1, 2),
            6 => plain.transpose(1, 2).flip([2]),
            7 => plain.transpose(1, 2).flip([1, 2]),
            _ => plain.transpose(1, 2).flip([1]),
        };
        assert_eq!(image, expected, "{orientation}");
    }
}

#[test]
fn bytes_that_are_no_whole_picture_are_explained() {
    let picture = colors(64, 48);
    let [photo, png] = [jpeg(&picture), encoded(picture, ImageFormat::Png)];
    let message = |bytes: &[u8]| decode_image(bytes).unwrap_err().to_string();
    assert_eq!(message(b""), "the 0 bytes of a picture are not usable: it is empty");
    assert_eq!(
        message(b"hello"),
        "the 5 bytes of a picture are not usable: its first bytes are not those of a JPEG, PNG, GIF, WebP, BMP, TIFF or \
         PNM picture"
    );
    for end in [2, 4, 30, photo.len() / 2, photo.len() - 2] {
        let error = message(&photo[..end]);
        assert!(error.ends_with("usable: it is a JPEG file that is cut off: its end is missing"), "{end}: {error}");
    }
    // A whole thumbnail within the EXIF data is not the picture's end.
    let mut cut = turned(&photo, 1);
    cut.truncate(cut.len() / 2);
    cut[30..32].copy_from_slice(&[0xff, 0xd9]);
    assert!(message(&cut).ends_with("cut off: its end is missing"));
    for end in [8, 20, 40, png.len() / 2] {
        let error = message(&png[..end]);
        assert!(error.contains("usable: it is a Png file that is damaged or cut off: "), "{end}: {error}");
    }
    assert!(
        message(&png_header(0, 5)).contains("it is a Png file that is damaged")
            || message(&png_header(0, 5)).contains("none")
    );
    let mut flat = photo.clone();
    let frame = photo.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    flat[frame + 5..frame + 9].copy_from_slice(&[0, 0, 0, 64]);
    assert!(message(&flat).contains("it is a JPEG file that is damaged: "), "{}", message(&flat));
    // Enormous sizes take no memory.
    flat[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
    for (huge, size) in [(flat, "65500 x 65500"), (png_header(2_000_000, 1_000_000), "2000000 x 1000000")] {
        let error = message(&huge);
        assert!(
            error.ends_with(&format!(
                "it says that it is {size} pixels large, and max_pixels is 178956970; if that is right, raise max_pixels"
            )),
            "{error}"
        );
    }
    let small = ImageDecoder::new().max_pixels(64 * 48 - 1);
    assert!(small.decode(&photo).is_err() && small.max_pixels(64 * 48).decode(&photo).is_ok());
}

#[test]
fn damage_anywhere_is_an_error_or_a_picture() {
    let picture = colors(40, 24);
    let mut random = 1u64;
    for bytes in [jpeg(&picture), encoded(picture.clone(), ImageFormat::Png), encoded(picture, ImageFormat::WebP)] {
        for _ in 0..300 {
            let mut damaged = bytes.clone();
            for _ in 0..3 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (random >> 33) as usize % damaged.len();
                damaged[at] = (random >> 25) as u8;
            }
            if let Err(error) = ImageDecoder::new().max_pixels(1 << 20).decode(&damaged) {
                assert!(error.to_string().lines().count() == 1, "{error}");
            }
        }
    }
}

#[test]
fn files_that_are_no_pictures_are_named() {
    let root = tempdir().unwrap();
    let path = root.path().join("a.png");
    assert_eq!(
        plain(&root, decode_image(&path).unwrap_err()),
        "cannot read ROOT/a.png: No such file or directory (os error 2)"
    );
    fs::write(&path, b"").unwrap();
    assert_eq!(plain(&root, decode_image(&path).unwrap_err()), "ROOT/a.png is not usable: it is empty");
    assert_eq!(
        plain(&root, decode_image(root.path()).unwrap_err()),
        "ROOT is not usable: it is no file: a picture cannot be a folder, pipe, socket or device"
    );
    fs::File::create(&path).unwrap().set_len((1 << 30) + 1).unwrap();
    assert_eq!(
        plain(&root, decode_image(&path).unwrap_err()),
        "ROOT/a.png is not usable: it has 1073741825 bytes, and a picture at most 1073741824"
    );
}

#[test]
fn a_transform_of_a_folder_names_the_picture_and_repeats() {
    let root = tempdir().unwrap();
    fs::create_dir(root.path().join("cat")).unwrap();
    for at in 0..6 {
        fs::write(root.path().join(format!("cat/{at}.jpg")), jpeg(&colors(40, 30 + at))).unwrap();
    }
    let epoch = |workers, skip| {
        let folder = ImageFolder::open(root.path()).unwrap().transform(RandomCrop::new(20));
        let loader = DataLoader::new(folder).batch_size(2).shuffle(true).num_workers(workers).seed(3);
        loader.iter(1, skip).unwrap().map(|batch| batch.unwrap().0).collect::<Vec<_>>()
    };
    assert_eq!(epoch(0, 0)[1..], epoch(2, 1));
    let folder = ImageFolder::open(root.path()).unwrap().transform(RandomCrop::new(33));
    assert_eq!(
        folder
            .get(1, &mut ItemRng::seed_from_u64(0))
            .unwrap_err()
            .to_string()
            .replace(root.path().to_str().unwrap(), "ROOT"),
        "ROOT/cat/1.jpg: RandomCrop is to cut 33 x 33 out of an image of 31 x 40; resize or pad it before"
    );
    let path = &folder.pictures()[0].0;
    let image = (Resize::new(8), ToDtype::scaled(Kind::Float));
    let image = image.apply(decode_image(path).unwrap(), &mut ItemRng::seed_from_u64(0)).unwrap();
    assert_eq!((image.kind(), image.size()), (Kind::Float, vec![3, 8, 10]));
}

#[test]
fn an_image_folder_has_a_class_per_folder() {
    let root = tempdir().unwrap();
    let picture = |name: &str, width: u32, color: [u8; 3]| {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_pixel(width, 2, Rgb(color)).save(path).unwrap();
    };
    picture("dog/b.png", 3, [255, 0, 0]);
    picture("cat/deep/er/a.png", 3, [0, 255, 0]);
    picture("cat/c.jpg", 6, [0, 0, 0]);
    fs::write(root.path().join("cat/notes.txt"), "not a picture").unwrap();
    let folder = ImageFolder::open(root.path()).unwrap();
    assert_eq!(folder.classes(), ["cat", "dog"]);
    assert_eq!(folder.pictures().iter().map(|(_, label)| *label).collect::<Vec<_>>(), [0, 0, 1]);
    let load = |folder: ImageFolder| DataLoader::new(folder).batch_size(3).iter(0, 0).unwrap().next().unwrap();
    let small = (Resize::new((2, 3)), ToDtype::scaled(Kind::Float));
    let (images, labels) = load(folder.clone().transform(small)).unwrap();
    assert_eq!((images.size(), labels), (vec![3, 3, 2, 3], Tensor::from_slice(&[0i64, 0, 1])));
    assert_eq!(
        images.select(0, 2).mean_dim([1i64, 2].as_slice(), false, Kind::Float),
        Tensor::from_slice(&[1.0f32, 0., 0.])
    );
    assert_eq!(
        load(folder.clone().mode(ImageReadMode::Gray).transform(Resize::new((2, 3)))).unwrap().0.size(),
        [3, 1, 2, 3]
    );
    assert_eq!(
        load(folder.clone()).unwrap_err().to_string().split(" could not").next(),
        Some(format!("batch 0 of the images in {}", root.path().display()).as_str())
    );

    fs::write(root.path().join("dog/b.png"), "not a picture").unwrap();
    let error = plain(&root, load(folder.transform(Resize::new((2, 3)))).unwrap_err());
    assert!(
        error.starts_with(
            "item 2 of the images in ROOT could not be loaded: ROOT/dog/b.png is not usable: its first bytes"
        ),
        "{error}"
    );
    fs::create_dir(root.path().join("empty")).unwrap();
    assert_eq!(
        plain(&root, ImageFolder::open(root.path()).unwrap_err()),
        "ROOT/empty is not usable: this class has no picture that ends in .jpg, .jpeg, .png, .ppm, .bmp, .pgm, .tif, .tiff, .webp"
    );
    assert_eq!(
        plain(&root, ImageFolder::open(root.path().join("empty")).unwrap_err()),
        "ROOT/empty is not usable: an image folder needs one sub-folder of pictures per class, and this has none"
    );
}

#[cfg(unix)]
#[test]
fn links_in_an_image_folder_are_followed_once() {
    use std::os::unix::fs::symlink;

    let root = tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let pictures = || {
        let folder = ImageFolder::open(at("")).unwrap();
        let names =
            folder.pictures().iter().map(|(path, label)| (path.strip_prefix(at("")).unwrap().to_owned(), *label));
        names.map(|(path, label)| format!("{} {label}", path.display())).collect::<Vec<_>>()
    };
    for (folder, picture) in [("cat/deep", "a.png"), ("dog", "b.png"), ("elsewhere", "c.png")] {
        fs::create_dir_all(at(folder)).unwrap();
        image::RgbImage::new(1, 1).save(at(folder).join(picture)).unwrap();
    }
    let elsewhere = tempdir().unwrap();
    fs::rename(at("elsewhere"), elsewhere.path().join("more")).unwrap();
    symlink(elsewhere.path().join("more"), at("cat/more")).unwrap();
    symlink("../dog/b.png", at("cat/b.png")).unwrap();
    let expected = ["cat/b.png 0", "cat/deep/a.png 0", "cat/more/c.png 0", "dog/b.png 1"];
    assert_eq!(pictures(), expected);
    // Loops, and one that leads to the pictures of another class.
    for (link, target) in [("cat/deep/one", ".."), ("cat/deep/two", ".."), ("dog/all", "../"), ("cat/zelf", "zelf")] {
        symlink(target, at(link)).unwrap();
    }
    assert_eq!(pictures(), expected);
    // Each of these is twice what the next is.
    for level in 0..24 {
        fs::create_dir(at(&format!("cat/level{level}"))).unwrap();
        for link in ["left", "right"] {
            symlink(format!("../level{}", level + 1), at(&format!("cat/level{level}/{link}"))).unwrap();
        }
    }
    fs::create_dir(at("cat/level24")).unwrap();
    image::RgbImage::new(1, 1).save(at("cat/level24/d.png")).unwrap();
    assert_eq!(pictures().len(), 5);

    let made = std::process::Command::new("mkfifo").arg(at("dog/pipe.png")).status().unwrap();
    assert!(made.success());
    assert_eq!(
        plain(&root, ImageFolder::open(at("")).unwrap_err()),
        "ROOT/dog/pipe.png is not usable: it is called a picture, but it is a pipe, a socket or a device"
    );
}
