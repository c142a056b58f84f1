//! What `s3s-fs` lacks of S3: conditions that hold against requests at the same moment.
//!
//! The release in use looks whether an object is there before it takes in the body of a put, so that
//! two puts with `If-None-Match: *` may both succeed, and it ignores the condition of a completed
//! multipart upload. It also takes a directory of its own for an object, and cannot store objects with
//! long names, because it keeps a file beside each whose name repeats the object's in base64. Here each
//! of these is as in S3; everything else is passed on.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::BodyExt;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CopyObjectInput, CopyObjectOutput, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, ETagCondition, GetObjectInput, GetObjectOutput, HeadObjectInput,
    HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, PutObjectInput, PutObjectOutput,
    UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::sync::MutexGuard;

/// Objects share a lock when their names hash alike.
const LOCKS: usize = 64;

/// The longest name for which `s3s-fs` can keep a file beside the object, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// The bucket in which objects with longer names come about.
const LONG: &str = "long-names";

/// How often a listing that met a removal is made again.
const LIST_TRIES: u32 = 20;

/// How many requests of each kind were begun.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<BTreeMap<&'static str, u64>>);

impl Counts {
    pub(crate) fn of(&self, operation: &str) -> u64 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(operation).copied().unwrap_or_default()
    }

    fn add(&self, operation: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(operation).or_default() += 1;
    }
}

/// The buckets below a directory.
#[derive(Debug)]
pub(crate) struct Buckets {
    files: FileSystem,
    root: PathBuf,
    /// Whoever changes an object holds its lock from the look at it to the end of the change.
    locks: Vec<tokio::sync::Mutex<()>>,
    counts: Arc<Counts>,
}

impl Buckets {
    pub(crate) fn new(root: &Path, counts: Arc<Counts>) -> Self {
        fs::create_dir(root.join(LONG)).unwrap();
        let files = FileSystem::new(root).unwrap();
        let locks = (0..LOCKS).map(|_| tokio::sync::Mutex::default()).collect();
        Self { files, root: root.to_path_buf(), locks, counts }
    }

    async fn lock(&self, bucket: &str, key: &str) -> MutexGuard<'_, ()> {
        let at = usize::try_from(hash(bucket, key) % LOCKS as u64).unwrap();
        self.locks.get(at).unwrap().lock().await
    }

    /// The name under which an object comes about, when it is not its own.
    fn short(bucket: &str, key: &str) -> Option<String> {
        let is_long = bucket.len() + key.len() > NAME_BYTES_MAX;
        is_long.then(|| format!("{:x}", hash(bucket, key)))
    }

    /// Gives an object its own name.
    fn rename(&self, short: &str, bucket: &str, key: &str) -> S3Result<()> {
        let path = self.root.join(bucket).join(key);
        let moved = path.parent().map_or(Ok(()), fs::create_dir_all);
        let moved = moved.and_then(|()| fs::rename(self.root.join(LONG).join(short), path));
        moved.map_err(|error| s3_error!(error, InternalError))
    }

    /// # Errors
    /// As S3 does for `If-None-Match: *` when the object is there.
    fn check(&self, condition: Option<&ETagCondition>, bucket: &str, key: &str) -> S3Result<()> {
        let is_there = self.root.join(bucket).join(key).is_file();
        if is_there && condition.is_some_and(ETagCondition::is_any) {
            self.counts.add("refused");
            return Err(s3_error!(PreconditionFailed));
        }
        Ok(())
    }

    /// # Errors
    /// `NoSuchKey` for a directory.
    fn check_no_directory(&self, bucket: &str, key: &str) -> S3Result<()> {
        if self.root.join(bucket).join(key).is_dir() {
            return Err(s3_error!(NoSuchKey));
        }
        Ok(())
    }

    /// # Errors
    /// `NoSuchUpload` for one that is over.
    fn check_upload(&self, id: &str) -> S3Result<()> {
        if !self.root.join(format!(".upload-{id}.json")).is_file() {
            return Err(s3_error!(NoSuchUpload));
        }
        Ok(())
    }
}

fn hash(bucket: &str, key: &str) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one((bucket, key))
}

#[async_trait::async_trait]
impl S3 for Buckets {
    async fn put_object(
        &self,
        mut request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        self.counts.add("put");
        let input = &mut request.input;
        let _lock = self.lock(&input.bucket, &input.key).await;
        if let Err(refused) = self.check(input.if_none_match.as_ref(), &input.bucket, &input.key) {
            // An answer to half a request would end the connection.
            let body = input.body.take().map(s3s::Body::from).unwrap_or_default();
            let _ = body.collect().await;
            return Err(refused);
        }
        let Some(short) = Self::short(&input.bucket, &input.key) else {
            return self.files.put_object(request).await;
        };
        let bucket = std::mem::replace(&mut input.bucket, LONG.to_owned());
        let key = std::mem::replace(&mut input.key, short.clone());
        let answer = self.files.put_object(request).await?;
        self.rename(&short, &bucket, &key)?;
        Ok(answer)
    }

    async fn create_multipart_upload(
        &self,
        mut request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.counts.add("create_upload");
        let input = &mut request.input;
        if let Some(short) = Self::short(&input.bucket, &input.key) {
            (input.bucket, input.key) = (LONG.to_owned(), short);
        }
        self.files.create_multipart_upload(request).await
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        self.counts.add("part");
        self.check_upload(&request.input.upload_id)?;
        self.files.upload_part(request).await
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        self.counts.add("part_copy");
        self.check_upload(&request.input.upload_id)?;
        self.files.upload_part_copy(request).await
    }

    async fn complete_multipart_upload(
        &self,
        mut request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.counts.add("complete_upload");
        let input = &mut request.input;
        let _lock = self.lock(&input.bucket, &input.key).await;
        self.check_upload(&input.upload_id)?;
        self.check(input.if_none_match.as_ref(), &input.bucket, &input.key)?;
        let Some(short) = Self::short(&input.bucket, &input.key) else {
            return self.files.complete_multipart_upload(request).await;
        };
        let bucket = std::mem::replace(&mut input.bucket, LONG.to_owned());
        let key = std::mem::replace(&mut input.key, short.clone());
        let answer = self.files.complete_multipart_upload(request).await?;
        self.rename(&short, &bucket, &key)?;
        Ok(answer)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.counts.add("abort_upload");
        self.check_upload(&request.input.upload_id)?;
        self.files.abort_multipart_upload(request).await
    }

    async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        self.counts.add("copy");
        let _lock = self.lock(&request.input.bucket, &request.input.key).await;
        self.files.copy_object(request).await
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        self.counts.add("get");
        self.check_no_directory(&request.input.bucket, &request.input.key)?;
        self.files.get_object(request).await
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        self.counts.add("head");
        self.check_no_directory(&request.input.bucket, &request.input.key)?;
        self.files.head_object(request).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.counts.add("list");
        let mut tried = 1;
        loop {
            let again = S3Request {
                input: request.input.clone(),
                method: request.method.clone(),
                uri: request.uri.clone(),
                headers: request.headers.clone(),
                extensions: request.extensions.clone(),
                credentials: request.credentials.clone(),
                region: request.region.clone(),
                service: request.service.clone(),
                trailing_headers: None,
            };
            match self.files.list_objects_v2(again).await {
                // A file that was listed and is gone when it is looked at; S3 knows no such moment.
                Err(error) if error.code().as_str() == "InternalError" && tried < LIST_TRIES => {
                    tried += 1;
                }
                other => return other,
            }
        }
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.counts.add("delete");
        let _lock = self.lock(&request.input.bucket, &request.input.key).await;
        self.files.delete_object(request).await
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.counts.add("delete_many");
        self.files.delete_objects(request).await
    }
}
