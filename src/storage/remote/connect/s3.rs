//! Amazon S3, and what speaks as it does.

use object_store::aws::{
    AmazonS3Builder, AmazonS3ConfigKey as Key, S3ConditionalPut, S3CopyIfNotExists,
};

use crate::error::Result;
use crate::storage::remote::address::Address;
use crate::storage::remote::connect::{Connected, Patience, refused, transport};
use crate::storage::remote::options::RemoteOptions;

/// What of the environment must not be shown.
const SECRETS: [Key; 3] = [Key::AccessKeyId, Key::SecretAccessKey, Key::Token];

pub(super) fn connect(
    address: &Address,
    options: &RemoteOptions,
    patience: Patience,
) -> Result<Connected> {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&address.authority)
        .with_retry(patience.retry());
    for (key, value) in transport(options, patience) {
        builder = builder.with_config(Key::Client(key), value);
    }
    for (name, key) in [
        ("endpoint", Key::Endpoint),
        ("region", Key::Region),
        ("virtual_hosted", Key::VirtualHostedStyleRequest),
        ("anonymous", Key::SkipSignature),
    ] {
        if let Some(value) = options.text(name) {
            builder = builder.with_config(key, value);
        }
    }
    for (name, key) in [
        ("access_key_id", Key::AccessKeyId),
        ("secret_access_key", Key::SecretAccessKey),
        ("session_token", Key::Token),
    ] {
        if let Some(value) = options.secret(name) {
            builder = builder.with_config(key, value);
        }
    }
    let conditional = if options.is_conditional_put() {
        S3ConditionalPut::ETagMatch
    } else {
        S3ConditionalPut::Disabled
    };
    let builder = builder
        .with_conditional_put(conditional)
        .with_copy_if_not_exists(S3CopyIfNotExists::Multipart);
    let mut secrets = options.secrets();
    secrets.extend(SECRETS.iter().filter_map(|key| builder.get_config_value(key)));
    let store = builder.build().map_err(|error| refused(address, &error, &secrets))?;
    Ok(Connected::numbered(store, secrets))
}
