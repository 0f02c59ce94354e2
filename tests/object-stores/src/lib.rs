//! An S3 server for tests: it keeps everything on the disk, so it can be killed and started again.

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

/// Serves the folders in `folder` as buckets, on `port` of this machine, until the process ends. Port 0 is a free one; the
/// port is said on standard output. The key is `test-key`, the secret `test-secret`.
///
/// # Errors
///
/// A folder that is not there, a port that is taken.
pub fn serve(folder: &Path, port: u16) -> Result<(), Box<dyn Error>> {
    let files = FileSystem::new(folder).map_err(|error| format!("the folder cannot be used: {error:?}"))?;
    let mut service = S3ServiceBuilder::new(files);
    service.set_auth(SimpleAuth::from_single("test-key", "test-secret"));
    let service = service.build();

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        println!("{}", listener.local_addr()?.port());
        io::stdout().flush()?;
        loop {
            let (socket, _) = listener.accept().await?;
            let service = service.clone();
            tokio::spawn(async move {
                // A client that goes away in the middle is no business of the server's.
                let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
            });
        }
    })
}
