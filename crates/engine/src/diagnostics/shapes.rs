//! Which parameter an error of libtorch is about: the one whose shape its message has.

use fulgurite_torch::params::{Parameters, named_parameters};
use fulgurite_torch::{LibtorchError, catch_panic};

use crate::error::Error;

const IS_SHAPE: &str = " is the shape of `";

impl Error {
    /// Adds the parameter that the message of a failed step is about, if there is exactly one.
    pub(crate) fn with_parameter(self, vars: &dyn Parameters) -> Error {
        match self {
            Error::Panic { owner, hook, epoch, batch_idx, message } => {
                let parameter =
                    parameter_of(&message, vars).map_or(String::new(), |parameter| format!("; {parameter}"));
                Error::Panic { owner, hook, epoch, batch_idx, message: message + &parameter }
            }
            Error::Hook { owner, hook, epoch, batch_idx, source } => {
                let source = match source.downcast::<LibtorchError>() {
                    Ok(error) => match parameter_of(&error.to_string(), vars) {
                        Some(parameter) => error.about(&parameter).into(),
                        None => error,
                    },
                    Err(source) => source,
                };
                Error::Hook { owner, hook, epoch, batch_idx, source }
            }
            other => other,
        }
    }
}

/// `2x64 is the shape of `hidden.weight`, transposed`.
fn parameter_of(message: &str, vars: &dyn Parameters) -> Option<String> {
    let shapes = shapes_in(message);
    // A step within another hook has added it already.
    if shapes.is_empty() || message.contains(IS_SHAPE) {
        return None;
    }
    // A panic may have left them locked.
    let parameters = catch_panic(|| named_parameters(vars)).ok()?;
    let parameters = parameters.iter().map(|(name, tensor)| (name.as_str(), tensor.size()));
    about(&shapes, &parameters.collect::<Vec<_>>())
}

/// A shape in a message, as it is written there.
#[derive(Debug, PartialEq)]
struct Shape<'m> {
    text: &'m str,
    sizes: Vec<i64>,
    /// Written as that of a matrix, `4x3`: one side of a product, in which weights are transposed.
    is_factor: bool,
}

/// The shapes of two or more dimensions in a message, such as `4x3` and `[8, 1, 3, 3]`.
fn shapes_in(message: &str) -> Vec<Shape<'_>> {
    let mut shapes: Vec<Shape> = Vec::new();
    let mut add = |text, sizes: Option<Vec<i64>>, is_factor| {
        if let Some(sizes) = sizes.filter(|sizes| sizes.len() > 1)
            && shapes.iter().all(|shape| shape.sizes != sizes)
        {
            shapes.push(Shape { text, sizes, is_factor });
        }
    };
    for word in message.split(|c: char| !c.is_ascii_digit() && c != 'x') {
        add(word, word.split('x').map(|size| size.parse().ok()).collect(), true);
    }
    for (at, _) in message.match_indices('[') {
        let Some(end) = message[at..].find(']') else { break };
        let text = &message[at..=at + end];
        add(text, text[1..end].split(',').map(|size| size.trim().parse().ok()).collect(), false);
    }
    shapes
}

fn about(shapes: &[Shape<'_>], parameters: &[(&str, Vec<i64>)]) -> Option<String> {
    let mut found = None;
    for Shape { text, sizes, is_factor } in shapes {
        let transposed: Vec<i64> = sizes.iter().rev().copied().collect();
        for (name, shape) in parameters {
            let how = match () {
                () if shape == sizes => "",
                () if *is_factor && *shape == transposed => ", transposed",
                () => continue,
            };
            if found.replace(format!("{text}{IS_SHAPE}{name}`{how}")).is_some() {
                return None;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_certain() {
        let parameters =
            [("hidden.weight", vec![64, 2]), ("output.weight", vec![2, 9]), ("conv.weight", vec![8, 1, 3, 3])];
        let of = |message| about(&shapes_in(message), &parameters);
        let product = "mat1 and mat2 shapes cannot be multiplied (32x3 and 2x64)";
        assert_eq!(of(product).unwrap(), "2x64 is the shape of `hidden.weight`, transposed");
        let convolution =
            "Given groups=1, weight of size [8, 1, 3, 3], expected input[64, 3, 28, 28] to have 1 channels";
        assert_eq!(of(convolution).unwrap(), "[8, 1, 3, 3] is the shape of `conv.weight`");
        assert_eq!(of("shapes (64x2 and 9x2)"), None);
        assert_eq!(of("size 3 [x] 0x7f [1, 2"), None);
    }
}
