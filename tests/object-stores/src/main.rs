//! The S3 server as a process: `fulgurite-object-stores FOLDER PORT`.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(port)) = (arguments.next(), arguments.next()) else {
        return Err("usage: fulgurite-object-stores FOLDER PORT".into());
    };
    fulgurite_object_stores::serve(Path::new(&folder), port.parse()?)
}
